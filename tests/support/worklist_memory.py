"""In-memory twins of the worklist's stores: the same promises as the real ones, for one process.

source = Orders([(order("1"), Level.URGENT)])          # a ModalityWorklist's OrderSource
store = MemoryUpsStore()                               # a UpsProvider's UpsStore; store.queued is the outbox
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dicom_node.base.orders import Order, Patient, RankedOrder
from dicom_node.base.types import Level
from dicom_node.base.workitems import (
    DuplicateWorkitem,
    GlobalSubscription,
    StaleWorkitem,
    Subscription,
    UpsEvent,
    UpsQuery,
    Workitem,
    WorklistQuery,
)


def order(number: str, **changes: object) -> Order:
    """A made-up order; `changes` are fields of it or of its patient."""
    patient = {key: changes.pop(key) for key in ("patient_id", "name", "birth_date", "sex", "issuer") if key in changes}
    facts: dict[str, object] = {
        "accession_number": f"A{number}",
        "study_instance_uid": f"1.2.3.{number}",
        "requested_procedure_id": f"P{number}",
        "scheduled_step_id": f"S{number}",
        "code_value": "MRHEAD",
        "code_scheme": "99TEST",
        "code_meaning": "MR head",
        "modality": "MR",
        "station_ae": "MR1",
        "scheduled_at": "20260105083000",
    }
    person = {"patient_id": f"ID{number}", "name": f"Doe{number}^Jane", "birth_date": "19700101", "sex": "F"}
    return Order(Patient(**(person | patient)), **(facts | changes))  # type: ignore[arg-type]


class Orders:
    """An order source; counts how many orders were taken from it. honours_query: filters by itself, as SQL would."""

    def __init__(self, orders: Iterable[tuple[Order, Level | None]], honours_query: bool = True) -> None:
        self._orders = orders
        self._honours_query = honours_query
        self.taken = 0
        self.queries: list[WorklistQuery] = []

    def orders(self, query: WorklistQuery) -> Iterator[RankedOrder]:
        self.queries.append(query)
        for one, level in self._orders:
            if not self._honours_query or _satisfies(one, query):
                self.taken += 1
                yield RankedOrder(one, level)


def _satisfies(one: Order, query: WorklistQuery) -> bool:
    exact = {
        "accession_number": one.accession_number,
        "patient_id": one.patient.patient_id,
        "study_instance_uid": one.study_instance_uid,
        "requested_procedure_id": one.requested_procedure_id,
        "modality": one.modality,
        "station_ae": one.station_ae,
    }
    day = one.scheduled_at[:8]
    in_range = (not query.scheduled_from or query.scheduled_from <= day) and (
        not query.scheduled_to or (bool(day) and day <= query.scheduled_to)
    )
    return in_range and all(getattr(query, key) in ("", value) for key, value in exact.items())


@dataclass
class MemoryUpsStore:
    """A UpsStore. queued: what the outbox would send, (receiver, event) in order."""

    kept: dict[str, Workitem] = field(default_factory=dict)
    subscriptions: dict[tuple[str, str], Subscription] = field(default_factory=dict)
    everywhere: dict[str, GlobalSubscription] = field(default_factory=dict)
    queued: list[tuple[str, UpsEvent]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def clear(self) -> None:
        for kept in (self.kept, self.subscriptions, self.everywhere, self.queued):
            kept.clear()

    def workitem(self, sop_instance_uid: str) -> Workitem | None:
        return self.kept.get(sop_instance_uid)

    def workitems(self, query: UpsQuery) -> Iterator[Workitem]:
        for one in list(self.kept.values()):
            if (
                query.sop_instance_uid in ("", one.sop_instance_uid)
                and query.state in ("", one.state)
                and query.priority in ("", one.priority)
            ):
                yield one

    def create_workitem(
        self, workitem: Workitem, subscriptions: Sequence[Subscription] = (), events: Sequence[UpsEvent] = ()
    ) -> None:
        with self.lock:
            if workitem.sop_instance_uid in self.kept:
                raise DuplicateWorkitem("there is such a work item")
            self.kept[workitem.sop_instance_uid] = workitem
            for subscription in subscriptions:
                self.subscriptions[subscription.sop_instance_uid, subscription.ae_title] = subscription
            self._queue(events)

    def update_workitem(self, workitem: Workitem, expected_version: int, events: Sequence[UpsEvent] = ()) -> None:
        with self.lock:
            if self.kept[workitem.sop_instance_uid].version != expected_version:
                raise StaleWorkitem("the work item was changed meanwhile")
            self.kept[workitem.sop_instance_uid] = workitem
            self._queue(events)

    def open_workitems(self, created_by: str) -> tuple[int, int]:
        open_now = [one for one in self.kept.values() if one.created_by and one.state in ("SCHEDULED", "IN PROGRESS")]
        return sum(one.created_by == created_by for one in open_now), len(open_now)

    def subscribers_of(self, sop_instance_uid: str) -> list[str]:
        return [ae_title for uid, ae_title in self.subscriptions if uid == sop_instance_uid]

    def subscribe(self, subscription: Subscription, events: Sequence[UpsEvent] = ()) -> None:
        with self.lock:
            self.subscriptions[subscription.sop_instance_uid, subscription.ae_title] = subscription
            self._queue(events)

    def unsubscribe(self, sop_instance_uid: str, ae_title: str) -> None:
        self.subscriptions.pop((sop_instance_uid, ae_title), None)

    def global_subscriptions(self) -> list[GlobalSubscription]:
        return list(self.everywhere.values())

    def subscribe_globally(self, subscription: GlobalSubscription) -> None:
        self.everywhere[subscription.ae_title] = subscription

    def unsubscribe_globally(self, ae_title: str) -> None:
        self.suspend_subscription(ae_title)
        self.subscriptions = {key: one for key, one in self.subscriptions.items() if key[1] != ae_title}

    def suspend_subscription(self, ae_title: str) -> None:
        self.everywhere.pop(ae_title, None)

    def _queue(self, events: Sequence[UpsEvent]) -> None:
        for event in events:
            receivers = [event.receiver] if event.receiver else self.subscribers_of(event.sop_instance_uid)
            self.queued += [(receiver, event) for receiver in receivers]
