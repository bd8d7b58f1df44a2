"""Unified Procedure Steps, who is subscribed to them, and the events that wait to be sent (PS3.4 annex CC).

Events are queued in the transaction of what they tell of. Whoever changes a work item or subscribes to it locks its row
first, so that each subscriber gets each change or finds it already there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from dicom_node.base.workitems import (
    DuplicateWorkitem,
    EventType,
    GlobalSubscription,
    QueuedEvent,
    StaleWorkitem,
    Subscription,
    UpsEvent,
    UpsQuery,
    UpsState,
    Workitem,
)
from dicom_node.jobs.database import LONGEST_WAIT_SECONDS, Database, portions
from dicom_node.jobs.tables import studies
from dicom_node.jobs.worklist_tables import global_subscriptions, subscriptions, ups_events, workitems

PAGE = 100  # a work item may have a megabyte
OPEN = (UpsState.SCHEDULED, UpsState.IN_PROGRESS)


class WorkitemBook(Database):
    """The store behind the UPS provider, the node's own work items among them."""

    def workitem(self, sop_instance_uid: str) -> Workitem | None:
        """The work item as it is now."""
        with self._read() as connection:
            query = sa.select(workitems).where(workitems.c.sop_instance_uid == sop_instance_uid)
            row = connection.execute(query).one_or_none()
        return None if row is None else _workitem_of(row)

    def workitems(self, query: UpsQuery) -> Iterator[Workitem]:
        """Work items that satisfy the query, page by page, in the order in which they came."""
        wanted = {"sop_instance_uid": query.sop_instance_uid, "state": query.state, "priority": query.priority}
        matching = sa.select(workitems).where(*(workitems.c[name] == value for name, value in wanted.items() if value))
        last = 0
        while True:
            with self._read() as connection:
                page = connection.execute(
                    matching.where(workitems.c.id > last).order_by(workitems.c.id).limit(PAGE)
                ).all()
            yield from map(_workitem_of, page)
            if len(page) < PAGE:
                return
            last = page[-1].id

    def create_workitem(
        self, workitem: Workitem, subscribed: Sequence[Subscription] = (), events: Sequence[UpsEvent] = ()
    ) -> None:
        """Keep a new work item. Raises DuplicateWorkitem."""
        with self._write() as connection:
            never = {"sop_instance_uid": workitem.sop_instance_uid, "created_by": workitem.created_by}
            insert = self._insert(workitems).values(**never, **_changing(workitem)).on_conflict_do_nothing()
            if connection.scalar(insert.returning(workitems.c.id)) is None:
                raise DuplicateWorkitem("there is such a work item")
            for subscription in subscribed:
                self._keep_subscription(connection, subscription)
            self._queue_events(connection, events)

    def update_workitem(self, workitem: Workitem, expected_version: int, events: Sequence[UpsEvent] = ()) -> None:
        """Replace the work item if it still has the version. Raises StaleWorkitem."""
        values = _changing(workitem)
        if workitem.state is UpsState.IN_PROGRESS:
            values["started_at"] = sa.func.coalesce(workitems.c.started_at, time.time())
        same = sa.and_(
            workitems.c.sop_instance_uid == workitem.sop_instance_uid, workitems.c.version == expected_version
        )
        with self._write() as connection:
            if connection.execute(workitems.update().where(same).values(values)).rowcount == 0:
                raise StaleWorkitem("the work item was changed meanwhile")
            self._queue_events(connection, events)

    def open_workitems(self, created_by: str) -> tuple[int, int]:
        """How many work items that are not final yet this AE had made, and how many all AEs together, it included."""
        mine = sa.func.count(sa.case((workitems.c.created_by == created_by, 1)))
        query = sa.select(mine, sa.func.count()).where(workitems.c.state.in_(OPEN), workitems.c.created_by != "")
        with self._read() as connection:
            row = connection.execute(query).one()
        return int(row[0]), int(row[1])

    def subscribers_of(self, sop_instance_uid: str) -> list[str]:
        """AE titles subscribed to a work item."""
        with self._read() as connection:
            return self._subscribers_of(connection, sop_instance_uid)

    def subscribe(self, subscription: Subscription, events: Sequence[UpsEvent] = ()) -> None:
        """Subscribe an AE to a work item, or replace its subscription's lock; nothing if it was deleted meanwhile.

        An event that waits for its receiver already, as the last of the work item, is not queued a second time.
        """
        mine = workitems.c.sop_instance_uid == subscription.sop_instance_uid
        with self._write() as connection:
            # An update under way has looked for its subscribers: it is waited for, and the caller can then see it.
            if connection.execute(sa.select(workitems.c.id).where(mine).with_for_update()).first() is None:
                return
            self._keep_subscription(connection, subscription)
            self._queue_events(connection, [event for event in events if not self._waits(connection, event)])

    def unsubscribe(self, sop_instance_uid: str, ae_title: str) -> None:
        """Remove an AE's subscription to a work item, if it has one."""
        one = sa.and_(subscriptions.c.sop_instance_uid == sop_instance_uid, subscriptions.c.ae_title == ae_title)
        with self._write() as connection:
            connection.execute(subscriptions.delete().where(one))

    def global_subscriptions(self) -> list[GlobalSubscription]:
        """All global subscriptions; an AE has one at most."""
        with self._read() as connection:
            rows = connection.execute(sa.select(global_subscriptions).order_by(global_subscriptions.c.ae_title)).all()
        return [GlobalSubscription(row.ae_title, row.deletion_lock, row.filter) for row in rows]

    def subscribe_globally(self, subscription: GlobalSubscription) -> None:
        """Set or replace an AE's global subscription."""
        values = {"deletion_lock": subscription.deletion_lock, "filter": subscription.filter}
        row = self._insert(global_subscriptions).values(ae_title=subscription.ae_title, **values)
        with self._write() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=["ae_title"], set_=values))

    def unsubscribe_globally(self, ae_title: str) -> None:
        """Remove an AE's global subscription and all its subscriptions to work items."""
        with self._write() as connection:
            for table in (global_subscriptions, subscriptions):
                connection.execute(table.delete().where(table.c.ae_title == ae_title))

    def suspend_subscription(self, ae_title: str) -> None:
        """Remove an AE's global subscription alone."""
        with self._write() as connection:
            connection.execute(global_subscriptions.delete().where(global_subscriptions.c.ae_title == ae_title))

    def subscribers(self) -> list[str]:
        """Every AE with any subscription."""
        query = sa.union(sa.select(global_subscriptions.c.ae_title), sa.select(subscriptions.c.ae_title))
        with self._read() as connection:
            return sorted(connection.scalars(query))

    def queue_events(self, events: Sequence[UpsEvent]) -> None:
        """Queue events that tell of no work item's change."""
        with self._write() as connection:
            self._queue_events(connection, events)

    def claim_event(self, receiver: str, owner: str, lease_until: float, at: float) -> QueuedEvent | None:
        """Take the receiver's first event in the queue; None when it is not due or somebody else is sending it.

        None overtakes another. A claim whose lease is over may be taken by anybody.
        """
        first = sa.select(ups_events).where(ups_events.c.receiver == receiver).order_by(ups_events.c.id).limit(1)
        with self._read() as connection:
            if not _is_due(connection.execute(first).one_or_none(), at):
                return None
        with self._write() as connection:
            row = connection.execute(first.with_for_update()).one_or_none()
            if row is None or not _is_due(row, at):
                return None
            taken = ups_events.update().where(ups_events.c.id == row.id)
            connection.execute(taken.values(owner=owner, lease_until=lease_until))
        event = UpsEvent(row.sop_instance_uid, EventType(row.type), row.information, row.receiver)
        return QueuedEvent(row.id, event, row.attempts, row.created_at, owner)

    def remove_event(self, event: QueuedEvent) -> None:
        """It was sent, or never will be. Nothing if somebody else took the claim over: they send it again."""
        with self._write() as connection:
            connection.execute(ups_events.delete().where(_claimed(event)))

    def postpone_event(self, event: QueuedEvent, until: float) -> None:
        """It was tried in vain; everything else for this receiver waits with it."""
        values = {"attempts": event.attempts + 1, "next_attempt_at": until, "owner": None, "lease_until": None}
        with self._write() as connection:
            connection.execute(ups_events.update().where(_claimed(event)).values(values))

    def return_events(self, owner_prefix: str) -> None:
        """Make what earlier senders of this kind held when they died due again at once."""
        held = ups_events.c.owner.startswith(owner_prefix, autoescape=True)
        with self._write() as connection:
            connection.execute(ups_events.update().where(held).values(owner=None, lease_until=None))

    def drop_events(self, known: Collection[str], before: float, most: int) -> dict[str, int]:
        """Drop events that were queued before that time, are for nobody of these AE titles, or have more than `most`
        behind them for the same receiver: how many of whom.
        """
        useless = (ups_events.c.created_at < before) | ups_events.c.receiver.not_in(known)
        gone: Counter[str] = Counter()
        with self._write() as connection:
            gone.update(connection.scalars(ups_events.delete().where(useless).returning(ups_events.c.receiver)))
            for receiver in known:
                mine = ups_events.c.receiver == receiver
                last = sa.select(ups_events.c.id).where(mine).order_by(ups_events.c.id.desc()).offset(most).limit(1)
                too_many = ups_events.delete().where(mine, ups_events.c.id <= last.scalar_subquery())
                gone[receiver] += connection.execute(too_many).rowcount
        return {receiver: count for receiver, count in sorted(gone.items()) if count}

    def own_workitems(self, listed: Iterable[str]) -> list[Workitem]:
        """The node's own that nobody claimed, and in any state those of the listed studies (Study Instance UIDs)."""
        study = workitems.c.study_instance_uid
        waiting = (workitems.c.state == UpsState.SCHEDULED) & study.is_not(None)
        which = [waiting, *(study.in_(some) for some in portions(listed))]
        with self._read() as connection:
            rows = [row for one in which for row in connection.execute(sa.select(workitems).where(one))]
        return [_workitem_of(row) for row in {row.id: row for row in rows}.values()]

    def readings_begun(self) -> list[tuple[str, float]]:
        """Studies whose work item a performer claimed, and when, as long as the study's record does not say so."""
        claimed = sa.select(workitems.c.study_instance_uid, workitems.c.started_at).join(
            studies, studies.c.study_instance_uid == workitems.c.study_instance_uid
        )
        with self._read() as connection:
            rows = connection.execute(
                claimed.where(workitems.c.started_at.is_not(None), studies.c.reading_at.is_(None))
            )
            return [(row.study_instance_uid, row.started_at) for row in rows]

    @staticmethod
    def _subscribers_of(connection: sa.Connection, sop_instance_uid: str) -> list[str]:
        query = sa.select(subscriptions.c.ae_title).where(subscriptions.c.sop_instance_uid == sop_instance_uid)
        return list(connection.scalars(query.order_by(subscriptions.c.ae_title)))

    def _keep_subscription(self, connection: sa.Connection, subscription: Subscription) -> None:
        row = self._insert(subscriptions).values(
            sop_instance_uid=subscription.sop_instance_uid,
            ae_title=subscription.ae_title,
            deletion_lock=subscription.deletion_lock,
        )
        connection.execute(
            row.on_conflict_do_update(
                index_elements=["sop_instance_uid", "ae_title"], set_={"deletion_lock": subscription.deletion_lock}
            )
        )

    @staticmethod
    def _waits(connection: sa.Connection, event: UpsEvent) -> bool:
        """Whether the last that is queued of a work item for the event's receiver says the same."""
        same = (ups_events.c.sop_instance_uid == event.sop_instance_uid, ups_events.c.receiver == event.receiver)
        query = sa.select(ups_events).where(*same).order_by(ups_events.c.id.desc()).limit(1)
        last = connection.execute(query).one_or_none()
        return last is not None and (last.type, last.information) == (int(event.type), event.information)

    def _queue_events(self, connection: sa.Connection, events: Sequence[UpsEvent]) -> None:
        now = time.time()
        for event in events:
            receivers = [event.receiver] if event.receiver else self._subscribers_of(connection, event.sop_instance_uid)
            for receiver in receivers:
                connection.execute(
                    ups_events.insert().values(
                        receiver=receiver,
                        sop_instance_uid=event.sop_instance_uid,
                        type=int(event.type),
                        information=event.information,
                        next_attempt_at=now,
                        attempts=0,
                        created_at=now,
                    )
                )


def _workitem_of(row: Any) -> Workitem:
    return Workitem(
        sop_instance_uid=row.sop_instance_uid,
        state=UpsState(row.state),
        priority=row.priority,
        encoded=row.encoded,
        transaction_uid=row.transaction_uid,
        version=row.version,
        study_instance_uid=row.study_instance_uid,
        written=row.written,
        created_by=row.created_by,
    )


def _is_due(event: Any, at: float) -> bool:
    """Whether an event may be sent now: also when its time lies so far ahead that the clock was set back."""
    times = [] if event is None else [event.next_attempt_at, event.lease_until or 0.0]
    return bool(times) and all(time <= at or time > at + LONGEST_WAIT_SECONDS for time in times)


def _claimed(event: QueuedEvent) -> sa.ColumnElement[bool]:
    return sa.and_(ups_events.c.id == event.id, ups_events.c.owner == event.owner)


def _changing(workitem: Workitem) -> dict[str, Any]:
    return {
        "state": workitem.state,
        "priority": workitem.priority,
        "encoded": workitem.encoded,
        "transaction_uid": workitem.transaction_uid,
        "version": workitem.version,
        "study_instance_uid": workitem.study_instance_uid,
        "written": workitem.written,
        "changed_at": time.time(),
    }
