"""The outbox's rows: what is to be sent where, in order, until it is delivered or set aside for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from dicom_node.base.errors import LostClaim
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.orders import Delivery, Outcome
from dicom_node.base.types import CLINICAL, DeliveryState, Level, StudyState
from dicom_node.jobs.database import LONGEST_WAIT_SECONDS, is_over
from dicom_node.jobs.flags import WITHDRAWAL, FlagBook, change_of_row
from dicom_node.jobs.tables import commitments, deliveries, pauses, results, studies
from dicom_node.jobs.transitions import TWO_PATIENTS, lock_study, move
from dicom_node.jobs.withdrawals import REJECT, STOPPED, of_withdrawn
from dicom_node.jobs.worklist_tables import changes

EVERYWHERE = "*"
EXPLAINING = ("sc", "kos", "seg")  # kinds that follow a report
SIMPLER_FORM = "sent in a simpler form"
TAKEN = Outcome()


def _may_leave(which: Any, clinical_only: bool) -> sa.ColumnElement[bool]:
    """Whether a delivery of this table or alias is of a clinical model, or the site sends others' results too.

    A rejection note is no result: it takes back what the site let go before.
    """
    if not clinical_only:
        return sa.true()
    is_held = sa.and_(results.c.id == which.c.result_id, results.c.training_state != CLINICAL, which.c.kind != REJECT)
    of_result = sa.exists().where(is_held)
    return ~of_result & ~sa.exists().where(changes.c.id == which.c.change_id, changes.c.nonclinical)


class DeliveryBook(FlagBook):
    """Deliveries and pauses."""

    def claim_delivery(
        self,
        owner: str,
        destination: str,
        lease_until: float,
        at: float,
        *,
        clinical_only: bool = True,
        longest_wait: float = LONGEST_WAIT_SECONDS,
        longest_answer: float = LONGEST_WAIT_SECONDS,
    ) -> Delivery | None:
        """Take a destination's next due delivery; None when nothing is due. A study's objects go out in order.

        What the destination stored already, once, holds up nothing: neither until it is committed nor when it must be
        stored again; and what can be sent goes before what can be asked. clinical_only: what a model that is not
        clinical made waits. longest_wait: seconds between two attempts to send at most, longest_answer: between two
        questions for commitment; what waits longer waits for a clock that was set back.
        """
        earlier = deliveries.alias("earlier")
        may_leave = _may_leave(deliveries, clinical_only)
        waits_for_earlier = sa.exists().where(
            _may_leave(earlier, clinical_only),
            earlier.c.study_id == deliveries.c.study_id,
            earlier.c.destination == deliveries.c.destination,
            earlier.c.id < deliveries.c.id,
            earlier.c.state.in_([DeliveryState.PENDING, DeliveryState.SENDING]),
            earlier.c.stores == 0,
            deliveries.c.stores == 0,
            # What explains a result holds up nothing but more of the same result's.
            earlier.c.kind.not_in(EXPLAINING)
            | (deliveries.c.kind.in_(EXPLAINING) & (deliveries.c.result_id == earlier.c.result_id)),
        )
        paused = sa.exists().where(pauses.c.destination.in_([destination, EVERYWHERE]))
        # Whatever was made of images of two patients stays here, but for what takes it back.
        two_patients = sa.and_(studies.c.state == StudyState.DEAD, studies.c.reason == TWO_PATIENTS)
        is_undo = sa.exists().where(changes.c.id == deliveries.c.change_id, changes.c.undoes.is_not(None))
        takes_back = (deliveries.c.kind == REJECT) | is_undo
        of_two_patients = sa.exists().where(studies.c.id == deliveries.c.study_id, two_patients) & ~takes_back
        due = sa.or_(
            sa.and_(
                deliveries.c.state == DeliveryState.PENDING, is_over(deliveries.c.next_attempt_at, at, longest_wait)
            ),
            sa.and_(deliveries.c.state == DeliveryState.SENDING, is_over(deliveries.c.lease_until, at)),
            sa.and_(
                deliveries.c.state == DeliveryState.COMMITTING,
                is_over(deliveries.c.next_attempt_at, at, longest_answer),
                deliveries.c.owner.is_(None) | is_over(deliveries.c.lease_until, at),
            ),
        )
        query = (
            sa.select(deliveries)
            .where(deliveries.c.destination == destination, due, may_leave)
            .where(~waits_for_earlier, ~paused, ~of_two_patients)
            .order_by(
                deliveries.c.state == DeliveryState.COMMITTING,
                deliveries.c.kind.in_(EXPLAINING),
                deliveries.c.next_attempt_at,
                deliveries.c.id,
            )
            .limit(1)
            .with_for_update(skip_locked=True, key_share=True)
        )
        with self._write() as connection:
            while (row := connection.execute(query).one_or_none()) is not None:
                this = deliveries.update().where(deliveries.c.id == row.id)
                reason = self._still_due(connection, row) if row.change_id is not None else ""
                reason = STOPPED if of_withdrawn(connection, row) else reason
                if not reason:
                    taken: dict[str, object] = {"owner": owner, "lease_until": lease_until}
                    if row.state == DeliveryState.COMMITTING:  # asking is no attempt to send
                        taken |= {"questions": row.questions + 1}
                    else:
                        taken |= {"state": DeliveryState.SENDING, "attempts": row.attempts + 1}
                    return self._delivery(
                        connection, connection.execute(this.values(taken).returning(deliveries)).one()
                    )
                connection.execute(this.values(state=DeliveryState.WITHDRAWN, last_error=reason))
        return None

    def _delivery(self, connection: sa.Connection, row: Any) -> Delivery:
        """What the claimed row's owner is to do."""
        change, told = None, None
        if row.change_id is not None:
            said = connection.execute(sa.select(changes).where(changes.c.id == row.change_id)).one()
            study = connection.execute(sa.select(studies).where(studies.c.id == row.study_id)).one()
            change = change_of_row(said, study.study_instance_uid)
            if row.level is not None:
                change = replace(change, level=Level(row.level))
            for_withdrawal = said.source == WITHDRAWAL
            order = (self._as_told(connection, said) if for_withdrawal else self._match(connection, study)).order
            if change.order is None:
                change = replace(change, order=order)  # it may have come since
            elif order is not None:
                # Corrections of the patient since count; the order's own numbers are what they were.
                change = replace(change, order=replace(change.order, patient=order.patient))
            if said.undoes is not None:
                told = Level(connection.scalars(sa.select(changes.c.level).where(changes.c.id == said.undoes)).one())
        return Delivery(
            id=row.id,
            study_id=row.study_id,
            destination=row.destination,
            kind=row.kind,
            attempts=row.attempts,
            owner=row.owner,
            path=row.path,
            change=change,
            told=told,
            stored=row.state == DeliveryState.COMMITTING,
            questions=row.questions if row.state == DeliveryState.COMMITTING else 0,
            unanswered=self._unanswered(connection, row) if row.state == DeliveryState.COMMITTING else 0,
            failures=row.failed_commitments,
        )

    @staticmethod
    def _unanswered(connection: sa.Connection, delivery: Any) -> int:
        """How many requests for commitment the destination took since it stored the object and has not answered."""
        silent = (commitments.c.taken, commitments.c.answered_at.is_(None), commitments.c.store == delivery.stores)
        query = sa.select(sa.func.count()).where(commitments.c.delivery_id == delivery.id, *silent)
        return connection.scalar(query) or 0

    def delivered(self, delivery: Delivery, at: float, outcome: Outcome = TAKEN) -> bool:
        """Note success; True when this was the last object and the study is delivered now."""
        with self._write() as connection:
            # An order, a correction or a rejection that comes now finds this ended, or is found.
            lock_study(connection, delivery.study_id)
            if not outcome.stands and self._has_order_by_now(connection, delivery):
                self._end(connection, delivery, DeliveryState.PENDING, outcome.words, next_attempt_at=at)
                return False
            state = DeliveryState.DELIVERED if outcome.stands else DeliveryState.WITHDRAWN
            words = outcome.words or self._form(connection, delivery)
            self._end(connection, delivery, state, words or None, delivered_at=at)
            if delivery.change is not None:
                self._acknowledge(connection, delivery, outcome, at)
            passed(FaultPoint.DELIVERY_WRITTEN)
            if delivery.change is not None or delivery.kind == REJECT:
                return False
            return self._close_study(connection, delivery.study_id, at)

    def _has_order_by_now(self, connection: sa.Connection, delivery: Delivery) -> bool:
        """Whether a change was told without an order that has come since: with it the peer can be told more."""
        if delivery.change is None or delivery.change.order is not None:
            return False
        study = connection.execute(sa.select(studies).where(studies.c.id == delivery.study_id)).one()
        return self._match(connection, study).order is not None

    @staticmethod
    def _acknowledge(connection: sa.Connection, delivery: Delivery, outcome: Outcome, at: float) -> None:
        """The first acknowledgement of a change ends its clock; what the peer had before is kept for an undo."""
        row = sa.select(deliveries.c.change_id).where(deliveries.c.id == delivery.id).scalar_subquery()
        this = changes.c.id == row
        if outcome.stands:
            first = sa.and_(this, changes.c.acknowledged_at.is_(None))
            connection.execute(changes.update().where(first).values(acknowledged_at=at))
        if outcome.previous is not None:
            mine = deliveries.update().where(deliveries.c.id == delivery.id)
            connection.execute(mine.values(previous=outcome.previous))
        if outcome.reading:
            begun = sa.and_(studies.c.id == delivery.study_id, studies.c.reading_at.is_(None))
            connection.execute(studies.update().where(begun).values(reading_at=at))

    def postpone(self, delivery: Delivery, error: str, next_attempt_at: float) -> None:
        """Note a failure that may pass: the same is done again then."""
        state = DeliveryState.COMMITTING if delivery.stored else DeliveryState.PENDING
        with self._write() as connection:
            self._end(connection, delivery, state, error, next_attempt_at=next_attempt_at)

    def set_aside(self, delivery: Delivery, error: str) -> None:
        """Note a refusal that only a person can change."""
        with self._write() as connection:
            self._end(connection, delivery, DeliveryState.SET_ASIDE, error)

    @staticmethod
    def _form(connection: sa.Connection, delivery: Delivery) -> str:
        """What stays worth knowing of a delivered object: that it went in a simpler form."""
        words = connection.scalar(sa.select(deliveries.c.last_error).where(deliveries.c.id == delivery.id)) or ""
        return words if words.startswith(SIMPLER_FORM) else ""

    def fall_back(self, delivery: Delivery, paths: Sequence[str], reason: str, at: float) -> None:
        """Send these objects instead of the one that the destination takes in no such class."""
        first, *more = paths
        words = f"{SIMPLER_FORM}: {reason}"
        with self._write() as connection:
            self._end(connection, delivery, DeliveryState.PENDING, words, next_attempt_at=at)
            row = connection.execute(
                deliveries.update()
                .where(deliveries.c.id == delivery.id)
                .values(path=first, attempts=0)
                .returning(deliveries)
            ).one()
            for path in more:
                connection.execute(
                    deliveries.insert().values(
                        result_id=row.result_id,
                        study_id=row.study_id,
                        destination=row.destination,
                        kind=row.kind,
                        path=path,
                        state=DeliveryState.PENDING,
                        next_attempt_at=at,
                        last_error=words,
                    )
                )

    def return_deliveries(self, owner_prefix: str) -> None:
        """Make what earlier senders of this kind held when they died due again at once."""
        with self._write() as connection:
            connection.execute(
                deliveries.update()
                .where(
                    deliveries.c.state == DeliveryState.SENDING,
                    deliveries.c.owner.startswith(owner_prefix, autoescape=True),
                )
                .values(state=DeliveryState.PENDING, owner=None, lease_until=None)
            )
            connection.execute(
                deliveries.update()
                .where(
                    deliveries.c.state == DeliveryState.COMMITTING,
                    deliveries.c.owner.startswith(owner_prefix, autoescape=True),
                )
                .values(owner=None, lease_until=None)
            )

    def set_aside_unknown(self, destinations: Sequence[str], error: str) -> int:
        """Set aside what waits for a destination that is no longer configured; returns how many."""
        with self._write() as connection:
            changed = connection.execute(
                deliveries.update()
                .where(
                    deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.COMMITTING]),
                    deliveries.c.destination.not_in(destinations),
                )
                .values(state=DeliveryState.SET_ASIDE, last_error=error)
            )
            return changed.rowcount

    def note_held(self, reason: str) -> None:
        """Say beside every object of a model that is not clinical why it waits."""
        waits = sa.and_(deliveries.c.state == DeliveryState.PENDING, deliveries.c.change_id.is_(None))
        with self._write() as connection:
            held = ~_may_leave(deliveries, clinical_only=True)
            connection.execute(deliveries.update().where(waits, held).values(last_error=reason))

    def pause(self, destination: str | None, at: float) -> None:
        """Hold results for one destination, or for all when None. Intake goes on."""
        with self._write() as connection:
            connection.execute(
                self._insert(pauses).values(destination=destination or EVERYWHERE, since=at).on_conflict_do_nothing()
            )

    def resume(self, destination: str | None) -> None:
        """Let results go again: to one destination, or everywhere when None."""
        with self._write() as connection:
            whose = pauses.c.destination == destination if destination else sa.true()
            connection.execute(pauses.delete().where(whose))

    def paused(self) -> list[str]:
        """Destinations on hold; `*` means all."""
        with self._read() as connection:
            return list(connection.scalars(sa.select(pauses.c.destination).order_by(pauses.c.destination)))

    def _end(
        self,
        connection: sa.Connection,
        delivery: Delivery,
        state: DeliveryState,
        error: str | None,
        **values: Any,
    ) -> None:
        changed = connection.execute(
            deliveries.update()
            .where(
                deliveries.c.id == delivery.id,
                deliveries.c.owner == delivery.owner,
                deliveries.c.state == (DeliveryState.COMMITTING if delivery.stored else DeliveryState.SENDING),
            )
            .values(state=state, last_error=error, owner=None, lease_until=None, **values)
        )
        if not changed.rowcount:
            raise LostClaim("the delivery was given to another sender in the meantime")

    def _close_study(self, connection: sa.Connection, study: str, at: float) -> bool:
        newest = sa.select(sa.func.max(results.c.id)).where(results.c.study_id == study).scalar_subquery()
        # What explains a report follows it, and may be refused: the study's state is that of its report.
        sent = connection.execute(
            sa.select(deliveries.c.state, deliveries.c.kind).where(deliveries.c.result_id == newest)
        ).all()
        states = [row.state for row in sent if row.kind not in EXPLAINING] or [row.state for row in sent]
        if set(states) != {DeliveryState.DELIVERED}:  # none at all: the newest result is held, or has no route
            return False
        of_newest = studies.c.revision == (
            sa.select(results.c.revision).where(results.c.id == newest).scalar_subquery()
        )
        return move(connection, study, [StudyState.REPORTED], StudyState.DELIVERED, at, guard=of_newest)
