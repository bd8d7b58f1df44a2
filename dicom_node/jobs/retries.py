"""Another try, as a person asked: of the study, or of what is to be sent of its newest result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.base.errors import PermanentError
from dicom_node.base.types import DeliveryState, Standing, StudyState
from dicom_node.jobs.cleaning import CLEANED, lacks_files
from dicom_node.jobs.database import Database
from dicom_node.jobs.explanations import explain_again
from dicom_node.jobs.tables import deliveries, instances, results
from dicom_node.jobs.transitions import TWO_PATIENTS, lock_study, move
from dicom_node.jobs.withdrawals import REJECT
from dicom_node.jobs.worklist_tables import changes
from prima_core.base.patient import merge_patient_keys, same_patient

SENT = (StudyState.REPORTED, StudyState.DELIVERED)
ENDED = (StudyState.DEAD, StudyState.FAILED, StudyState.OUT_OF_SCOPE, StudyState.REPORTED, StudyState.WITHDRAWN)


@dataclass(frozen=True)
class Retried:
    """What happens now: the study runs again, or so many deliveries are due, or its result is to be explained."""

    queued: bool = False
    deliveries: int = 0
    explaining: bool = False


class Retries(Database):
    """What `dicom-node retry` does."""

    def retry(self, study: str, at: float) -> Retried:
        """Send again what waits or was set aside of the newest result and priority; else run the study again.

        What explains a result is sent again after its report was delivered, too, and tried again if it failed.
        A destination is asked again at once about what it has not committed to yet. A study with a result is run as a
        new revision, under the configuration of today: a result that was held or had no route may go somewhere then.
        Nothing is done to a study that waits or runs. Raises PermanentError while the study's images are
        of two patients, or retention has deleted files of them.
        """
        with self._write() as connection:
            row = lock_study(connection, study)
            if row is None:
                return Retried()
            told = self._tell_again(connection, study, at) + self._reject_again(connection, study, at)
            newest = connection.execute(
                sa.select(results.c.id, results.c.revision)
                .where(results.c.study_id == study)
                .order_by(results.c.revision.desc())
                .limit(1)
            ).one_or_none()
            if row.state in SENT and newest is not None and self._has_deliveries(connection, newest.id):
                again = self._send_again(connection, newest.id, at)
                explaining = not lacks_files(connection, study) and explain_again(connection, newest.id)
                return Retried(deliveries=told + again, explaining=explaining)
            if told or StudyState(row.state) not in ENDED:
                return Retried(deliveries=told)
            if not self._one_patient(connection, study):
                raise PermanentError(TWO_PATIENTS)
            if lacks_files(connection, study):
                raise PermanentError(CLEANED)
            self._run_again(connection, row, newest is not None and newest.revision == row.revision, at)
        return Retried(queued=True)

    @staticmethod
    def _tell_again(connection: sa.Connection, study: str, at: float) -> int:
        """Make the last change of priority due again where it was set aside; an earlier one is out of date."""
        last = sa.select(sa.func.max(changes.c.id)).where(changes.c.study_id == study).scalar_subquery()
        aside = sa.and_(deliveries.c.change_id == last, deliveries.c.state == DeliveryState.SET_ASIDE)
        return connection.execute(
            deliveries.update().where(aside).values(state=DeliveryState.PENDING, next_attempt_at=at)
        ).rowcount

    @staticmethod
    def _reject_again(connection: sa.Connection, study: str, at: float) -> int:
        """Make the rejection notes due again that were set aside. One that could not be written has none to send."""
        aside = sa.and_(
            deliveries.c.study_id == study,
            deliveries.c.kind == REJECT,
            deliveries.c.path.is_not(None),
            deliveries.c.state == DeliveryState.SET_ASIDE,
        )
        due = {"state": DeliveryState.PENDING, "next_attempt_at": at, "failed_commitments": 0}
        return connection.execute(deliveries.update().where(aside).values(**due)).rowcount

    @staticmethod
    def _has_deliveries(connection: sa.Connection, result: int) -> bool:
        query = sa.select(sa.func.count()).where(deliveries.c.result_id == result)
        return bool(connection.scalar(query))

    @staticmethod
    def _send_again(connection: sa.Connection, result: int, at: float) -> int:
        """Send what waits or was set aside; ask again about what has yet to be committed."""
        of_result = deliveries.update().where(deliveries.c.result_id == result)
        waiting = deliveries.c.state.in_([DeliveryState.SET_ASIDE, DeliveryState.PENDING])
        again = {"state": DeliveryState.PENDING, "next_attempt_at": at, "failed_commitments": 0}
        asking = sa.and_(deliveries.c.state == DeliveryState.COMMITTING, deliveries.c.owner.is_(None))
        return (
            connection.execute(of_result.where(waiting).values(again)).rowcount
            + connection.execute(of_result.where(asking).values(next_attempt_at=at)).rowcount
        )

    @staticmethod
    def _one_patient(connection: sa.Connection, study: str) -> bool:
        evidence = sa.and_(instances.c.study_id == study, instances.c.standing == Standing.CURRENT)
        known = ""
        for key in connection.scalars(sa.select(instances.c.patient_key).where(evidence).distinct()):
            if not same_patient(known, key):
                return False
            known = merge_patient_keys(known, key)
        return True

    @staticmethod
    def _run_again(connection: sa.Connection, study: Any, has_result: bool, at: float) -> None:
        move(
            connection,
            study.id,
            ENDED,
            StudyState.COMPLETE,
            at,
            reason="retried by a person",
            revision=study.revision + 1 if has_result else study.revision,
            attempts=0,
            next_attempt_at=None,
            completed_at=at,
            owner=None,
            lease_until=None,
        )
