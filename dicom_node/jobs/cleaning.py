"""Which files may go to make room: those of studies with which everything is done, the oldest first.

Rows say first that a study's files are gone, then the files go, then the rows say that this is done: whatever is killed
in between, the next round goes on. Results, their provenance and the rows of the images stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.base.types import Arrival, DeliveryState, Standing, StudyState
from dicom_node.jobs.database import Database, portions
from dicom_node.jobs.explanations import ExplanationState
from dicom_node.jobs.rejections import is_unexamined
from dicom_node.jobs.tables import deliveries, explanations, instances, results, studies
from dicom_node.jobs.transitions import lock_study, note_event

#: A dead study needs a person, and its images with it.
ENDED = (StudyState.DELIVERED, StudyState.OUT_OF_SCOPE, StudyState.WITHDRAWN)
OPEN = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.COMMITTING, DeliveryState.SET_ASIDE)
WITHOUT_FILE = (Standing.LOST, Standing.EXPIRED)
CLEANED = "images of the study were deleted here to make room: have the archive send it again, then retry"


@dataclass(frozen=True)
class SpoolFile:
    """A received object of a study. cleaned_at: since when its file is to be gone; None while it is to stay."""

    path: str
    size: int
    cleaned_at: float | None


@dataclass(frozen=True)
class Cleaned:
    """A study whose rows and files are to be brought into agreement."""

    study_id: str
    files: tuple[SpoolFile, ...]


class CleaningBook(Database):
    """What retention may delete, and has deleted."""

    def begin_cleaning(self, before: float, at: float) -> Cleaned | None:
        """Give up the files of the study that was finished first, before that time; None where there is none.

        Never of a study of which something is to be computed, explained, delivered, committed, compared or withdrawn,
        or waits for a person, nor of one with an object that came later.
        """
        query = sa.select(studies.c.id).where(_may_go(before)).order_by(studies.c.finished_at).limit(1)
        with self._write() as connection:
            while (study := connection.scalar(query)) is not None:
                row = lock_study(connection, study, _may_go(before))  # asked again: it may have changed meanwhile
                if row is None:
                    continue
                count = connection.execute(
                    instances.update()
                    .where(
                        instances.c.study_id == study,
                        instances.c.cleaned_at.is_(None),
                        instances.c.standing.not_in(WITHOUT_FILE),
                    )
                    .values(cleaned_at=at)
                ).rowcount
                this = studies.update().where(studies.c.id == study)
                connection.execute(this.values(cleaned_at=at, cleaning_due=True))
                if count:
                    note_event(connection, row, at, f"{count} files deleted to make room")
                return _cleaned(connection, study)
        return None

    def cleanings_due(self) -> list[Cleaned]:
        """Studies whose rows and files may not agree yet: something was killed, or an object came meanwhile."""
        due = sa.select(studies.c.id).where(studies.c.cleaning_due).order_by(studies.c.id)
        with self._read() as connection:
            return [_cleaned(connection, study) for study in connection.scalars(due).all()]

    def cleaning_done(self, cleaned: Cleaned, missing: Sequence[str], at: float) -> None:
        """Rows and files agree. missing: paths of files that were to stay and are gone all the same: a copy of them
        came while they were deleted. Where the rows changed since they were handed out, it stays due.
        """
        with self._write() as connection:
            lock_study(connection, cleaned.study_id)
            if _cleaned(connection, cleaned.study_id) != cleaned:
                return
            for some in portions(missing):
                connection.execute(instances.update().where(instances.c.path.in_(some)).values(cleaned_at=at))
            this = studies.update().where(studies.c.id == cleaned.study_id)
            connection.execute(this.values(cleaning_due=False))


def lacks_files(connection: sa.Connection, study: str) -> bool:
    """Whether files of images that count of a study are gone."""
    gone = sa.and_(
        instances.c.study_id == study,
        instances.c.image,
        instances.c.standing == Standing.CURRENT,
        instances.c.cleaned_at.is_not(None),
    )
    return connection.execute(sa.select(instances.c.path).where(gone).limit(1)).first() is not None


def has_files_again(connection: sa.Connection, study: str) -> None:
    """An object came for a study that had none any more."""
    connection.execute(studies.update().where(studies.c.id == study).values(cleaned_at=None))


def came_again(connection: sa.Connection, arrival: Arrival) -> None:
    """The very bytes of a cleaned object came once more: they are what they were, and have a file. That they were
    transferred again is the later association's to say.

    Whether they have is looked at once more: the receiver may have found the old file just before it was deleted.
    """
    this = instances.update().where(instances.c.path == arrival.path)
    again = {"received_at": arrival.received_at, "association_id": arrival.association_id}
    connection.execute(this.values(cleaned_at=None, **again))
    connection.execute(studies.update().where(studies.c.id == arrival.study_id).values(cleaning_due=True))


def _may_go(before: float) -> sa.ColumnElement[bool]:
    """Whether nothing needs the files of a row of `studies` any more, and has not since that time."""
    of_study = instances.c.study_id == studies.c.id
    explained = sa.and_(results.c.id == explanations.c.result_id, explanations.c.state == ExplanationState.PENDING)
    needed = [
        sa.exists().where(deliveries.c.study_id == studies.c.id, deliveries.c.state.in_(OPEN)),
        sa.exists().where(results.c.study_id == studies.c.id, results.c.withdrawal_due),
        sa.exists().where(results.c.study_id == studies.c.id, explained),
        sa.exists().where(of_study, (instances.c.standing == Standing.DISPUTED) | is_unexamined()),
        sa.exists().where(of_study, instances.c.cleaned_at.is_(None), instances.c.received_at >= before),
    ]
    # A result that is held says why; one that has no route says nothing and stays `reported` for ever.
    state = sa.func.coalesce(studies.c.state, "")  # never by the index of states, in which finished studies are most
    ended = state.in_(ENDED) | sa.and_(state == StudyState.REPORTED, studies.c.reason.is_(None))
    return sa.and_(studies.c.cleaned_at.is_(None), studies.c.finished_at < before, ended, *(~one for one in needed))


def _cleaned(connection: sa.Connection, study: str) -> Cleaned:
    query = sa.select(instances.c.path, instances.c.size, instances.c.cleaned_at)
    query = query.where(instances.c.study_id == study, instances.c.standing.not_in(WITHOUT_FILE))
    return Cleaned(study, tuple(SpoolFile(*row) for row in connection.execute(query.order_by(instances.c.path))))
