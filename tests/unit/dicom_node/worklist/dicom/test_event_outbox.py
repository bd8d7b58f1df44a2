"""The queue of UPS events is sent in order, again after failures, and never holds up another subscriber.

Does not cover: what an event says and how it travels (`test_ups_events.py`, integration tests).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from dicom_node.base.config import configuration_from
from dicom_node.base.errors import NodeError, PeerRefused, PeerUnreachable
from dicom_node.base.events import Event
from dicom_node.base.ups_settings import Subscriber
from dicom_node.base.workitems import EventType, UpsEvent
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.worklist_tables import ups_events
from dicom_node.worklist.dicom import event_outbox
from dicom_node.worklist.dicom.event_outbox import EventOutbox
from dicom_node.worklist.dicom.ups_events import EventRefused, provider_status
from support.peers import wait_until

UP, DOWN = (Subscriber(ae_title=title, host="127.0.0.1", port=1) for title in ("UP", "DOWN"))


def told(number: int, receiver: str = "UP") -> UpsEvent:
    return UpsEvent(f"1.2.{number}", EventType.STATE_REPORT, b"told", receiver)


class Peers:
    """What was sent to whom; `errors` are raised one after the other before anything gets through."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.sent: list[UpsEvent] = []

    def send(self, event: UpsEvent, subscriber: Subscriber, calling_ae: str) -> None:
        assert (event.receiver, calling_ae) == (subscriber.ae_title, "PRIMA")
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append(event)


def outbox(registry: Registry, peers: Peers, owner: str = "o") -> EventOutbox:
    subscribers = [one.model_dump() for one in (UP, DOWN)]
    configuration = configuration_from({"worklist": {"subscribers": subscribers}}, Path("/nowhere"))
    return EventOutbox(configuration, registry, owner, peers.send)


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as captured:
        yield captured  # type: ignore[misc]


def numbers(lines: list[dict[str, object]]) -> list[object]:
    return [line["number"] for line in lines]


def test_events_are_sent_in_order_and_leave_the_queue(registry: Registry) -> None:
    registry.queue_events([told(1), told(2)])
    peers = Peers()
    box = outbox(registry, peers)
    assert [box.send_next(UP), box.send_next(UP), box.send_next(UP)] == [True, True, False]
    assert peers.sent == [told(1), told(2)]


@pytest.mark.parametrize("error", [PeerUnreachable("away"), PeerRefused("not let in"), KeyError("fault")])
def test_an_event_that_did_not_arrive_waits_and_all_behind_it(
    registry: Registry, error: Exception, lines: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.queue_events([told(1), told(2)])
    peers = Peers(error)
    box = outbox(registry, peers)
    assert box.send_next(UP)
    assert not box.send_next(UP)
    [line] = lines
    assert (line["number"], line["called_ae"], line["attempts"]) == (Event.UPS_EVENT_POSTPONED.number, "UP", 1)
    monkeypatch.setattr(event_outbox.time, "time", lambda: 1e12)
    while box.send_next(UP):
        pass
    assert peers.sent == [told(1), told(2)]


def test_the_wait_grows_up_to_a_bound(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.queue_events([told(1)])
    box = outbox(registry, Peers(*[PeerUnreachable("away")] * 12))
    waits = []
    now = 1e12
    for _ in range(12):
        monkeypatch.setattr(event_outbox.time, "time", lambda at=now: at)
        assert box.send_next(UP)
        with registry._read() as connection:
            waits.append(connection.execute(sa.select(ups_events)).one().next_attempt_at - now)
        now += 1000
    assert event_outbox.FIRST_RETRY_SECONDS <= waits[0] < waits[3] < waits[6]
    assert max(waits) <= 1.1 * event_outbox.LONGEST_RETRY_SECONDS + 1


def test_an_event_that_the_subscriber_refuses_is_dropped(registry: Registry, lines: list[dict[str, object]]) -> None:
    registry.queue_events([told(1), told(2)])
    peers = Peers(EventRefused("status 0x0115"))
    box = outbox(registry, peers)
    assert box.send_next(UP)
    assert box.send_next(UP)
    assert peers.sent == [told(2)]
    assert numbers(lines) == [Event.UPS_EVENT_DROPPED.number, Event.UPS_EVENT_SENT.number]


def test_events_for_strangers_and_old_ones_are_dropped(
    registry: Registry, lines: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.queue_events([told(1), told(2, "STRANGER")])
    box = outbox(registry, Peers())
    box.drop_useless()
    monkeypatch.setattr(event_outbox.time, "time", lambda: 1e12)
    box.drop_useless()
    assert [(line["called_ae"], line["count"]) for line in lines] == [("STRANGER", 1), ("UP", 1)]
    assert not box.send_next(UP)


def test_a_subscriber_that_hangs_holds_up_nobody_else(registry: Registry) -> None:
    registry.queue_events([told(1, "DOWN"), told(2, "UP")])
    hangs, stop = threading.Event(), threading.Event()

    class Hanging(Peers):
        def send(self, event: UpsEvent, subscriber: Subscriber, calling_ae: str) -> None:
            if subscriber == DOWN:
                assert hangs.wait(60)
            super().send(event, subscriber, calling_ae)

    peers = Hanging()
    box = outbox(registry, peers)
    box.start(stop)
    try:
        wait_until(lambda: told(2, "UP") in peers.sent, "the other subscriber is told")
        assert told(1, "DOWN") not in peers.sent
        hangs.set()
        wait_until(lambda: told(1, "DOWN") in peers.sent, "the slow one is told as well")
    finally:
        hangs.set()
        stop.set()
        box.join()


def test_subscribers_are_told_that_the_node_is_back(registry: Registry) -> None:
    stop = threading.Event()
    stop.set()
    box = outbox(registry, Peers(NodeError("not reached"), NodeError("not reached")))
    box.start(stop)
    box.join()
    for title in ("UP", "DOWN"):  # DOWN is not subscribed, but on the list of those to fall back on
        queued = registry.claim_event(title, "o", 1e12, 1e12)
        assert queued is not None
        assert queued.event == provider_status(going_down=False).to(title)


def test_subscribers_are_told_once_that_the_node_goes_down(registry: Registry, lines: list[dict[str, object]]) -> None:
    stop = threading.Event()
    peers = Peers()
    box = outbox(registry, peers)
    box.start(stop)
    wait_until(lambda: len(peers.sent) == 2, "both are told that it is back")
    stop.set()
    box.join()
    going = provider_status(going_down=True)
    assert sorted(peers.sent[2:], key=str) == sorted([going.to("UP"), going.to("DOWN")], key=str)
    peers.errors = [PeerUnreachable("away")] * 2
    box = outbox(registry, peers)
    box._say_goodbye(UP)
    assert numbers(lines)[-1] == Event.UPS_EVENT_DROPPED.number
    assert not box.send_next(UP), "what nobody took is not kept"


def test_of_two_nodes_on_one_database_one_sends_an_event(registry: Registry) -> None:
    registry.queue_events([told(1)])
    second = Peers()

    class WhileTheOtherTries(Peers):
        def send(self, event: UpsEvent, subscriber: Subscriber, calling_ae: str) -> None:
            assert not outbox(registry, second, "other").send_next(UP)
            super().send(event, subscriber, calling_ae)

    first = WhileTheOtherTries()
    assert outbox(registry, first).send_next(UP)
    assert (first.sent, second.sent) == ([told(1)], [])
