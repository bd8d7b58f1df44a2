"""What the receiver writes down: associations and durable objects, and what each object does to its study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import reduce
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from dicom_node.base.events import Event, log
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.types import Arrival, Rejection, Standing, StudyState, Verdict
from dicom_node.jobs.cleaning import came_again, has_files_again
from dicom_node.jobs.database import portions
from dicom_node.jobs.flags import is_of_two_patients
from dicom_node.jobs.nodes import boots_of_node
from dicom_node.jobs.revisions import CORRECTED, IDENTITY_CORRECTED, REOPENED, Named, RevisionBook, rejection_of
from dicom_node.jobs.tables import associations, events, instances, rejected_objects, rejection_notes, studies
from dicom_node.jobs.transitions import lock_study, reopen
from dicom_node.jobs.versions import Identity, one_of
from prima_core.base.patient import contradiction, merge_patient_keys, same_patient, surely_same_patient

# One of these stands for a SOP Instance UID; whatever comes under it later is compared with its file.
FIRST = (Standing.CURRENT, Standing.OTHER, Standing.UNCORRECTED, Standing.REJECTED)


class ArrivalBook(RevisionBook):
    """Associations, instances and the states they cause."""

    def open_association(self, association_id: str, boot_id: str, calling_ae: str, address: str, at: float) -> None:
        """Note an association; studies it feeds stay open until it is closed."""
        self.open_associations(boot_id, [(association_id, calling_ae, address, at)])

    def open_associations(self, boot_id: str, opened: Sequence[tuple[str, str, str, float]]) -> None:
        """Note associations, each with its id, calling AE title, address and time, in one transaction."""
        if not opened:
            return
        rows = [
            {"id": one, "boot_id": boot_id, "calling_ae": calling_ae, "address": address, "opened_at": at}
            for one, calling_ae, address, at in opened
        ]
        with self._write() as connection:
            connection.execute(associations.insert(), rows)

    def close_association(self, association_id: str, at: float) -> None:
        """Note the end of an association, however it came. Arrivals over it must be recorded before."""
        self.close_associations([(association_id, at)])

    def close_associations(self, closed: Sequence[tuple[str, float]]) -> None:
        """Note the ends of associations, each with its id and time, in one transaction."""
        if not closed:
            return
        this = sa.and_(associations.c.id == sa.bindparam("closed"), associations.c.closed_at.is_(None))
        with self._write() as connection:
            connection.execute(
                associations.update().where(this).values(closed_at=sa.bindparam("at")),
                [{"closed": one, "at": at} for one, at in closed],
            )

    def close_other_boots(self, boot_id: str, at: float) -> None:
        """Close what an earlier receiver left open when it died; of several nodes, the same node's (`jobs.nodes`).

        For the studies that were being fed the quiet begins anew: their senders could not come back until now.
        """
        earlier = sa.and_(boots_of_node(boot_id), associations.c.boot_id != boot_id)
        left = sa.and_(earlier, associations.c.closed_at.is_(None))
        fed = (
            sa.select(instances.c.study_id)
            .distinct()
            .where(left, instances.c.association_id == associations.c.id)
            .order_by(instances.c.study_id)  # as arrivals lock studies
        )
        with self._write() as connection:
            for study in connection.scalars(fed).all():
                waits = sa.and_(studies.c.id == study, studies.c.state == StudyState.RECEIVING)
                fed_before = studies.c.last_arrival_at < at
                connection.execute(studies.update().where(waits, fed_before).values(last_arrival_at=at))
            connection.execute(associations.update().where(left).values(closed_at=at))

    def record_arrivals(self, arrivals: Sequence[Arrival]) -> None:
        """Record durable objects in one transaction. The same path twice is harmless."""
        with self._write() as connection:
            # One order everywhere: two receivers on one PostgreSQL database must not wait for each other in a circle.
            # Within a study the order of receipt: what was rebuilt from files is judged as it was when it came.
            for study, group in groupby(sorted(arrivals, key=_place), key=_study_of):
                of_study = list(group)
                self._ensure_study(connection, of_study[0])
                if lock_study(connection, study).cleaned_at is not None:
                    has_files_again(connection, study)
                named = self._named(connection, study)
                known = self._known_uids(connection, of_study)
                for is_new, run in _runs(of_study, known.union(named)):
                    if is_new:
                        self._record_new(connection, study, run, named)
                    else:
                        for arrival in run:
                            self._record(connection, arrival, named)
            passed(FaultPoint.ARRIVALS_WRITTEN)
        passed(FaultPoint.ARRIVALS_COMMITTED)

    def known_paths(self) -> Iterator[str]:
        """Spool paths that have a row, but for what is lost, expired or cleaned: a file that is there all the same is
        news.
        """
        there = (instances.c.standing.not_in([Standing.LOST, Standing.EXPIRED]), instances.c.cleaned_at.is_(None))
        with self._read() as connection:
            yield from connection.scalars(sa.select(instances.c.path).where(*there))

    def expected_paths(self) -> Iterator[str]:
        """Those that should have a file: not what expired or was cleaned, nor what was superseded: nothing reads it."""
        without = [Standing.LOST, Standing.EXPIRED, Standing.SUPERSEDED]
        there = (instances.c.standing.not_in(without), instances.c.cleaned_at.is_(None))
        with self._read() as connection:
            yield from connection.scalars(sa.select(instances.c.path).where(*there))

    def mark_lost(self, paths: Sequence[str], at: float) -> None:
        """Note that files are gone from the spool: no longer evidence.

        A study's results are partial while an image of its own has no other file. A duplicate takes its place, or the
        object that was to be compared with it. What expired, was superseded, or was cleaned since somebody looked,
        stays what it is.
        """
        stays = instances.c.standing.in_([Standing.EXPIRED, Standing.SUPERSEDED]) | instances.c.cleaned_at.is_not(None)
        with self._write() as connection:
            for path in paths:
                study = connection.scalar(sa.select(instances.c.study_id).where(instances.c.path == path))
                lock_study(connection, study or "")
                this = instances.update().where(instances.c.path == path, ~stays)
                if connection.execute(this.values(standing=Standing.LOST)).rowcount:
                    self._promote_another(connection, path, at)

    def disputed(self, limit: int = 20) -> list[tuple[str, str]]:
        """(path, path of the first object with the same SOP Instance UID) of objects that wait for a comparison."""
        first = instances.alias("first")
        query = (
            sa.select(instances.c.path, first.c.path)
            .join(first, first.c.sop_instance_uid == instances.c.sop_instance_uid)
            .where(
                instances.c.standing == Standing.DISPUTED,
                first.c.standing.in_(FIRST),
            )
            .order_by(instances.c.received_at)
            .limit(limit)
        )
        with self._read() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def settle(self, path: str, verdict: Verdict, first: str | None = None) -> bool:
        """Write down what a disputed object turned out to be, and what follows from it for its study; whether it was.

        first: path of the object that it was compared with; where that no longer stands for the SOP Instance UID, the
        verdict is out of date and another comparison is due.
        """
        with self._write() as connection:
            study = connection.scalar(sa.select(instances.c.study_id).where(instances.c.path == path))
            lock_study(connection, study or "")
            mine = sa.and_(instances.c.path == path, instances.c.standing == Standing.DISPUTED)
            row = connection.execute(sa.select(instances).where(mine)).one_or_none()
            if row is None:
                return False
            stands = self._first(connection, row.sop_instance_uid)
            if first is not None and (stands is None or stands.path != first):
                return False
            if verdict is Verdict.CORRECTION and stands is not None and stands.study_id == row.study_id:
                self._correct_image(connection, stands, row)
            else:
                connection.execute(instances.update().where(mine).values(standing=Standing(verdict.value)))
        return True

    def verdict_without_file(self, first: str, path: str) -> Verdict | None:
        """What an object is whose first version has no file any more, by retention; None where that is not so.

        Pixels cannot be compared. Where the two contradict each other in whose they are, the later word counts, as it
        does with every correction, and no result stands under the former; else neither replaces the other.
        """
        both = sa.select(instances).where(instances.c.path.in_([first, path]))
        with self._read() as connection:
            rows = {row.path: row for row in connection.execute(both)}
        if first not in rows or path not in rows or rows[first].cleaned_at is None:
            return None
        agree = identity_of(rows[first]).agrees(identity_of(rows[path]))
        return Verdict.QUARANTINED if agree else Verdict.CORRECTION

    def _correct_image(self, connection: sa.Connection, first: Any, other: Any) -> None:
        """Of two versions of one object in one study the one that was received last counts. Both are rows."""
        copies = sa.and_(
            instances.c.sop_instance_uid == first.sop_instance_uid,
            instances.c.study_id == first.study_id,
            instances.c.standing == Standing.DUPLICATE,
        )
        group = [first, *connection.execute(sa.select(instances).where(copies))]
        is_newer = (other.received_at, other.path) > max((row.received_at, row.path) for row in group)
        before = self._evidence(connection, first.study_id)
        standings = {row.path: Standing.SUPERSEDED for row in (group if is_newer else [other])}
        if is_newer:
            standings[other.path] = Standing.CURRENT if other.image else Standing.OTHER
        for path, standing in standings.items():
            connection.execute(instances.update().where(instances.c.path == path).values(standing=standing))
        if first.image:
            agree = identity_of(first).agrees(identity_of(other))
            reason = CORRECTED if agree else IDENTITY_CORRECTED
            self._revise(connection, first.study_id, other.received_at, reason, before, arrived=is_newer)

    def _promote_another(self, connection: sa.Connection, lost: str, at: float) -> None:
        """With the first object gone a copy takes its place, or the oldest of those that it disputed with."""
        uid = connection.scalar(sa.select(instances.c.sop_instance_uid).where(instances.c.path == lost))
        if self._first(connection, uid or "") is not None:
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
        lock_study(connection, oldest.study_id)
        standing = _as_first(oldest, self._named(connection, oldest.study_id))
        connection.execute(instances.update().where(instances.c.path == oldest.path).values(standing=standing))
        if standing is Standing.CURRENT:
            self._feed_study(connection, oldest, at)

    @staticmethod
    def _known_uids(connection: sa.Connection, arrivals: Sequence[Arrival]) -> set[str]:
        """Those of the arrivals' SOP Instance UIDs that anything on record has."""
        known: set[str] = set()
        for some in portions({arrival.sop_instance_uid for arrival in arrivals}):
            column = instances.c.sop_instance_uid
            known.update(connection.scalars(sa.select(column).where(column.in_(some))))
        return known

    def _record_new(self, connection: sa.Connection, study: str, arrivals: Sequence[Arrival], named: Named) -> None:
        """Record a study's arrivals whose SOP Instance UIDs nothing on record, and no rejection note, has.

        What `_record` does with one after another, in three statements: a scanner's images would wait for it. Images
        that do more to their study than to arrive go there, from the first on.
        """
        for done, arrival in enumerate(arrivals):
            if self._record_together(connection, study, arrivals[done:]):
                return
            self._record(connection, arrival, named)

    def _record_together(self, connection: sa.Connection, study: str, arrivals: Sequence[Arrival]) -> bool:
        """Record new arrivals at once if all of them only add to their study; whether they did."""
        row = connection.execute(sa.select(studies).where(studies.c.id == study)).one()
        images = [arrival for arrival in arrivals if arrival.image]
        keys = [row.patient_key, *(image.patient_key for image in images)]
        if row.state != StudyState.RECEIVING or contradiction(keys) or self._has_versions(connection, study):
            return False
        connection.execute(instances.insert(), [_columns(arrival, _as_first(arrival, {})) for arrival in arrivals])
        changes: dict[str, Any] = {"urgent": True} if any(arrival.urgent for arrival in arrivals) else {}
        if images:
            changes |= {
                "last_arrival_at": max(row.last_arrival_at, *(image.received_at for image in images)),
                "patient_key": reduce(merge_patient_keys, keys),
                "accession_number": reduce(one_of, [image.accession_number for image in images], row.accession_number),
            }
        if changes:
            connection.execute(studies.update().where(studies.c.id == study).values(**changes))
        return True

    def _record(self, connection: sa.Connection, arrival: Arrival, named: Named) -> None:
        if arrival.urgent:
            connection.execute(studies.update().where(studies.c.id == arrival.study_id).values(urgent=True))
        this = instances.c.path == arrival.path
        about = (instances.c.standing, instances.c.received_at, instances.c.cleaned_at)
        known = connection.execute(sa.select(*about).where(this)).one_or_none()
        if known is not None and known.cleaned_at is not None and arrival.received_at > known.received_at:
            came_again(connection, arrival)
        if known is not None and known.standing == Standing.EXPIRED:
            self._free_again(connection, arrival)
        if known is not None and known.standing != Standing.LOST:
            if known.standing == Standing.SUPERSEDED and arrival.received_at > known.received_at:
                log(Event.OLD_VERSION_CAME, "warning", study=arrival.study_id, path=arrival.path)
            return
        standing = self._standing(connection, arrival, named)
        if known is None:
            connection.execute(instances.insert().values(**_columns(arrival, standing)))
        else:  # its file was written anew, or was found again
            again = {"received_at": arrival.received_at, "association_id": arrival.association_id}
            connection.execute(instances.update().where(this).values(standing=standing, **again))
        if standing is Standing.EXPIRED:
            self._free_again(connection, arrival)
        elif standing is Standing.CURRENT:
            self._feed_study(connection, arrival, arrival.received_at)

    @staticmethod
    def _free_again(connection: sa.Connection, arrival: Arrival) -> None:
        """Have the file deleted of an image that came once more after its retention expired."""
        names_it = sa.select(rejected_objects.c.note).where(
            rejected_objects.c.sop_instance_uid == arrival.sop_instance_uid
        )
        expires = sa.and_(
            rejection_notes.c.study_id == arrival.study_id,
            rejection_notes.c.rejection == Rejection.RETENTION,
            rejection_notes.c.path.in_(names_it),
        )
        connection.execute(rejection_notes.update().where(expires).values(due=True))

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

    def _standing(self, connection: sa.Connection, arrival: Arrival, named: Named) -> Standing:
        if self._has_expired(connection, arrival, named):
            return Standing.EXPIRED
        first = self._first(connection, arrival.sop_instance_uid)
        if first is not None:
            return Standing.DUPLICATE if first.digest == arrival.digest else Standing.DISPUTED
        return _as_first(arrival, named)

    @staticmethod
    def _has_expired(connection: sa.Connection, arrival: Arrival, named: Named) -> bool:
        """Whether a retention note names the object: of its patient, or of that of a version that went by it."""
        keys = [key for key, what in named.get(arrival.sop_instance_uid, ()) if what is Rejection.RETENTION]
        if not keys:
            return False
        gone = sa.and_(
            instances.c.study_id == arrival.study_id,
            instances.c.sop_instance_uid == arrival.sop_instance_uid,
            instances.c.standing == Standing.EXPIRED,
        )
        is_gone = connection.execute(sa.select(instances.c.path).where(gone).limit(1)).first() is not None
        return is_gone or any(surely_same_patient(key, arrival.patient_key) for key in keys)

    @staticmethod
    def _first(connection: sa.Connection, sop_instance_uid: str) -> Any:
        """The row of the object that stands for this SOP Instance UID, if one does."""
        stands = sa.and_(instances.c.sop_instance_uid == sop_instance_uid, instances.c.standing.in_(FIRST))
        return connection.execute(sa.select(instances).where(stands).limit(1)).one_or_none()

    def _feed_study(self, connection: sa.Connection, image: Any, at: float) -> None:
        """What one more image does to its study. image: an arrival, or its row."""
        study = connection.execute(sa.select(studies).where(studies.c.id == image.study_id)).one()
        if not same_patient(study.patient_key, image.patient_key) or self._has_versions(connection, study.id):
            before = self._evidence(connection, study.id) - {image.path}
            self._revise(connection, study.id, at, REOPENED, before, arrived=True)
            return
        connection.execute(
            studies.update()
            .where(studies.c.id == study.id)
            .values(
                last_arrival_at=sa.case((studies.c.last_arrival_at < at, at), else_=studies.c.last_arrival_at),
                patient_key=merge_patient_keys(study.patient_key, image.patient_key),
                accession_number=one_of(study.accession_number, image.accession_number),
            )
        )
        if is_of_two_patients(study):
            return
        revision = reopen(connection, study, at, REOPENED)
        if revision is not None:
            log(Event.STUDY_REOPENED, study=study.id, revision=revision, state=study.state)


