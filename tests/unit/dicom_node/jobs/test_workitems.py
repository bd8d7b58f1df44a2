"""The registry's Unified Procedure Steps, subscriptions and event queue, on every database, several threads at once.

Does not cover: what a work item says and who may change it when (`worklist/dicom`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa

from dicom_node.base.types import Level
from dicom_node.base.workitems import (
    Background,
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
from dicom_node.jobs import workitems as book
from dicom_node.jobs.registry import Registry
from support.orders import ACCESSION, STUDY, UID, finish, order, placed, receive, tell

FOREVER = 1e12


def workitem(number: int = 1, **changes: object) -> Workitem:
    made = Workitem(f"1.2.840.{number}", UpsState.SCHEDULED, "LOW", b"\x00data set\xff")
    return replace(made, **changes)  # type: ignore[arg-type]


def event(number: int = 1, receiver: str | None = None, kind: EventType = EventType.STATE_REPORT) -> UpsEvent:
    return UpsEvent(f"1.2.840.{number}", kind, b"\x00told", receiver)


def claim(registry: Registry, receiver: str, at: float = FOREVER, owner: str = "o") -> QueuedEvent | None:
    """What a sender of this name gets, for a minute."""
    return registry.claim_event(receiver, owner, at + 60, at)


def queue(registry: Registry, receiver: str) -> list[UpsEvent]:
    """Take everything out of a receiver's queue, in order."""
    events = []
    while (queued := claim(registry, receiver)) is not None:
        registry.remove_event(queued)
        events.append(queued.event)
    return events


