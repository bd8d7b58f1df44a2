"""What the receiver writes down: associations and durable objects, and what each object does to its study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from dicom_node.base.events import Event, log
from dicom_node.base.types import Arrival, Standing, StudyState, Verdict
from dicom_node.jobs.database import Database
from dicom_node.jobs.tables import associations, events, instances, studies
from dicom_node.jobs.transitions import lock_study, move
from prima_core.base.patient import merge_patient_keys, same_patient

TWO_PATIENTS = (
    "images of two patients arrived under one Study Instance UID; "
    "correct it at the source and send each patient's images under a Study Instance UID of their own"
)
CONTRADICTION = "\\"  # no legal accession number, so no order has it
REOPENED = "an image arrived after the study was closed"


class ArrivalBook(Database):
    """Associations, instances and the states they cause."""

    def open_association(self, association_id: str, boot_id: str, calling_ae: str, address: str, at: float) -> None:
        """Note an association; studies it feeds stay open until it is closed."""
        with self._write() as connection:
            connection.execute(
                associations.insert().values(
                    id=association_id, boot_id=boot_id, calling_ae=calling_ae, address=address, opened_at=at
                )
            )

    def close_association(self, association_id: str, at: float) -> None:
        """Note the end of an association, however it came. Arrivals over it must be recorded before."""
        with self._write() as connection:
            connection.execute(
                associations.update()
                .where(associations.c.id == association_id, associations.c.closed_at.is_(None))
                .values(closed_at=at)
            )

    def close_other_boots(self, boot_id: str, at: float) -> None:
        """Close what an earlier receiver left open when it died."""
        with self._write() as connection:
            connection.execute(
                associations.update()
                .where(associations.c.boot_id != boot_id, associations.c.closed_at.is_(None))
                .values(closed_at=at)
            )

    def record_arrivals(self, arrivals: Sequence[Arrival]) -> None:
        """Record durable objects in one transaction. The same path twice is harmless."""
        with self._write() as connection:
            # One order everywhere: two receivers on one PostgreSQL database must not wait for each other in a circle.
            for study, group in groupby(sorted(arrivals, key=_study_of), key=_study_of):
                of_study = list(group)
                self._ensure_study(connection, of_study[0])
                lock_study(connection, study)
                for arrival in of_study:
                    self._record(connection, arrival)

    def known_paths(self) -> Iterator[str]:
        """Spool paths that have a row and should have a file."""
        with self._read() as connection:
            yield from connection.scalars(sa.select(instances.c.path).where(instances.c.standing != Standing.LOST))

    def mark_lost(self, paths: Sequence[str], at: float) -> None:
        """Note that files are gone from the spool: no longer evidence.

        A study's results are partial while an image of its own has no other file. A duplicate takes its place, or the
        object that was to be compared with it.
        """
        with self._write() as connection:
            for path in paths:
                study = connection.scalar(sa.select(instances.c.study_id).where(instances.c.path == path))
                lock_study(connection, study or "")
                connection.execute(instances.update().where(instances.c.path == path).values(standing=Standing.LOST))
                self._promote_another(connection, path, at)

    def disputed(self, limit: int = 20) -> list[tuple[str, str]]:
        """(path, path of the first object with the same SOP Instance UID) of objects that wait for a comparison."""
        first = instances.alias("first")
        query = (
            sa.select(instances.c.path, first.c.path)
            .join(first, first.c.sop_instance_uid == instances.c.sop_instance_uid)
            .where(
                instances.c.standing == Standing.DISPUTED,
                first.c.standing.in_([Standing.CURRENT, Standing.OTHER]),
            )
            .order_by(instances.c.received_at)
            .limit(limit)
        )
        with self._read() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def settle(self, path: str, verdict: Verdict) -> None:
        """Write down what a disputed object turned out to be."""
        with self._write() as connection:
            connection.execute(
                instances.update()
                .where(instances.c.path == path, instances.c.standing == Standing.DISPUTED)
                .values(standing=Standing(verdict.value))
            )

    def _promote_another(self, connection: sa.Connection, lost: str, at: float) -> None:
        """With the first object gone a copy takes its place, or the oldest of those that it disputed with."""
        uid = connection.scalar(sa.select(instances.c.sop_instance_uid).where(instances.c.path == lost))
        if self._digest_of_first(connection, uid or "") is not None:
            return
        oldest = connection.execute(
            sa.select(instances)
            .where(instances.c.sop_instance_uid == uid)
            .where(instances.c.standing.in_([Standing.DUPLICATE, Standing.DISPUTED]))
            .order_by(instances.c.standing != Standing.DUPLICATE, instances.c.received_at, instances.c.path)
            .limit(1)
        ).one_or_none()
        if oldest is None:
            return
        standing = Standing.CURRENT if oldest.image else Standing.OTHER
        connection.execute(instances.update().where(instances.c.path == oldest.path).values(standing=standing))
        if oldest.image:
            lock_study(connection, oldest.study_id)
            self._feed_study(connection, oldest, at)

    def _record(self, connection: sa.Connection, arrival: Arrival) -> None:
        if arrival.urgent:
            connection.execute(studies.update().where(studies.c.id == arrival.study_id).values(urgent=True))
        this = instances.c.path == arrival.path
        known = connection.scalar(sa.select(instances.c.standing).where(this))
        if known not in (None, Standing.LOST):
            return
        standing = self._standing(connection, arrival)
        if known is None:
            columns = {k: v for k, v in asdict(arrival).items() if k not in ("study_instance_uid", "urgent")}
            connection.execute(instances.insert().values(study_id=arrival.study_id, standing=standing, **columns))
        else:
            connection.execute(instances.update().where(this).values(standing=standing))
        if standing is Standing.CURRENT:
            self._feed_study(connection, arrival, arrival.received_at)

    def _ensure_study(self, connection: sa.Connection, arrival: Arrival) -> None:
        created = connection.execute(
            self._insert(studies)
            .values(
                id=arrival.study_id,
                study_instance_uid=arrival.study_instance_uid,
                state=StudyState.RECEIVING,
                received_at=arrival.received_at,
                opened_at=arrival.received_at,
                last_arrival_at=arrival.received_at,
                patient_key="",
            )
            .on_conflict_do_nothing()
            .returning(studies.c.id)
        ).first()
        if created is not None:
            connection.execute(
                events.insert().values(
                    study_id=arrival.study_id, at=arrival.received_at, revision=1, to_state=StudyState.RECEIVING
                )
            )

    def _standing(self, connection: sa.Connection, arrival: Arrival) -> Standing:
        first = self._digest_of_first(connection, arrival.sop_instance_uid)
        if first is not None:
            return Standing.DUPLICATE if first == arrival.digest else Standing.DISPUTED
        return Standing.CURRENT if arrival.image else Standing.OTHER

    @staticmethod
    def _digest_of_first(connection: sa.Connection, sop_instance_uid: str) -> str | None:
        """Digest of the object that stands for this SOP Instance UID, if one does."""
        stands = instances.c.standing.in_([Standing.CURRENT, Standing.OTHER])
        query = sa.select(instances.c.digest).where(instances.c.sop_instance_uid == sop_instance_uid, stands)
        found: str | None = connection.scalar(query.limit(1))
        return found

    @staticmethod
    def _feed_study(connection: sa.Connection, image: Any, at: float) -> None:
        """What one more image does to its study. image: an arrival, or its row."""
        study = connection.execute(sa.select(studies).where(studies.c.id == image.study_id)).one()
        everywhere_else = [state for state in StudyState if state is not StudyState.DEAD]
        if not same_patient(study.patient_key, image.patient_key):
            if move(connection, study.id, everywhere_else, StudyState.DEAD, at, reason=TWO_PATIENTS, owner=None):
                log(Event.STUDY_DEAD, "error", study=study.id, reason=TWO_PATIENTS)
            return
        connection.execute(
            studies.update()
            .where(studies.c.id == study.id)
            .values(
                last_arrival_at=sa.case((studies.c.last_arrival_at < at, at), else_=studies.c.last_arrival_at),
                patient_key=merge_patient_keys(study.patient_key, image.patient_key),
                accession_number=_one_of(study.accession_number, image.accession_number),
            )
        )
        if study.state == StudyState.RECEIVING or (study.state == StudyState.DEAD and study.reason == TWO_PATIENTS):
            return
        # A study that only waited had no answer yet; any other gets a new revision, which names the old report.
        revision = study.revision if study.state == StudyState.COMPLETE else study.revision + 1
        move(
            connection,
            study.id,
            [StudyState(study.state)],
            StudyState.RECEIVING,
            at,
            reason=REOPENED,
            revision=revision,
            opened_at=at,
            attempts=0,
            next_attempt_at=None,
            owner=None,
            lease_until=None,
            partial_reason=None,
        )
        log(Event.STUDY_REOPENED, study=study.id, revision=revision, state=study.state)


def _one_of(known: str, said: str) -> str:
    """A study's accession number; images that disagree leave it without one for good."""
    return known if not said or known == said else (said if not known else CONTRADICTION)


def _study_of(arrival: Arrival) -> str:
    return arrival.study_id