def identity_of(row: Any) -> Identity:
    """Of whom, and for which order, an object says that it is. row: of `instances`, or an arrival."""
    return Identity(row.patient_key, row.issuer, row.accession_number)


def _columns(arrival: Arrival, standing: Standing) -> dict[str, Any]:
    """The row of `instances` for an arrival."""
    of_study = ("study_instance_uid", "urgent")
    row = {name: value for name, value in vars(arrival).items() if name not in of_study}
    return row | {"study_id": arrival.study_id, "standing": standing}


def _runs(arrivals: Sequence[Arrival], known: AbstractSet[str]) -> Iterator[tuple[bool, list[Arrival]]]:
    """The arrivals in their order, those whose SOP Instance UIDs come for the first time apart from the others."""
    seen = set(known)

    def is_new(arrival: Arrival) -> bool:
        new = arrival.sop_instance_uid not in seen
        seen.add(arrival.sop_instance_uid)
        return new

    for new, run in groupby(arrivals, key=is_new):
        yield new, list(run)


def _as_first(item: Any, named: Named) -> Standing:
    """The standing of an object that is the only one of its SOP Instance UID. item: an arrival, or its row."""
    if not item.image:
        return Standing.OTHER
    is_rejected = rejection_of(named, item.sop_instance_uid, item.patient_key) is not None
    return Standing.REJECTED if is_rejected else Standing.CURRENT


def _place(arrival: Arrival) -> tuple[str, float]:
    return arrival.study_id, arrival.received_at


def _study_of(arrival: Arrival) -> str:
    return arrival.study_id