def at_once(registry: Registry, *calls: Callable[[], object]) -> list[object]:
    """Run the calls in threads that begin together; what each gave or raised."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except (StaleWorkitem, DuplicateWorkitem) as error:
            return type(error)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_a_work_item_is_kept_as_it_is(registry: Registry) -> None:
    made = workitem(study_instance_uid="1.2.3", written=b"\x00written")
    registry.create_workitem(made)
    assert registry.workitem(made.sop_instance_uid) == made
    assert registry.workitem("1.9") is None


def test_an_update_replaces_all_but_the_name(registry: Registry) -> None:
    registry.create_workitem(workitem(study_instance_uid="1.2.3", written=b"w"))
    new = workitem(state=UpsState.IN_PROGRESS, priority="HIGH", encoded=b"new", transaction_uid="1.2", version=2)
    registry.update_workitem(new, 1)
    assert registry.workitem(new.sop_instance_uid) == new


def test_a_name_is_given_once_and_a_study_has_one_of_the_nodes_own(registry: Registry) -> None:
    registry.create_workitem(workitem(1, study_instance_uid="1.2.3"))
    for second in (workitem(1), workitem(2, study_instance_uid="1.2.3")):
        with pytest.raises(DuplicateWorkitem):
            registry.create_workitem(second, [Subscription(second.sop_instance_uid, "A", False)], [event(1)])
    registry.create_workitem(workitem(3))
    registry.create_workitem(workitem(4))
    assert queue(registry, "A") == []


def test_an_update_of_what_somebody_else_updated_changes_nothing(registry: Registry) -> None:
    registry.create_workitem(workitem(), [Subscription("1.2.840.1", "A", False)])
    registry.update_workitem(workitem(version=2, priority="HIGH"), 1)
    with pytest.raises(StaleWorkitem):
        registry.update_workitem(workitem(version=2, priority="MEDIUM"), 1, [event()])
    found = registry.workitem("1.2.840.1")
    assert found is not None
    assert found.priority == "HIGH"
    assert queue(registry, "A") == []


@pytest.mark.parametrize("count", [0, 4, 5])
def test_work_items_come_page_by_page_in_order(registry: Registry, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(book, "PAGE", 2)
    for number in range(count):
        registry.create_workitem(workitem(number))
    assert [one.sop_instance_uid for one in registry.workitems(UpsQuery())] == [f"1.2.840.{n}" for n in range(count)]


def test_between_two_pages_others_may_write(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "PAGE", 1)
    registry.create_workitem(workitem(1))
    registry.create_workitem(workitem(2))
    walk = registry.workitems(UpsQuery())
    next(walk)
    registry.update_workitem(workitem(2, version=2, priority="HIGH"), 1)
    assert [one.priority for one in walk] == ["HIGH"]


def test_a_query_is_exact(registry: Registry) -> None:
    registry.create_workitem(workitem(1))
    registry.create_workitem(workitem(2, priority="HIGH"))
    registry.create_workitem(workitem(3, priority="HIGH", state=UpsState.CANCELED))

    def found(**query: str) -> list[str]:
        return [one.sop_instance_uid[-1] for one in registry.workitems(UpsQuery(**query))]

    assert found(priority="HIGH") == ["2", "3"]
    assert found(priority="HIGH", state="SCHEDULED") == ["2"]
    assert found(sop_instance_uid="1.2.840.1") == ["1"]
    assert found(sop_instance_uid="1.2.840") == []


def test_an_event_goes_to_everybody_subscribed_the_call_included_or_to_its_receiver(registry: Registry) -> None:
    item = "1.2.840.1"
    registry.create_workitem(workitem(1), [Subscription(item, "A", True)], [event(1)])
    registry.subscribe(Subscription(item, "B", False), [event(1, "B", EventType.ASSIGNED)])
    registry.update_workitem(workitem(1, version=2), 1, [event(1, kind=EventType.PROGRESS_REPORT), event(1, "C")])
    assert registry.subscribers_of(item) == ["A", "B"]
    assert [one.type for one in queue(registry, "A")] == [EventType.STATE_REPORT, EventType.PROGRESS_REPORT]
    assert [one.type for one in queue(registry, "B")] == [EventType.ASSIGNED, EventType.PROGRESS_REPORT]
    assert queue(registry, "C") == [event(1, "C")]


def test_subscriptions_are_replaced_and_removed(registry: Registry) -> None:
    for number in (1, 2):
        registry.create_workitem(workitem(number), [Subscription(f"1.2.840.{number}", "A", False)])
    registry.subscribe(Subscription("1.2.840.1", "A", True))
    registry.subscribe(Subscription("1.2.840.1", "B", True))
    registry.subscribe_globally(GlobalSubscription("A", False))
    registry.subscribe_globally(GlobalSubscription("A", True, b"\x00filter"))
    registry.subscribe_globally(GlobalSubscription("G", False))
    assert registry.global_subscriptions() == [
        GlobalSubscription("A", True, b"\x00filter"),
        GlobalSubscription("G", False),
    ]
    assert registry.subscribers() == ["A", "B", "G"]
    registry.unsubscribe("1.2.840.1", "B")
    assert registry.subscribers_of("1.2.840.1") == ["A"]
    registry.suspend_subscription("A")
    assert registry.subscribers() == ["A", "G"]
    registry.unsubscribe_globally("A")
    assert registry.subscribers_of("1.2.840.1") == registry.subscribers_of("1.2.840.2") == []
    assert registry.subscribers() == ["G"]


def test_no_event_overtakes_another_of_its_receiver(registry: Registry) -> None:
    registry.queue_events([event(1, "A"), event(2, "A"), event(3, "B")])
    first = claim(registry, "A")
    assert first is not None
    registry.postpone_event(first, FOREVER)
    assert claim(registry, "A", FOREVER - 1) is None
    other = claim(registry, "B", FOREVER - 1)
    assert other is not None
    assert other.event == event(3, "B")
    again = claim(registry, "A")
    assert again is not None
    assert (again.id, again.attempts) == (first.id, 1)


def test_events_for_nobody_and_old_ones_are_dropped_and_counted(registry: Registry) -> None:
    registry.queue_events([event(1, "KNOWN"), event(1, "STRANGER"), event(2, "STRANGER")])
    assert registry.drop_events(["KNOWN"], 0.0, 9) == {"STRANGER": 2}
    assert registry.drop_events(["KNOWN"], 0.0, 9) == {}
    assert registry.drop_events(["KNOWN"], FOREVER, 9) == {"KNOWN": 1}
    registry.queue_events([event(1, "KNOWN")])
    assert registry.drop_events([], 0.0, 9) == {"KNOWN": 1}


def test_of_too_many_events_for_one_receiver_the_oldest_are_dropped(registry: Registry) -> None:
    registry.queue_events([event(number, receiver) for number in range(5) for receiver in ("A", "B")])
    registry.queue_events([event(9, "A")])
    assert registry.drop_events(["A", "B"], 0.0, 5) == {"A": 1}
    assert registry.drop_events(["A", "B"], 0.0, 2) == {"A": 3, "B": 3}
    assert queue(registry, "A") == [event(4, "A"), event(9, "A")]
    assert queue(registry, "B") == [event(3, "B"), event(4, "B")]


def test_an_event_is_claimed_by_one_sender_and_by_another_when_its_lease_is_over(registry: Registry) -> None:
    registry.queue_events([event(1, "A"), event(2, "A")])
    first = claim(registry, "A", 100.0, "one")
    assert first is not None
    assert claim(registry, "A", 159.9, "two") is None, "nor does the next one overtake it"
    again = claim(registry, "A", 160.0, "two")
    assert again is not None
    assert (again.id, again.owner) == (first.id, "two")
    registry.remove_event(first)
    registry.postpone_event(first, FOREVER)
    assert claim(registry, "A", 219.9, "one") is None, "who lost the claim changes nothing"
    registry.remove_event(again)
    assert queue(registry, "A") == [event(2, "A")]


def test_what_a_dead_sender_of_this_node_held_is_due_again(registry: Registry) -> None:
    registry.queue_events([event(1, "A"), event(1, "B")])
    claim(registry, "A", 100.0, "node1-events-x")
    claim(registry, "B", 100.0, "node2-events-x")
    registry.return_events("node1-events-")
    assert claim(registry, "A", 100.0) is not None
    assert claim(registry, "B", 100.0) is None


def test_of_many_senders_at_once_one_gets_the_event(registry: Registry) -> None:
    registry.queue_events([event(1, "A")])
    names = [f"sender{number}" for number in range(6)]
    claimed = at_once(registry, *(partial(claim, registry, "A", 100.0, name) for name in names))
    assert sum(one is not None for one in claimed) == 1


def test_a_subscription_that_is_repeated_queues_nothing_again(registry: Registry) -> None:
    item, told = "1.2.840.1", event(1, "A")
    registry.create_workitem(workitem(1))
    for _ in range(3):
        registry.subscribe(Subscription(item, "A", False), [told])
    other = replace(told, information=b"changed")
    registry.subscribe(Subscription(item, "A", False), [other])
    registry.subscribe(Subscription(item, "A", False), [told])
    assert queue(registry, "A") == [told, other, told]
    registry.subscribe(Subscription(item, "A", False), [told])
    assert queue(registry, "A") == [told], "the receiver is told again once the first was sent"


def test_open_work_items_are_counted_by_who_had_them_made(registry: Registry) -> None:
    registry.create_workitem(workitem(1))
    for number, (title, state) in enumerate(
        [
            ("RIS", UpsState.SCHEDULED),
            ("RIS", UpsState.IN_PROGRESS),
            ("RIS", UpsState.COMPLETED),
            ("CIS", UpsState.CANCELED),
            ("CIS", UpsState.SCHEDULED),
        ],
        2,
    ):
        registry.create_workitem(workitem(number, created_by=title, state=state))
    assert registry.open_workitems("RIS") == (2, 3)
    assert registry.open_workitems("NEW") == (0, 3)
    registry.update_workitem(workitem(2, state=UpsState.CANCELED, version=2), 1)
    assert registry.open_workitems("RIS") == (1, 2), "who had it made is not changed by an update"


def test_a_number_never_means_another_event(registry: Registry) -> None:
    registry.queue_events([event(1, "A")])
    first = claim(registry, "A")
    assert first is not None
    registry.drop_events([], 0.0, 9)
    registry.queue_events([event(2, "A")])
    registry.remove_event(first)
    assert queue(registry, "A") == [event(2, "A")]


def test_of_many_claims_one_wins(registry: Registry) -> None:
    registry.create_workitem(workitem(), [Subscription("1.2.840.1", "A", False)])

    def claim_step(lock: str) -> Callable[[], None]:
        new = workitem(state=UpsState.IN_PROGRESS, transaction_uid=lock, version=2)
        return lambda: registry.update_workitem(new, 1, [event()])

    ends = at_once(registry, *(claim_step(f"1.2.{number}") for number in range(6)))
    assert ends.count(None) == 1
    assert ends.count(StaleWorkitem) == 5
    assert len(queue(registry, "A")) == 1


def test_of_many_creations_one_wins(registry: Registry) -> None:
    ends = at_once(registry, *(lambda: registry.create_workitem(workitem(priority="HIGH")) for _ in range(6)))
    assert ends.count(None) == 1
    assert ends.count(DuplicateWorkitem) == 5


def test_no_change_is_lost_and_none_told_twice(registry: Registry) -> None:
    registry.create_workitem(workitem(), [Subscription("1.2.840.1", "A", False)])

    def raise_versions() -> None:
        done = 0
        while done < 10:
            present = registry.workitem("1.2.840.1")
            assert present is not None
            try:
                registry.update_workitem(replace(present, version=present.version + 1), present.version, [event()])
            except StaleWorkitem:
                continue
            done += 1

    assert at_once(registry, *[raise_versions] * 4) == [None] * 4
    last = registry.workitem("1.2.840.1")
    assert last is not None
    assert last.version == 41
    assert len(queue(registry, "A")) == 40


def test_who_subscribes_during_an_update_can_see_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The update has looked for its subscribers and is not committed yet: `subscribe` waits for it."""
    registry.create_workitem(workitem())
    seen: list[int] = []

    def subscribe() -> None:
        registry.subscribe(Subscription("1.2.840.1", "A", False))
        present = registry.workitem("1.2.840.1")
        assert present is not None
        seen.append(present.version)

    late = threading.Thread(target=subscribe)
    queue_events = registry._queue_events

    def queue_then_wait(connection: sa.Connection, events: Sequence[UpsEvent]) -> None:
        queue_events(connection, events)
        if events:
            late.start()
            late.join(0.5)  # in vain: it waits for the end of this transaction

    monkeypatch.setattr(registry, "_queue_events", queue_then_wait)
    registry.update_workitem(workitem(version=2), 1, [event()])
    late.join()
    assert queue(registry, "A") == []
    assert seen == [2]


