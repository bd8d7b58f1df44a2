"""What the UPS provider asks of whatever keeps its work items and subscriptions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from dicom_node.base.workitems import GlobalSubscription, Subscription, UpsEvent, UpsQuery, Workitem


class UpsStore(Protocol):
    """Each method is one transaction, durable when it returns; all may raise a RetriableError
    or one of `DATABASE_AWAY`.

    Events given to a method are queued in its transaction, in order: one with a receiver for that AE, any other once
    for each AE subscribed to its work item when the transaction commits, those of the same call included.
    """

    def workitem(self, sop_instance_uid: str) -> Workitem | None:
        """The work item as it is now."""
        ...

    def workitems(self, query: UpsQuery) -> Iterator[Workitem]:
        """Every work item that satisfies the query, page by page, in a stable order."""
        ...

    def create_workitem(
        self, workitem: Workitem, subscribed: Sequence[Subscription] = (), events: Sequence[UpsEvent] = ()
    ) -> None:
        """Keep a new work item. Raises DuplicateWorkitem."""
        ...

    def update_workitem(self, workitem: Workitem, expected_version: int, events: Sequence[UpsEvent] = ()) -> None:
        """Replace the work item if it still has the version. Raises StaleWorkitem."""
        ...

    def open_workitems(self, created_by: str) -> tuple[int, int]:
        """How many work items that are not final this AE had made, and how many all AEs together, it included."""
        ...

    def subscribers_of(self, sop_instance_uid: str) -> Sequence[str]:
        """AE titles subscribed to a work item."""
        ...

    def subscribe(self, subscription: Subscription, events: Sequence[UpsEvent] = ()) -> None:
        """Subscribe an AE to a work item, or replace its subscription's lock; nothing if it was deleted meanwhile."""
        ...

    def unsubscribe(self, sop_instance_uid: str, ae_title: str) -> None:
        """Remove an AE's subscription to a work item, if it has one."""
        ...

    def global_subscriptions(self) -> Sequence[GlobalSubscription]:
        """All global subscriptions; an AE has one at most."""
        ...

    def subscribe_globally(self, subscription: GlobalSubscription) -> None:
        """Set or replace an AE's global subscription."""
        ...

    def unsubscribe_globally(self, ae_title: str) -> None:
        """Remove an AE's global subscription and all its subscriptions to work items."""
        ...

    def suspend_subscription(self, ae_title: str) -> None:
        """Remove an AE's global subscription alone."""
        ...
