"""Storage commitment in the registry: what was asked of whom, and what the answers make of the deliveries.

An object that its destination stored is `committing` until the destination says that it will keep it. What it is asked
is written down before it goes out, so that its answer finds the delivery whatever died meanwhile; an answer is applied
and committed to disk before it is acknowledged.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from dicom_node.base.commitments import Commitment, Remedy, Settled
from dicom_node.base.errors import LostClaim
from dicom_node.base.orders import Delivery
from dicom_node.base.types import DeliveryState
from dicom_node.jobs.deliveries import DeliveryBook
from dicom_node.jobs.tables import commitments, deliveries

#: A success says that the object is safe, whatever was going to be done about it.
OPEN = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.COMMITTING, DeliveryState.SET_ASIDE)


class CommitmentBook(DeliveryBook):
    """From a stored object to a committed one."""

    def stored(self, delivery: Delivery, at: float) -> None:
        """The destination has the object; its commitment is to be asked at once. Raises LostClaim."""
        with self._write() as connection:
            counted = {"stores": deliveries.c.stores + 1, "questions": 0}
            self._end(connection, delivery, DeliveryState.COMMITTING, None, next_attempt_at=at, **counted)

    def ask(self, delivery: Delivery, transaction_uid: str, sop_instance_uid: str, at: float) -> None:
        """Write a request for commitment down, before it is sent. Raises LostClaim: then it must not be sent."""
        mine = (deliveries.c.owner == delivery.owner, deliveries.c.state == DeliveryState.COMMITTING)
        with self._write() as connection:
            row = connection.execute(
                sa.select(deliveries.c.stores).where(deliveries.c.id == delivery.id, *mine)
            ).one_or_none()
            if row is None:
                raise LostClaim("the delivery was answered or given to another sender in the meantime")
            connection.execute(
                commitments.insert().values(
                    transaction_uid=transaction_uid,
                    delivery_id=delivery.id,
                    sop_instance_uid=sop_instance_uid,
                    store=row.stores,
                    asked_at=at,
                )
            )

    def taken(self, transaction_uid: str) -> None:
        """The destination accepted the request: from now on its answer is owed."""
        with self._write() as connection:
            this = commitments.update().where(commitments.c.transaction_uid == transaction_uid)
            connection.execute(this.values(taken=True))

    def asked(self, delivery: Delivery, ask_again_at: float) -> None:
        """Wait for the answer until then; nothing is changed where it came already."""
        mine = (deliveries.c.owner == delivery.owner, deliveries.c.state == DeliveryState.COMMITTING)
        with self._write() as connection:
            connection.execute(
                deliveries.update()
                .where(deliveries.c.id == delivery.id, *mine)
                .values(next_attempt_at=ask_again_at, owner=None, lease_until=None, last_error=None)
            )

    def uncommitted(self, delivery: Delivery, remedy: Remedy, reason: str, due_at: float) -> None:
        """The owner of a delivery gave up waiting for the answers. Raises LostClaim."""
        with self._write() as connection:
            failed = {"failed_commitments": deliveries.c.failed_commitments + 1}
            self._end(connection, delivery, DeliveryState(remedy), reason, next_attempt_at=due_at, **failed)

    def commitment(self, transaction_uid: str) -> Commitment | None:
        """What was asked in this transaction; None when nothing was."""
        with self._read() as connection:
            row = connection.execute(_asked_in(transaction_uid)).one_or_none()
        if row is None:
            return None
        return Commitment(
            transaction_uid=row.transaction_uid,
            study_id=row.study_id,
            destination=row.destination,
            sop_instance_uid=row.sop_instance_uid,
            answered=row.answered_at is not None,
            failures=row.failed_commitments,
        )

    def committed(self, transaction_uid: str, at: float) -> Settled:
        """The destination keeps the object. Counts for an earlier request too, unless a later one has failed."""
        with self._write() as connection:
            asked = self._answer(connection, transaction_uid, at)
            if asked is None:
                return Settled.NOTHING
            later = sa.select(commitments.c.id).where(
                commitments.c.delivery_id == asked.delivery_id,
                commitments.c.id > asked.id,
                commitments.c.failure.is_not(None),
            )
            done = {"state": DeliveryState.DELIVERED, "last_error": None, "delivered_at": at}
            changed = connection.execute(
                deliveries.update()
                .where(deliveries.c.id == asked.delivery_id, deliveries.c.state.in_(OPEN), ~later.exists())
                .values(owner=None, lease_until=None, **done)
            )
            if not changed.rowcount:
                return Settled.NOTHING
            return Settled.STUDY if self._close_study(connection, asked.study_id, at) else Settled.DELIVERY

    def refused(self, transaction_uid: str, remedy: Remedy, reason: str, due_at: float, at: float) -> Settled:
        """The destination does not keep the object. Counts only for the last request of what it stored last."""
        with self._write() as connection:
            asked = self._answer(connection, transaction_uid, at, reason)
            if asked is None:
                return Settled.NOTHING
            later = sa.select(commitments.c.id).where(
                commitments.c.delivery_id == asked.delivery_id, commitments.c.id > asked.id
            )
            counts = int(remedy is not Remedy.ASK_AGAIN)
            changed = connection.execute(
                deliveries.update()
                .where(
                    deliveries.c.id == asked.delivery_id,
                    deliveries.c.state == DeliveryState.COMMITTING,
                    deliveries.c.stores == asked.store,
                    ~later.exists(),
                )
                .values(
                    state=DeliveryState(remedy),
                    last_error=reason,
                    next_attempt_at=due_at,
                    failed_commitments=deliveries.c.failed_commitments + counts,
                    owner=None,
                    lease_until=None,
                )
            )
            return Settled.DELIVERY if changed.rowcount else Settled.NOTHING

    @staticmethod
    def _answer(connection: sa.Connection, transaction_uid: str, at: float, failure: str | None = None) -> Any:
        """Note the first answer to a request: what was asked, None when it was answered before."""
        this = sa.and_(commitments.c.transaction_uid == transaction_uid, commitments.c.answered_at.is_(None))
        noted = connection.execute(commitments.update().where(this).values(answered_at=at, failure=failure))
        return connection.execute(_asked_in(transaction_uid)).one() if noted.rowcount else None


def _asked_in(transaction_uid: str) -> sa.Select[Any]:
    """The request and what it was about."""
    return (
        sa.select(
            commitments,
            deliveries.c.study_id,
            deliveries.c.destination,
            deliveries.c.failed_commitments,
        )
        .join(deliveries, deliveries.c.id == commitments.c.delivery_id)
        .where(commitments.c.transaction_uid == transaction_uid)
    )