def test_the_nodes_own_are_those_that_wait_and_those_of_listed_studies(registry: Registry) -> None:
    registry.create_workitem(workitem(1, study_instance_uid="1.1"))
    registry.create_workitem(workitem(2, study_instance_uid="1.2", state=UpsState.COMPLETED))
    registry.create_workitem(workitem(3, study_instance_uid="1.3", state=UpsState.COMPLETED))
    registry.create_workitem(workitem(4))
    assert [one.sop_instance_uid[-1] for one in registry.own_workitems(["1.2"])] == ["1", "2"]
    assert [one.sop_instance_uid[-1] for one in registry.own_workitems([])] == ["1"]
    more_than_a_statement_takes = [f"1.9.{number}" for number in range(70_000)]
    found = registry.own_workitems([*more_than_a_statement_takes, "1.1", "1.3"])
    assert [one.sop_instance_uid[-1] for one in found] == ["1", "3"]


def test_a_claim_of_the_nodes_own_is_a_reading_that_began(registry: Registry) -> None:
    receive(registry)
    registry.create_workitem(workitem(1, study_instance_uid=UID))
    registry.create_workitem(workitem(2))
    assert registry.readings_begun() == []
    claimed = workitem(1, study_instance_uid=UID, state=UpsState.IN_PROGRESS, version=2)
    registry.update_workitem(claimed, 1)
    registry.update_workitem(workitem(2, state=UpsState.IN_PROGRESS, version=2), 1)
    [(study, at)] = registry.readings_begun()
    assert study == UID
    registry.update_workitem(replace(claimed, state=UpsState.COMPLETED, version=3), 2)
    assert registry.readings_begun() == [(UID, at)]
    registry.note_reading(study, at)
    assert registry.readings_begun() == []


def test_a_cancel_by_the_way_of_in_progress_is_no_reading(registry: Registry) -> None:
    receive(registry)
    registry.create_workitem(workitem(1, study_instance_uid=UID))
    registry.update_workitem(workitem(1, study_instance_uid=UID, state=UpsState.CANCELED, version=2), 1)
    assert registry.readings_begun() == []


def test_the_background_of_a_study(registry: Registry) -> None:
    assert registry.backgrounds([STUDY]) == {}
    receive(registry)
    tell(registry, placed())
    assert registry.backgrounds([STUDY]) == {STUDY: Background(order())}
    finish(registry, level=Level.URGENT)
    assert registry.backgrounds([STUDY])[STUDY].report is not None


def test_a_later_image_takes_no_marking_away(registry: Registry) -> None:
    receive(registry)
    finish(registry, training_state="untrained")
    receive(registry, at=300.0, accession=ACCESSION)
    [entry] = registry.worklist(0, nonclinical=True)
    assert entry.marking == "untrained model, not for clinical use"
