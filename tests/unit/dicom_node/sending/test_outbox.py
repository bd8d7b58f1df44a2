"""The outbox against a registry: back-off, order, set aside, and one thread a destination. The peer is a function."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.errors import PeerRefused, PeerUnreachable
from dicom_node.base.orders import Delivery, Outcome, Stage
from dicom_node.base.requestor import NotAccepted
from dicom_node.jobs.registry import Registry
from dicom_node.sending.outbox import Outbox, Send, back_off
from support.sent_reports import sent_report
from support.studies import arrival, handover, new_registry, report


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = new_registry(tmp_path)
    made.record_arrivals([arrival(1)])
    made.close_quiet(100, 0, 130)
    claim = made.claim("w", 1e12, 140)
    assert claim is not None
    made.finish_reported(claim, report(), handover("a", "b", path=report().path), 150)
    return made


def configured(tmp_path: Path, **changes: object) -> Configuration:
    base = {"ae_title": "X", "host": "h", "port": 104, **changes}
    return configuration_from(
        {"node": {"storage": str(tmp_path)}, "destinations": [base | {"name": "a"}, base | {"name": "b"}]}, tmp_path
    )


class Peers:
    """Destinations that fail as told and otherwise note what they got."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors
        self.got: list[tuple[str, str]] = []

    def __call__(self, delivery: Delivery) -> Outcome:
        if delivery.destination in self.errors:
            raise self.errors[delivery.destination]
        self.got.append((delivery.destination, delivery.path or ""))
        return Outcome()

    def senders(self) -> dict[str, Send]:
        return {"a": self, "b": self}


def deliveries(registry: Registry) -> dict[str, tuple[str, int, str | None]]:
    found = registry.study("1.2.3")
    assert found is not None
    return {d.destination: (d.state, d.attempts, d.last_error) for d in found.deliveries}


def test_everything_due_is_sent_once(registry: Registry, tmp_path: Path) -> None:
    configuration, peers = configured(tmp_path), Peers()
    outbox = Outbox(configuration, registry, peers.senders(), "o")
    for destination in configuration.destinations:
        assert outbox.deliver_next(destination)
        assert not outbox.deliver_next(destination)
    assert sorted(peers.got) == [("a", report().path), ("b", report().path)]
    found = registry.study("1.2.3")
    assert found is not None
    assert found.state == "delivered"


def test_a_peer_that_is_down_gets_everything_afterwards_once(registry: Registry, tmp_path: Path) -> None:
    configuration = configured(tmp_path, first_retry_seconds=0.01)
    peers = Peers(a=PeerUnreachable("down"))
    outbox = Outbox(configuration, registry, peers.senders(), "o")
    first = configuration.destinations[0]
    assert outbox.deliver_next(first)
    assert deliveries(registry)["a"] == ("pending", 1, "down")
    peers.errors.clear()
    while not outbox.deliver_next(first):
        time.sleep(0.01)
    assert not outbox.deliver_next(first)
    assert peers.got == [("a", report().path)]


def test_a_refusal_is_set_aside_for_a_person(registry: Registry, tmp_path: Path) -> None:
    configuration = configured(tmp_path)
    outbox = Outbox(configuration, registry, Peers(a=PeerRefused("not this class")).senders(), "o")
    assert outbox.deliver_next(configuration.destinations[0])
    assert not outbox.deliver_next(configuration.destinations[0])
    assert deliveries(registry)["a"] == ("set_aside", 1, "not this class")


def test_an_error_nobody_thought_of_does_not_end_the_sending(registry: Registry, tmp_path: Path) -> None:
    configuration = configured(tmp_path)
    peers = Peers(a=ZeroDivisionError("PatientName"))
    outbox = Outbox(configuration, registry, peers.senders(), "o")
    assert outbox.deliver_next(configuration.destinations[0])
    assert deliveries(registry)["a"] == ("pending", 1, "unexpected ZeroDivisionError")


def test_a_dead_destination_does_not_hold_up_another(registry: Registry, tmp_path: Path) -> None:
    release, sent = threading.Event(), threading.Event()

    def hangs(_: Delivery) -> Outcome:
        assert release.wait(60)
        return Outcome()

    def works(_: Delivery) -> Outcome:
        sent.set()
        return Outcome()

    stop = threading.Event()
    outbox = Outbox(configured(tmp_path), registry, {"a": hangs, "b": works}, "o")
    runner = threading.Thread(target=outbox.run, args=(stop,))
    runner.start()
    try:
        assert sent.wait(60)
    finally:
        stop.set()
        release.set()
        runner.join()


