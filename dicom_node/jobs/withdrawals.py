"""Results that are taken back: at once here, then in every archive that has them, or may have.

What waits to be sent is stopped and the model's priority undone in one transaction with the cause. Where objects of the
result left the node, `withdrawals_due` says so until a rejection note for them is in the outbox.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dicom_node.base.errors import PermanentError
from dicom_node.base.events import Event, log
from dicom_node.base.orders import PersonsWithdrawal
from dicom_node.base.types import DeliveryState, Rejection, StudyState, Withdrawal
from dicom_node.jobs.flags import FlagBook
from dicom_node.jobs.study_records import record_of
from dicom_node.jobs.tables import deliveries, results, sent_objects
from dicom_node.jobs.transitions import lock_study, move, note_event

REJECT = "reject"  # the kind of a delivery that takes a rejection note
NOTHING_STANDS = "the study has no result that stands"
STOPPED = "the result was withdrawn"
IS_OBJECT = sa.and_(deliveries.c.path.is_not(None), deliveries.c.kind != REJECT)


class WithdrawalBook(FlagBook):
    """Withdrawn results."""

    def withdraw(self, study: str, rejection: Rejection, who: str, at: float) -> StudyState:
        """Take a study's results back, as a person wishes; the study's state then.

        The study is not run again for that, but for a late image or `retry`; a run that is under way goes on. Raises
        PermanentError when no result stands.
        """
        with self._write() as connection:
            row = lock_study(connection, study)
            moved = self._withdraw_for(connection, row, PersonsWithdrawal(rejection, who), at)
            return StudyState.WITHDRAWN if moved else StudyState(row.state)

    def _withdraw_for(self, connection: sa.Connection, study: Any, wish: PersonsWithdrawal, at: float) -> bool:
        """Withdraw the results of a study (its row, locked); whether it ends with that. Raises PermanentError."""
        if not self._withdraw_results(connection, study, wish.rejection, wish.reason, at):
            raise PermanentError(NOTHING_STANDS)
        ended = [StudyState.REPORTED, StudyState.DELIVERED]
        return bool(move(connection, study.id, ended, StudyState.WITHDRAWN, at, reason=wish.reason))

    def withdrawals_due(self) -> list[Withdrawal]:
        """Withdrawn results of which something is still to be done, oldest first."""
        query = sa.select(results).where(results.c.withdrawal_due).order_by(results.c.id)
        with self._read() as connection:
            return [self._withdrawal(connection, row) for row in connection.execute(query).all()]

    def complete_withdrawal(
        self, withdrawal: Withdrawal, notes: Mapping[str, str], failures: Mapping[str, str], at: float
    ) -> bool:
        """Put rejection notes into the outbox and end what could not be ended at once; False while that goes on.

        notes: destination → path of the note. failures: destination → why there can be none. Safe to repeat.
        """
        said: list[tuple[str, str | None, str | None]] = [(name, path, None) for name, path in notes.items()]
        said += [(name, None, reason) for name, reason in failures.items()]
        with self._write() as connection:
            study = lock_study(connection, withdrawal.study_id)
            done = self._rejected_at(connection, withdrawal.result_id)
            for destination, path, failure in said:
                if destination in done:
                    continue
                connection.execute(
                    deliveries.insert().values(
                        result_id=withdrawal.result_id,
                        study_id=withdrawal.study_id,
                        destination=destination,
                        kind=REJECT,
                        path=path,
                        state=DeliveryState.PENDING if failure is None else DeliveryState.SET_ASIDE,
                        last_error=failure,
                        next_attempt_at=at,
                    )
                )
            left = {name for name, _ in withdrawal.objects} - self._rejected_at(connection, withdrawal.result_id)
            undone = self._take_back(connection, record_of(connection, study), [withdrawal.result_id], at)
            over = undone and not left
            this = results.c.id == withdrawal.result_id
            connection.execute(results.update().where(this).values(withdrawal_due=not over))
        return over

    def _withdraw_results(
        self, connection: sa.Connection, study: Any, rejection: Rejection, reason: str, at: float
    ) -> int:
        """Withdraw every result of a study (its row, locked) that stands; how many. Before its identity changes."""
        stands = sa.and_(results.c.study_id == study.id, results.c.withdrawn_at.is_(None))
        rows = connection.execute(sa.select(results.c.id, results.c.revision).where(stands)).all()
        ids = [row.id for row in rows]
        if not ids:
            return 0
        mine = sa.and_(deliveries.c.result_id.in_(ids), IS_OBJECT)
        waits = deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.SET_ASIDE])
        # Refused at the first attempt, an object never got there: a note that named it would be refused as well.
        refused = sa.and_(
            deliveries.c.state == DeliveryState.SET_ASIDE, deliveries.c.attempts == 1, deliveries.c.stores == 0
        )
        connection.execute(deliveries.update().where(mine, refused).values(attempts=0))
        stopped = {"state": DeliveryState.WITHDRAWN, "last_error": STOPPED}
        connection.execute(deliveries.update().where(mine, waits).values(**stopped))
        left = set(connection.scalars(sa.select(deliveries.c.result_id).where(mine, deliveries.c.attempts > 0)))
        undone = self._take_back(connection, record_of(connection, study), ids, at)
        for row in rows:
            due = row.id in left or not undone
            values = {"withdrawn_at": at, "withdrawn_as": rejection, "withdrawn_reason": reason, "withdrawal_due": due}
            connection.execute(results.update().where(results.c.id == row.id).values(**values))
            log(Event.RESULT_WITHDRAWN, "warning", study=study.id, revision=row.revision, reason=reason)
        note_event(
            connection, study, at, f"result of revision {', '.join(str(row.revision) for row in rows)}: {reason}"
        )
        return len(ids)

    def _withdrawal(self, connection: sa.Connection, row: Any) -> Withdrawal:
        gone = sa.and_(deliveries.c.result_id == row.id, IS_OBJECT, deliveries.c.attempts > 0)
        query = sa.select(deliveries.c.destination, deliveries.c.path).where(gone).order_by(deliveries.c.id)
        objects: dict[str, list[str]] = defaultdict(list)
        for destination, path in connection.execute(query):
            objects[destination].append(path)
        for destination in self._rejected_at(connection, row.id):
            objects.pop(destination, None)
        return Withdrawal(
            result_id=row.id,
            study_id=row.study_id,
            rejection=Rejection(row.withdrawn_as),
            reason=row.withdrawn_reason,
            at=row.withdrawn_at,
            objects=tuple((name, tuple(dict.fromkeys(paths))) for name, paths in objects.items()),
            report=(row.path, row.sop_class_uid, row.series_instance_uid, row.sop_instance_uid),
        )

    @staticmethod
    def _rejected_at(connection: sa.Connection, result: int) -> set[str]:
        """The destinations for which the result's rejection note is in the outbox."""
        is_note = sa.and_(deliveries.c.result_id == result, deliveries.c.kind == REJECT)
        return set(connection.scalars(sa.select(deliveries.c.destination).where(is_note)))

    @staticmethod
    def _note_rejected_reports(
        connection: sa.Connection, study: str, objects: Sequence[tuple[str, str]], rejection: Rejection, at: float
    ) -> int:
        """Note that the archive rejected results that stand, or parts of them; how many.

        objects: (Series, SOP Instance UID).
        """
        series, sops = {one[0] for one in objects}, {one[1] for one in objects}
        stands = sa.and_(results.c.study_id == study, results.c.withdrawn_at.is_(None))
        reports = sa.select(results.c.id, results.c.series_instance_uid, results.c.sop_instance_uid).where(stands)
        further = (
            sa.select(results.c.id, sent_objects.c.series_instance_uid, sent_objects.c.sop_instance_uid)
            .join(deliveries, deliveries.c.result_id == results.c.id)
            .join(sent_objects, sent_objects.c.path == deliveries.c.path)
            .where(stands, IS_OBJECT)
        )
        known = [*connection.execute(reports).all(), *connection.execute(further).all()]
        named = {result for result, of_series, uid in known if of_series in series or uid in sops}
        values = {"rejected_at": at, "rejection": rejection}
        connection.execute(results.update().where(results.c.id.in_(named)).values(**values))
        return len(named)


def withdrawn(which: Any) -> sa.ColumnElement[bool]:
    """Whether a row of a table with study_id and revision is of a result that was withdrawn."""
    same = sa.and_(results.c.study_id == which.c.study_id, results.c.revision == which.c.revision)
    return sa.exists().where(same, results.c.withdrawn_at.is_not(None))


def of_withdrawn(connection: sa.Connection, delivery: Any) -> bool:
    """Whether a delivery's row takes an object of a result that was withdrawn since it was queued."""
    if delivery.result_id is None or delivery.kind == REJECT:
        return False
    return connection.scalar(sa.select(results.c.withdrawn_at).where(results.c.id == delivery.result_id)) is not None
