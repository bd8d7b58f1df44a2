"""Bounds of one connection: a PDU's declared length, and the data set that grows too long."""

from __future__ import annotations

import queue
import socket
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pynetdicom.dimse_messages import C_FIND_RQ, C_STORE_RQ, N_ACTION_RQ, N_CREATE_RQ, DIMSEMessage

from dicom_node.base.associations import CONNECTION_CLOSED
from dicom_node.intake.incoming import Incoming
from dicom_node.intake.limits import (
    MAX_OTHER_BYTES,
    MAX_PDU_BYTES,
    BoundedSocket,
    Bounds,
    IncomingDataSet,
    OversizedDataSet,
    Pace,
)

A_ABORT = 0x07
PACE = Pace(60.0, 1000)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, BoundedSocket]]:
    sender, plain = socket.socketpair()
    with sender, BoundedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach()) as bounded:
        yield sender, bounded


def read_pdu(bounded: BoundedSocket) -> bytes:
    """As pynetdicom reads: six bytes, then the rest in pieces."""
    header = b""
    while len(header) < 6:
        header += bounded.recv(6 - len(header))
    (length,) = struct.unpack(">L", header[2:])
    body = b""
    while len(body) < length:
        body += bounded.recv(min(4096, length - len(body)))
    return body


def test_pdus_pass_unchanged(pair: tuple[socket.socket, BoundedSocket]) -> None:
    sender, bounded = pair
    for kind, body in ((1, b"x" * 10_000), (4, b""), (5, b"y")):
        sender.sendall(struct.pack(">BxL", kind, len(body)) + body)
        assert read_pdu(bounded) == body


@pytest.mark.parametrize("length", [MAX_PDU_BYTES * 2, 0xFFFFFFFF])
def test_a_pdu_that_declares_too_much_is_refused_before_it_is_read(
    pair: tuple[socket.socket, BoundedSocket], length: int
) -> None:
    sender, bounded = pair
    sender.sendall(struct.pack(">BxL", 1, length))
    with pytest.raises(OSError, match="refused"):
        read_pdu(bounded)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(6)])
def test_what_does_not_begin_as_an_association_is_refused(
    pair: tuple[socket.socket, BoundedSocket], start: bytes
) -> None:
    sender, bounded = pair
    sender.sendall(start)
    with pytest.raises(OSError, match="A-ASSOCIATE-RQ"):
        read_pdu(bounded)


def test_a_header_that_comes_in_pieces_is_understood(pair: tuple[socket.socket, BoundedSocket]) -> None:
    sender, bounded = pair
    header = struct.pack(">BxL", 1, 3)
    sender.sendall(header[:2])
    first = bounded.recv(6)
    sender.sendall(header[2:] + b"abc")
    assert first + bounded.recv(4) == header
    assert bounded.recv(3) == b"abc"


def test_a_pdu_that_began_must_end_in_time(pair: tuple[socket.socket, BoundedSocket]) -> None:
    sender, bounded = pair
    bounded.pdu_seconds = bounded.request_seconds = 0.05
    sender.sendall(struct.pack(">BxL", 1, 100) + b"only this")
    with pytest.raises(TimeoutError):
        read_pdu(bounded)


def test_an_oversized_data_set_keeps_nothing() -> None:
    sink = OversizedDataSet()
    assert sink.write(b"x" * 1000) == 1000
    assert sink.getvalue() == b""


def received(message: DIMSEMessage) -> Any:
    """The event of a PDU, or of a complete message, on an association that receives the message."""
    dimse = SimpleNamespace(message=message, msg_queue=queue.Queue())
    sent: list[bytes] = []
    dul = SimpleNamespace(event_queue=queue.Queue(), socket=SimpleNamespace(send=sent.append, sent=sent))
    return SimpleNamespace(message=message, assoc=SimpleNamespace(dimse=dimse, dul=dul))


def ended(event: Any) -> bool:
    """Whether an A-ABORT went out, and the connection is closed."""
    aborted = [pdu[0] for pdu in event.assoc.dul.socket.sent] == [A_ABORT]
    assert aborted == (list(event.assoc.dul.event_queue.queue) == [CONNECTION_CLOSED])
    return aborted


def incoming(folder: Path) -> Callable[[object], Incoming]:
    return lambda _: Incoming(folder, 2 * MAX_OTHER_BYTES)


@pytest.mark.parametrize(("size", "kept"), [(MAX_OTHER_BYTES, True), (MAX_OTHER_BYTES + 1, False)])
@pytest.mark.parametrize("kind", [C_FIND_RQ, N_CREATE_RQ, N_ACTION_RQ])
def test_only_an_object_to_be_stored_may_be_large(
    tmp_path: Path, kind: type[DIMSEMessage], size: int, kept: bool
) -> None:
    message = kind()
    message.data_set = BytesIO()
    message.data_set.seek(size)
    Bounds(incoming(tmp_path), PACE).on_pdu(received(message))
    assert isinstance(message.data_set, OversizedDataSet) is not kept


def test_an_object_to_be_stored_goes_where_the_spool_wants_it(tmp_path: Path) -> None:
    message = C_STORE_RQ()
    message.data_set = BytesIO()
    message.data_set.write(b"first ")
    bounds = Bounds(incoming(tmp_path), PACE)
    for fragment in (b"second ", b"third"):
        bounds.on_pdu(received(message))
        message.data_set.write(fragment)
    assert isinstance(message.data_set, IncomingDataSet)
    with message.data_set.incoming.reading() as stream:
        assert stream.read() == b"first second third"


@pytest.mark.parametrize("answered", [True, False])
def test_a_request_of_another_service_is_let_through_where_that_can_answer_it(tmp_path: Path, answered: bool) -> None:
    event = received(C_FIND_RQ())
    Bounds(incoming(tmp_path), PACE, lambda message: answered and message is event.message).on_message(event)
    assert ended(event) is not answered


def test_without_other_services_their_requests_end_the_association(tmp_path: Path) -> None:
    event = received(C_FIND_RQ())
    Bounds(incoming(tmp_path), PACE).on_message(event)
    assert ended(event)
