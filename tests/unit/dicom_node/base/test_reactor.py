"""What pynetdicom's reactor thread may do to a request, provoked, and that it no longer can.

Relies on private parts of one version of pynetdicom, as the code does; the first test says when that changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pynetdicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.base import reactor
from dicom_node.base.reactor import WITHOUT_LOSS, Checkpoint, HeldAssociation
from support.peers import free_port, wait_until

BEFORE_IT_LOOKS_SECONDS = 0.1
PREEMPTED_SECONDS = 1.0  # for so long the system gives a thread no time


def test_the_version_that_is_installed_is_the_one_that_is_mended() -> None:
    assert pynetdicom.__version__ == reactor.KNOWN


@pytest.fixture
def port() -> Iterator[int]:
    entity = AE()
    entity.add_supported_context(Verification)
    port = free_port()
    entity.start_server(("127.0.0.1", port), block=False)
    yield port
    entity.shutdown()


@contextmanager
def associated(port: int, *handlers: evt.EventHandlerType) -> Iterator[Association]:
    entity = AE()
    entity.dimse_timeout = entity.acse_timeout = 2 * PREEMPTED_SECONDS
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port, evt_handlers=list(handlers))
    assert association.is_established
    try:
        yield association
    finally:
        association.release()
        association.join()


def preempted(kind: type[threading.Event]) -> evt.EventHandlerType:
    """Gives an association a checkpoint behind which its reactor is stopped until the response came, or for a while.

    The caller is stopped as well, between its request and its look for the response.
    """

    def on_open(event: Event) -> None:
        association, armed, sending, came = event.assoc, threading.Event(), threading.Event(), threading.Event()
        association.bind(evt.EVT_DIMSE_RECV, lambda _: came.set())
        send = association.dimse.send_msg

        class Preempted(kind):  # type: ignore[misc, valid-type]
            def wait(self, timeout: float | None = None) -> bool:
                passed = bool(super().wait(timeout))
                if armed.is_set():
                    armed.clear()
                    came.wait(PREEMPTED_SECONDS)
                    time.sleep(BEFORE_IT_LOOKS_SECONDS)
                return passed

            def clear(self) -> None:
                if sending.is_set():
                    armed.set()
                    wait_until(lambda: not armed.is_set())  # the reactor is past the checkpoint now
                super().clear()

        def send_and_stop(*request: object) -> None:
            sending.clear()
            send(*request)
            came.wait(PREEMPTED_SECONDS)
            time.sleep(3 * BEFORE_IT_LOOKS_SECONDS)

        sending.set()
        association.dimse.send_msg = send_and_stop
        association._reactor_checkpoint = Preempted()
        association._reactor_checkpoint.set()

    return evt.EVT_CONN_OPEN, on_open


def test_without_help_a_response_is_lost(port: int) -> None:
    with associated(port, preempted(threading.Event)) as association:
        assert "Status" not in association.send_c_echo()


def test_a_reactor_that_is_stopped_at_the_wrong_moment_takes_no_response(port: int) -> None:
    with associated(port, WITHOUT_LOSS, preempted(Checkpoint)) as association:
        assert isinstance(association, HeldAssociation)
        assert association.send_c_echo().Status == 0


def test_a_release_does_not_wait_for_what_another_thread_says(port: int) -> None:
    with associated(port, WITHOUT_LOSS) as association:
        association._reactor_checkpoint.clear()
        wait_until(lambda: association._is_paused)
        association._is_paused = False  # as the thread that served an N-EVENT-REPORT does at its end
        assert association._is_paused
        association._reactor_checkpoint.set()
        assert association.send_c_echo().Status == 0


def test_a_request_after_the_reactor_has_ended_does_not_wait_for_it(port: int) -> None:
    with associated(port, WITHOUT_LOSS) as association:
        association.abort()
        association.join()
        association._reactor_checkpoint.clear()
        assert association._is_paused


def test_another_version_is_left_as_it_is(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactor, "KNOWN", "3.0.5")
    with associated(port, WITHOUT_LOSS) as association:
        assert type(association) is Association
        assert association.send_c_echo().Status == 0


def test_many_requests_in_a_row_are_all_answered(port: int) -> None:
    with associated(port, WITHOUT_LOSS) as association:
        assert [association.send_c_echo().Status for _ in range(50)] == [0] * 50
