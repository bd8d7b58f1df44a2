"""What happened and is not in the audit trail yet: rows that say so themselves, so that no process can forget it.

A row is marked in the transaction that hands it out, which is committed once the trail has it: whatever dies meanwhile,
each is recorded, at worst twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from dicom_node.base.audited import Due, Happened
from dicom_node.jobs.database import Database
from dicom_node.jobs.tables import associations, deliveries, instances, model_changes, results, studies

NOT_YET, BEGUN, DONE = 0, 1, 2  # of a delivery
TOLD_PRIORITIES = ("hl7", "ups")
OPEN = (
    sa.and_(associations.c.audited == sa.false(), associations.c.closed_at.is_not(None)),
    results.c.audited == sa.false(),
    model_changes.c.audited == sa.false(),
    sa.and_(deliveries.c.audited == NOT_YET, deliveries.c.attempts > 0),
    sa.and_(deliveries.c.audited < DONE, deliveries.c.delivered_at.is_not(None)),
)


class AuditBook(Database):
    """Hands out what is to be recorded."""

    @contextmanager
    def audit_due(self, limit: int, now: float) -> Iterator[list[Due]]:
        """Up to `limit` of each kind of what is due, oldest first; recorded for good when the block ends well."""
        with self._read() as connection:
            waits = any(connection.scalar(sa.select(sa.literal(1)).where(condition).limit(1)) for condition in OPEN)
        if not waits:
            yield []
            return
        with self._write() as connection:
            yield [
                *_received(connection, limit),
                *_results(connection, limit),
                *_begun(connection, limit, now),
                *_sent(connection, limit),
                *_models(connection, limit),
            ]


def _taken(connection: sa.Connection, query: Any, limit: int) -> Sequence[Any]:
    """Rows, locked on PostgreSQL; what another node on this database has in hand is left to it."""
    return connection.execute(query.limit(limit).with_for_update(skip_locked=True)).all()


def _received(connection: sa.Connection, limit: int) -> list[Due]:
    query = sa.select(associations).where(OPEN[0]).order_by(associations.c.closed_at)
    rows = _taken(connection, query, limit)
    _mark(connection, associations, [row.id for row in rows], True)
    found = []
    for row in rows:
        objects = connection.execute(
            sa.select(instances.c.study_id, instances.c.sop_class_uid, sa.func.count(), sa.func.min(instances.c.path))
            .where(instances.c.association_id == row.id)
            .group_by(instances.c.study_id, instances.c.sop_class_uid)
            .order_by(instances.c.study_id, instances.c.sop_class_uid)
        ).all()
        for study_id in dict.fromkeys(one[0] for one in objects):
            of_study = [one for one in objects if one[0] == study_id]
            whose = _whose(connection, study_id, of_study[0][3])
            classes = {uid: count for _, uid, count, _ in of_study}
            peer = {"peer": row.calling_ae, "address": row.address}
            found.append(Due(Happened.RECEIVED, row.closed_at, **whose, **peer, sop_classes=classes))
    return found


def _results(connection: sa.Connection, limit: int) -> list[Due]:
    rows = _taken(connection, sa.select(results).where(OPEN[1]).order_by(results.c.id), limit)
    _mark(connection, results, [row.id for row in rows], True)
    return [
        Due(
            Happened.RESULT,
            row.created_at,
            **_whose(connection, row.study_id),
            sop_classes={row.sop_class_uid: 1},
            words=f"by model {row.bundle_id} ({row.training_state})",
        )
        for row in rows
    ]


def _begun(connection: sa.Connection, limit: int, now: float) -> list[Due]:
    rows = _taken(connection, sa.select(deliveries).where(OPEN[3]).order_by(deliveries.c.id), limit)
    _mark(connection, deliveries, [row.id for row in rows], BEGUN)
    objects = [row for row in rows if row.kind not in TOLD_PRIORITIES]
    # An attempt's own time is kept nowhere.
    return [_delivery(connection, row, Happened.SENDING, row.delivered_at or now) for row in objects]


def _sent(connection: sa.Connection, limit: int) -> list[Due]:
    rows = _taken(connection, sa.select(deliveries).where(OPEN[4]).order_by(deliveries.c.delivered_at), limit)
    _mark(connection, deliveries, [row.id for row in rows], DONE)
    return [
        _delivery(connection, row, Happened.TOLD if row.kind in TOLD_PRIORITIES else Happened.SENT, row.delivered_at)
        for row in rows
    ]


def _delivery(connection: sa.Connection, row: Any, what: Happened, at: float) -> Due:
    sop_class = ""
    if row.kind == "sr":  # in the site's own SOP class, not one that the destination has instead
        of_result = (results.c.id == row.result_id, results.c.path == row.path)
        sop_class = connection.scalar(sa.select(results.c.sop_class_uid).where(*of_result)) or ""
    classes = {} if what is Happened.TOLD else {sop_class: 1}
    return Due(what, at, **_whose(connection, row.study_id), peer=row.destination, sop_classes=classes)


def _models(connection: sa.Connection, limit: int) -> list[Due]:
    rows = _taken(connection, sa.select(model_changes).where(OPEN[2]).order_by(model_changes.c.id), limit)
    _mark(connection, model_changes, [row.id for row in rows], True)
    return [Due(Happened.MODEL, row.at, peer=row.who, words=f"{row.action} model {row.bundle_id}") for row in rows]


def _whose(connection: sa.Connection, study_id: str, example: str | None = None) -> dict[str, str]:
    study = connection.execute(
        sa.select(studies.c.study_instance_uid, studies.c.patient_key).where(studies.c.id == study_id)
    ).one()
    if example is None:
        example = connection.scalar(sa.select(sa.func.min(instances.c.path)).where(instances.c.study_id == study_id))
    return {
        "study_instance_uid": study.study_instance_uid,
        "patient_key": study.patient_key,
        "example": example or "",
    }


def _mark(connection: sa.Connection, table: sa.Table, ids: Sequence[Any], how: Any) -> None:
    if ids:
        connection.execute(table.update().where(table.c.id.in_(ids)).values(audited=how))
