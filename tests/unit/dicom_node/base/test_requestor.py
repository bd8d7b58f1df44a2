"""An association that the node opens, with a peer that breaks the protocol on it: it ends, and no thread of the node's.

Does not cover what a service makes of its responses: `test_storescu.py`, `tests/integration/test_ups_user.py`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.events import Event as AssociationEvent
from structlog.testing import capture_logs

from dicom_node.base.config import Destination
from dicom_node.base.errors import PeerRefused, PeerUnreachable
from dicom_node.base.events import Event
from dicom_node.base.requestor import NotAccepted, associated
from support.peers import wait_until

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
MR, UPS_PUSH, STORAGE_COMMITMENT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.34.6.1", "1.2.840.10008.1.20.1"
HALF_A_PDU = b"\x04\x00\x00\x00\x40\x00" + bytes(100)
DRIPS = 1000  # then a peer hangs up by itself

CONTEXTS = [(VERIFICATION, [IMPLICIT])]


def peer_at(port: int, **changes: Any) -> Destination:
    table = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_seconds": 20}
    return Destination.model_validate(table | changes)


@contextmanager
def echoing(*handlers: evt.EventHandlerType) -> Iterator[int]:
    entity = AE(ae_title="PACS")
    entity.require_called_aet = True
    entity.add_supported_context(VERIFICATION)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    yield server.socket.getsockname()[1]
    entity.shutdown()


@pytest.fixture
def crashes() -> Iterator[list[Any]]:
    """What threads ended with, unhandled."""
    found: list[Any] = []
    hook, threading.excepthook = threading.excepthook, found.append
    yield found
    threading.excepthook = hook


def drip(connection: socket.socket, ended: list[str]) -> None:
    with suppress(OSError):
        for _ in range(DRIPS):
            connection.sendall(b"\x00")
            time.sleep(0.01)
        ended.append("by itself")


def test_a_peer_that_never_ends_a_pdu_instead_of_its_answer(crashes: list[Any]) -> None:
    ended: list[str] = []

    def on_echo(event: AssociationEvent) -> int:
        event.assoc.dul.socket.socket.sendall(HALF_A_PDU)
        drip(event.assoc.dul.socket.socket, ended)
        return 0

    with echoing((evt.EVT_C_ECHO, on_echo)) as port:
        with associated(peer_at(port, timeout_seconds=0.2), "NODE", CONTEXTS) as association:
            assert "Status" not in association.send_c_echo()
        assert not association.is_alive()
    assert (ended, crashes) == ([], [])


def test_a_peer_that_never_ends_the_pdu_that_answers_the_association() -> None:
    ended: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"\x02\x00\x00\x00\x40\x00")
                drip(connection, ended)

        thread = threading.Thread(target=answer)
        thread.start()
        peer = peer_at(server.getsockname()[1], timeout_seconds=0.2)
        with pytest.raises(PeerUnreachable), associated(peer, "NODE", CONTEXTS):
            pass
        thread.join()
    assert ended == []


def event_report(sop_class: str) -> N_EVENT_REPORT:
    request = N_EVENT_REPORT()
    request.MessageID = 7
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = "1.2.3"
    request.EventTypeID = 1
    return request


def store_request() -> C_STORE:
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = UPS_PUSH
    request.AffectedSOPInstanceUID = "1.2.3"
    request.Priority = 0
    return request


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: event_report(MR),
        lambda: event_report(VERIFICATION),
        lambda: event_report(UPS_PUSH),
        lambda: event_report(STORAGE_COMMITMENT),
        lambda: event_report("1.2.3.4"),
        store_request,
    ],
)
def test_a_request_of_the_peers_own_aborts_and_is_said_once(
    request_of: Callable[[], N_EVENT_REPORT | C_STORE], crashes: list[Any]
) -> None:
    def on_echo(event: AssociationEvent) -> int:
        event.assoc.dimse.send_msg(request_of(), event.context.context_id)
        return 0

    with echoing((evt.EVT_C_ECHO, on_echo)) as port, capture_logs() as lines:
        with associated(peer_at(port), "NODE", CONTEXTS) as association:
            association.send_c_echo()
            wait_until(lambda: not association.is_established)
        association.join()
    assert [str(crash.exc_value) for crash in crashes] == []
    assert [(line["number"], line["log_level"]) for line in lines] == [(Event.ASSOCIATION_ABORTED.number, "warning")]
    assert "request" in lines[0]["reason"]


def test_a_request_that_a_handler_answers_is_answered(crashes: list[Any]) -> None:
    def on_echo(event: AssociationEvent) -> int:
        event.assoc.dimse.send_msg(event_report(STORAGE_COMMITMENT), event.context.context_id)
        return 0

    reported = threading.Event()

    def on_report(_: AssociationEvent) -> tuple[int, None]:
        reported.set()
        return 0, None

    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    with (
        echoing((evt.EVT_C_ECHO, on_echo)) as port,
        associated(peer_at(port), "NODE", CONTEXTS, handlers=handlers, answerable=lambda _: True) as association,
    ):
        association.send_c_echo()
        wait_until(reported.is_set)
    assert crashes == []


def test_what_it_means_when_there_is_no_association() -> None:
    with (
        echoing() as port,
        pytest.raises(NotAccepted, match="SOP class"),
        associated(peer_at(port), "NODE", [(MR, [IMPLICIT])]),
    ):
        pass
    with pytest.raises(PeerUnreachable, match="nobody"), associated(peer_at(port), "NODE", CONTEXTS):
        pass
    nowhere = peer_at(port, host="no-such-host.invalid")
    with pytest.raises(PeerUnreachable, match="not known"), associated(nowhere, "NODE", CONTEXTS):
        pass
    with (
        echoing() as port,
        pytest.raises(PeerRefused, match="rejected"),
        associated(peer_at(port, ae_title="OTHER"), "NODE", CONTEXTS),
    ):
        pass
