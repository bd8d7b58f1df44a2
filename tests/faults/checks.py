"""What must hold after every fault, once the node has recovered by itself. Everything is counted; all counts must be 0.

The archives' side is judged by what they were sent alone, without the registry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dicom_node.base.types import DeliveryState, Standing, StudyState, study_id
from dicom_node.jobs.tables import associations, deliveries, instances, results
from dicom_node.jobs.tables import studies as studies_table
from faults.house import House
from faults.load import SentStudy
from faults.peers import Reports, told

OPEN = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.COMMITTING, DeliveryState.SET_ASIDE)
DESTINATIONS = ("pacs", "vault", "ris")


@dataclass
class Wrong:
    """How many of each went wrong. images: acknowledged and lost or changed. told: deliveries that the RIS never got.

    foreign: objects or messages that name another study's images, patient or order. registry: rows and files that do
    not fit each other, or rows that wait for ever. persons: recoveries that needed one.
    """

    images: int = 0
    missing: int = 0
    duplicate: int = 0
    altered: int = 0
    foreign: int = 0
    told: int = 0
    registry: int = 0
    persons: int = 0

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    def __iadd__(self, other: Wrong) -> Wrong:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        return self


def done(house: House, study: SentStudy) -> bool:
    """Whether the node has nothing left to do for a study."""
    found = house.node.registry.study(study.uid)
    if found is None or found.state != StudyState.DELIVERED or found.instances != len(study.digests):
        return False
    of_study = sa.select(deliveries.c.destination, deliveries.c.state).where(
        deliveries.c.study_id == study_id(study.uid)
    )
    with house.node.registry._read() as connection:
        rows = connection.execute(of_study).all()
    return {row.destination for row in rows} == set(DESTINATIONS) and not {row.state for row in rows} & set(OPEN)


def recovered(house: House, sent: Sequence[SentStudy]) -> None:
    """Wait until the node is well and has done all its work. Raises AssertionError when that never happens."""
    house.settle()
    for study in sent:
        house.node.wait(partial(done, house, study), f"study {study_id(study.uid)} is done")
    house.node.wait(partial(_is_quiet, house), "no association is open")
    house.vault.settle()


def _is_quiet(house: House) -> bool:
    open_now = sa.select(sa.func.count()).where(associations.c.closed_at.is_(None))
    with house.node.registry._read() as connection:
        return not connection.scalar(open_now)


def what_is_wrong(house: House, sent: Sequence[SentStudy]) -> Wrong:
    """Hold everything against what was sent and acknowledged."""
    wrong = Wrong(persons=house.node.persons)
    spool = house.node.configuration.node.spool
    rows = _rows(house, instances, instances.c.study_id.in_([study_id(study.uid) for study in sent]))
    by_uid = {row.sop_instance_uid: row for row in rows}
    for study in sent:
        wrong.images += sum(not _is_kept(spool, by_uid.get(uid), study.digests[uid]) for uid in study.acknowledged)
        for archive in (house.pacs.kept, house.vault.kept):
            _judge(archive, study, wrong)
    _judge_ris(house, sent, wrong)
    wrong.registry += _disagreements(house, sent, rows)
    return wrong


def whatever_is_wrong(house: House, sent: Sequence[SentStudy]) -> Wrong:
    """Once more of all rounds together: nothing went later, and nothing came anywhere that nobody sent."""
    wrong = what_is_wrong(house, sent)
    known = {study.uid for study in sent}
    wrong.foreign += sum(len(archive.studies() - known) for archive in (house.pacs.kept, house.vault.kept))
    wrong.foreign += sum(one[0] not in known for one in told(house.ris.received))
    wrong.registry += len({row.study_id for row in house.node.rows(instances)} ^ set(map(study_id, known)))
    return wrong


def _is_kept(spool: Path, row: Any, digest: str) -> bool:
    """Whether an image is evidence of its study, and its data set in the spool is what was sent, byte for byte."""
    if row is None or row.standing != Standing.CURRENT or row.digest != digest:
        return False
    content = (spool / row.path).read_bytes()
    return hashlib.sha256(content[len(content) - row.size :]).hexdigest() == digest


def _judge(archive: Reports, study: SentStudy, wrong: Wrong) -> None:
    came = archive.of(study.uid)
    replaced = {uid for one in came for uid in one.predecessors}
    current = {one.uid for one in came} - replaced
    wrong.missing += not current
    wrong.duplicate += max(0, len(current) - 1)
    wrong.altered += len({(one.uid, one.digest) for one in came}) - len({one.uid for one in came})
    wrong.foreign += sum(not one.evidence <= study.digests.keys() for one in came)
    wrong.foreign += sum(one.patient != study.facts.patient_id for one in came)
    # What is current rests on all images of the study.
    wrong.missing += sum(one.evidence != study.digests.keys() for one in came if one.uid in current)


def _judge_ris(house: House, sent: Sequence[SentStudy], wrong: Wrong) -> None:
    heard = set(told(house.ris.received))
    for study in sent:
        mine = {one for one in heard if study.uid in one or study.placer in one}
        wrong.told += not mine
        wrong.foreign += len(mine - {(study.uid, study.placer, study.facts.patient_id)})


def _disagreements(house: House, sent: Sequence[SentStudy], rows: Sequence[Any]) -> int:
    """Rows without a file, files without a row, half-written files, rows of no image, results beyond what was sent."""
    spool = house.node.configuration.node.spool
    ids = [study_id(study.uid) for study in sent]
    files = {file.relative_to(spool).as_posix() for one in ids for file in (spool / one).glob("*")}
    leftovers = [*(spool / ".incoming").iterdir(), *(spool / ".unreadable").iterdir()]
    outgoing = house.node.configuration.node.outgoing
    parts = list(outgoing.glob(".*"))
    unfinished = _rows(
        house,
        studies_table,
        studies_table.c.owner.is_not(None) | (studies_table.c.state != StudyState.DELIVERED),
    )
    waiting = _rows(house, deliveries, deliveries.c.state.in_(OPEN) | deliveries.c.owner.is_not(None))
    reports = _rows(house, results, results.c.study_id.in_(ids))
    unknown = [one for one in reports if not (outgoing / one.path).is_file()]
    images = sum(len(study.digests) for study in sent)
    return (
        len(files ^ {row.path for row in rows})
        + abs(images - len(rows))
        + sum(map(len, (leftovers, parts, unfinished, waiting, unknown)))
    )


def _rows(house: House, table: sa.Table, which: Any) -> Sequence[Any]:
    with house.node.registry._read() as connection:
        return connection.execute(sa.select(table).where(which)).all()
