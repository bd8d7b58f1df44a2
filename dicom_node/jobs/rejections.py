"""Rejection notes that others send (IHE RAD IOCM): each Key Object Selection is examined once and acted on.

A note counts for the images of its own study and patient, whether they came before it or come after it. What it rejects
is no evidence any more; what it says the retention of has expired is deleted here, and results stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.base.types import KeyObjects, Rejection, Standing
from dicom_node.jobs.revisions import REJECTED, RevisionBook
from dicom_node.jobs.tables import instances, rejected_objects, rejection_notes
from dicom_node.jobs.transitions import lock_study, note_event
from prima_core.base.patient import surely_same_patient

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
MAY_REJECT = (Standing.OTHER, Standing.SUPERSEDED)
OTHER_STUDY = "names objects of another study than its own"
OTHER_PATIENT = "names images of another patient than its own"
UNREADABLE = "cannot be read as a Key Object Selection"
FILES_EXPIRED = "files were deleted because their retention expired"


@dataclass(frozen=True)
class Applied:
    """What a note did. rejection: None where it was none. images, reports: how many it names here.

    ignored: why it, or a part of it, has no effect, else empty.
    """

    study_id: str
    rejection: Rejection | None
    images: int = 0
    reports: int = 0
    ignored: str = ""


@dataclass(frozen=True)
class Expired:
    """Files that are to be deleted. note: path of the note that says so."""

    note: str
    study_id: str
    paths: tuple[str, ...]


class RejectionBook(RevisionBook):
    """Rejection notes."""

    def unexamined_notes(self, limit: int = 20) -> list[str]:
        """Paths of Key Object Selections that nobody has examined yet, in the order in which they came."""
        query = sa.select(instances.c.path).where(is_unexamined())
        with self._read() as connection:
            return list(connection.scalars(query.order_by(instances.c.received_at, instances.c.path).limit(limit)))

    def apply_note(self, path: str, said: KeyObjects | None, at: float) -> Applied | None:
        """Do what a note says, once; None where there is no such note any more. said: None if it cannot be read."""
        with self._write() as connection:
            study = connection.scalar(sa.select(instances.c.study_id).where(instances.c.path == path))
            row = lock_study(connection, study or "")
            this = sa.and_(instances.c.path == path, is_unexamined())
            note = connection.execute(sa.select(instances).where(this)).one_or_none()
            if note is None:
                return None
            objects = [] if said is None else [one for one in said.references if one[0] == row.study_instance_uid]
            rejection = said.rejection if said is not None else None
            ignored = self._ignored(connection, note, said, objects)
            connection.execute(
                rejection_notes.insert().values(
                    path=path,
                    study_id=note.study_id,
                    patient_key=note.patient_key,
                    rejection=rejection or "",
                    outcome=ignored,
                    due=rejection is Rejection.RETENTION,
                    examined_at=at,
                )
            )
            if rejection is None:
                return Applied(note.study_id, None, ignored=ignored)
            names = dict.fromkeys(uid for _, _, uid in objects)
            if names:
                rows = [{"note": path, "sop_instance_uid": uid} for uid in names]
                connection.execute(rejected_objects.insert(), rows)
            mine = [one for one in self._named_images(connection, note.study_id, names) if _of_patient(one, note)]
            if rejection is Rejection.RETENTION:
                self._expire(connection, note.study_id, {one.sop_instance_uid for one in mine})
                return Applied(note.study_id, rejection, len(mine), ignored=ignored)
            series_and_sops = [(series, uid) for _, series, uid in objects]
            of_patient = bool(mine) or _of_patient(row, note)
            named = series_and_sops if of_patient else []
            reports = self._note_rejected_reports(connection, note.study_id, named, rejection, at)
            if mine:
                before = self._evidence(connection, note.study_id)
                self._revise(connection, note.study_id, at, REJECTED, before, arrived=False)
            return Applied(note.study_id, rejection, len(mine), reports, ignored)

    def expired_files(self) -> list[Expired]:
        """Files whose retention expired, of studies of which some may still be there."""
        due = sa.select(rejection_notes).where(rejection_notes.c.due).order_by(rejection_notes.c.path)
        with self._read() as connection:
            rows = connection.execute(due).all()
            return [Expired(row.path, row.study_id, tuple(self._gone(connection, row))) for row in rows]

    def files_deleted(self, note: str, study: str, count: int, at: float) -> None:
        """Note that the files that a note let expire are gone."""
        with self._write() as connection:
            row = lock_study(connection, study)
            connection.execute(rejection_notes.update().where(rejection_notes.c.path == note).values(due=False))
            if count:
                note_event(connection, row, at, f"{count} {FILES_EXPIRED}")

    def _ignored(
        self, connection: sa.Connection, note: Any, said: KeyObjects | None, objects: Sequence[tuple[str, str, str]]
    ) -> str:
        """Why a note, or a part of it, has no effect; empty when all of it has."""
        if said is None:
            return UNREADABLE
        if said.rejection is None:
            return ""
        if len(objects) < len(said.references):
            return OTHER_STUDY
        images = self._named_images(connection, note.study_id, [uid for _, _, uid in objects])
        strangers = {one.sop_instance_uid for one in images}
        strangers -= {one.sop_instance_uid for one in images if _of_patient(one, note)}
        return OTHER_PATIENT if strangers else ""

    @staticmethod
    def _named_images(connection: sa.Connection, study: str, uids: Sequence[str] | dict[str, None]) -> list[Any]:
        """A study's rows of images that are named."""
        wanted = set(uids)
        rows = connection.execute(sa.select(instances).where(instances.c.study_id == study, instances.c.image))
        return [row for row in rows if row.sop_instance_uid in wanted]

    def _expire(self, connection: sa.Connection, study: str, images: set[str]) -> None:
        """Take every version of these images out of use; with none of its images left the whole study goes.

        Superseded versions stay what they are: they say whose images the study's were before.
        """
        of_study = instances.c.study_id == study
        kept = instances.c.standing.not_in([Standing.SUPERSEDED, Standing.LOST])
        rows = connection.execute(sa.select(instances).where(of_study, kept)).all()
        gone = [row.path for row in rows if row.sop_instance_uid in images]
        left = [row for row in rows if row.image and row.standing != Standing.EXPIRED and row.path not in gone]
        if images and not left:
            gone = [row.path for row in rows]
        for path in gone:
            connection.execute(instances.update().where(instances.c.path == path).values(standing=Standing.EXPIRED))

    @staticmethod
    def _gone(connection: sa.Connection, note: Any) -> list[str]:
        """Paths of what expired in a note's study, and of the superseded versions of the same images."""
        of_study = instances.c.study_id == note.study_id
        expired = sa.select(instances.c.sop_instance_uid).where(of_study, instances.c.standing == Standing.EXPIRED)
        old = sa.and_(instances.c.standing == Standing.SUPERSEDED, instances.c.sop_instance_uid.in_(expired))
        query = sa.select(instances.c.path).where(of_study, (instances.c.standing == Standing.EXPIRED) | old)
        return list(connection.scalars(query))


def is_unexamined() -> sa.ColumnElement[bool]:
    """Whether a row of `instances` is a Key Object Selection that nobody has examined yet."""
    examined = sa.exists().where(rejection_notes.c.path == instances.c.path)
    is_note = sa.and_(instances.c.sop_class_uid == KEY_OBJECT_SELECTION, instances.c.standing.in_(MAY_REJECT))
    return sa.and_(is_note, ~examined)


def _of_patient(image: Any, note: Any) -> bool:
    """A note that names nobody could be anybody's: it rejects nothing."""
    return surely_same_patient(image.patient_key, note.patient_key)