def test_a_thread_that_ends_by_a_bug_ends_the_process(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(registry, "claim_delivery", broken)
    stop = threading.Event()
    with pytest.raises(KeyError):
        Outbox(configured(tmp_path), registry, Peers().senders(), "o").run(stop)
    assert stop.is_set()


def test_the_wait_doubles_up_to_its_cap(tmp_path: Path) -> None:
    destination = configured(tmp_path, first_retry_seconds=5, max_retry_seconds=60).destinations[0]
    waits = [back_off(attempt, destination) for attempt in (1, 2, 3, 10, 1000)]
    for wait, least in zip(waits, (5, 10, 20, 60, 60), strict=True):
        assert least <= wait <= least * 1.1


def test_what_was_postponed_before_the_clock_was_set_back_waits_no_longer_than_an_attempt_may(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration, peers = configured(tmp_path, max_retry_seconds=600.0), Peers(a=PeerUnreachable("down"))
    outbox = Outbox(configuration, registry, peers.senders(), "o")
    first = configuration.destinations[0]
    now = time.time()
    assert outbox.deliver_next(first)
    monkeypatch.setattr(time, "time", lambda: now - 60)  # a minute is within what an attempt may wait
    assert not outbox.deliver_next(first)
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert outbox.deliver_next(first)


def test_what_was_stored_before_the_clock_was_set_back_waits_no_longer_than_an_answer_may(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = configured(tmp_path, storage_commitment=True, commitment_seconds=900.0)
    stages: list[Stage] = []

    def stores_then_asks(delivery: Delivery) -> Outcome:
        stages.append(Stage.ASKED if delivery.stored else Stage.STORED)
        return Outcome(stage=stages[-1])

    outbox = Outbox(configuration, registry, {"a": stores_then_asks, "b": stores_then_asks}, "o")
    first, now = configuration.destinations[0], time.time()

    def tries_at(seconds: float) -> bool:
        monkeypatch.setattr(time, "time", lambda: now + seconds)
        return outbox.deliver_next(first)

    assert tries_at(0)
    assert tries_at(-7200), "it is due at once, by a clock that is two hours behind as well"
    assert not tries_at(-7200), "its answer is awaited"
    assert not tries_at(-7260), "a minute is within what an answer may take"
    assert tries_at(-14400)
    assert stages == [Stage.STORED, Stage.ASKED, Stage.ASKED]


def test_what_a_peer_does_not_take_goes_in_a_simpler_form_and_is_said(registry: Registry, tmp_path: Path) -> None:
    asked: list[str] = []

    def takes_simple_ones_alone(delivery: Delivery) -> Outcome:
        asked.append(delivery.path or "")
        if not asked[-1].startswith("page"):
            raise NotAccepted("the peer does not accept this SOP class or transfer syntax")
        return Outcome()

    senders = Peers().senders() | {"a": takes_simple_ones_alone}
    outbox = Outbox(configured(tmp_path), registry, senders, "o", lambda path: [Path("page1.dcm"), Path("page2.dcm")])
    while outbox.deliver_next(outbox._configuration.destinations[0]):
        pass
    assert asked[1:] == ["page1.dcm", "page2.dcm"]
    [study] = registry.studies()
    told = [one for one in study.deliveries if one.destination == "a"]
    assert [(one.state, one.kind) for one in told] == [("delivered", "sr"), ("delivered", "sr")]
    assert all((one.last_error or "").startswith("sent in a simpler form: the peer does not accept") for one in told)


def test_what_has_no_simpler_form_is_set_aside(registry: Registry, tmp_path: Path) -> None:
    senders = Peers(a=NotAccepted("not this class")).senders()
    outbox = Outbox(configured(tmp_path), registry, senders, "o")
    outbox.deliver_next(outbox._configuration.destinations[0])
    assert deliveries(registry)["a"][0] == "set_aside"


def test_what_a_rejection_note_will_need_is_noted_before_an_object_leaves(tmp_path: Path) -> None:
    path = sent_report(tmp_path / "outgoing")
    made = new_registry(tmp_path)
    made.record_arrivals([arrival(1)])
    made.close_quiet(100, 0, 130)
    claim = made.claim("w", 1e12, 140)
    assert claim is not None
    made.finish_reported(claim, report(), handover("a", path=path.name), 150)
    known: list[bool] = []

    def send(_: Delivery) -> Outcome:
        known.append(made.is_sent(path.name))
        path.write_bytes(b"other bytes")
        raise PeerUnreachable("down")

    configuration = configured(tmp_path, first_retry_seconds=0.001, max_retry_seconds=0.001)
    outbox = Outbox(configuration, made, {"a": send, "b": send}, "o")
    for _ in range(2):
        assert outbox.deliver_next(configuration.destinations[0])
        time.sleep(0.01)
    assert known == [True, True]
    assert made.sent([path.name])[path.name].sop_instance_uid
