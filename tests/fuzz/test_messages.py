"""Damaged HL7 v2 messages and MLLP frames: what the node takes, what it is answered, and the port they come to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.base.errors import NodeError
from dicom_node.base.hl7_settings import Hl7Destination, Hl7Listener
from dicom_node.worklist.hl7.acknowledgement import acknowledge, judge, read_answer
from dicom_node.worklist.hl7.encoding import CODECS
from dicom_node.worklist.hl7.framing import BlockReader, MessageTooLarge, WrongFraming, block
from dicom_node.worklist.hl7.header import read_header
from dicom_node.worklist.hl7.inbound import read_events
from dicom_node.worklist.hl7.listener import Hl7Receiver
from dicom_node.worklist.hl7.refusal import Refused
from dicom_node.worklist.hl7.sender import MllpSender
from support.fuzzing import damaged, examples, no_thread_dies
from support.hl7_messages import A08, A40, OMI, ORM, ORU, lines, msh
from support.hl7_peers import Desk, ScriptedPeer, ack

HANG_SECONDS = 30.0
PIECES = [
    b"|",
    b"^",
    b"~",
    b"&",
    b"\\",
    b"\r",
    b"\n",
    b"MSH|",
    b"PID|",
    b"OBX|",
    b'""',
    b"\\X0D\\",
    b"\\XFF\\",
    b"\\H\\",
    b"\x1b$B",
    b"\0",
]
WHOLE = [lines(*segments) for segments in (ORM, OMI, ORU, A08, A40)]


@st.composite
def messages(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Messages of which segments are missing, doubled, many or out of order, and bytes are damaged."""
    segments = draw(st.sampled_from(WHOLE)).split(b"\r")
    match draw(st.integers(0, 4)):
        case 0:
            del segments[draw(st.integers(0, len(segments) - 1))]
        case 1:
            segments[1:] = draw(st.permutations(segments[1:]))
        case 2:
            segments += segments[1:] * draw(st.integers(1, 40))
        case 3:
            at = draw(st.integers(0, len(segments) - 1))
            segments[at] += draw(st.sampled_from(PIECES)) * draw(st.sampled_from([1, 50, 5000]))
        case _:
            segments.insert(
                draw(st.integers(0, len(segments))), draw(st.sampled_from([b"", b"ZZZ|1", b"MSH|^~\\&", b"OB"]))
            )
    whole = b"\r".join(segments)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(whole)))
        whole = whole[:at] + draw(st.sampled_from(PIECES)) + whole[at:]
    return draw(damaged(whole, 4)) if draw(st.booleans()) else whole


@examples(26)
@given(messages() | st.binary(max_size=100), st.sampled_from(sorted(CODECS)))
def test_messages_that_come(raw: bytes, character_set: str) -> None:
    refusal = None
    try:
        read_events(raw, Hl7Listener(character_set=character_set))
    except Refused as refused:
        refusal = refused
    assert "Muster" not in str(refusal)
    header = None
    with suppress(Refused):
        header = read_header(raw)
    answer = acknowledge(header, refusal.code if refusal else "AA", refusal, "1", 0.0)
    block(answer)
    assert read_answer(answer) is not None


@examples(13)
@given(
    damaged(lines(msh("ACK"), "MSA|AA|K0001|words", "ERR|||207^Application internal error^HL70357|E")), st.booleans()
)
def test_answers_that_come(raw: bytes, asked: bool) -> None:
    answer = read_answer(raw)
    with suppress(NodeError):
        if answer is not None:
            judge(answer, "K0001", asked)


@examples(13)
@given(
    st.lists(
        st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"\n", b"x" * 100, b"\0"]) | st.binary(max_size=20),
        max_size=20,
    )
)
def test_frames(pieces: list[bytes]) -> None:
    reader = BlockReader(limit=1000)
    with suppress(WrongFraming, MessageTooLarge):
        for piece in pieces:
            reader.feed(piece)
            while (message := reader.next()) is not None:
                assert b"\x0b" not in message
                assert len(message) <= 1000


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[Hl7Receiver, Desk]]:
    desk = Desk()
    times = {"message_timeout_seconds": 2, "idle_timeout_seconds": 2, "max_message_bytes": 4096}
    with no_thread_dies():
        running = Hl7Receiver(Hl7Listener.model_validate(times), desk.handlers)
        running.start()
        yield running, desk
        running.stop()


@examples(13)
@given(
    st.lists(
        messages().map(lambda raw: b"\x0b" + raw + b"\x1c\r")
        | messages()
        | st.sampled_from([b"\x0b", b"\x1c\r", b"\r\n", b"\x0b" * 9]),
        max_size=4,
    )
)
def test_what_is_said_to_the_port(receiver: tuple[Hl7Receiver, Desk], said: list[bytes]) -> None:
    running, desk = receiver
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.settimeout(HANG_SECONDS)
        with suppress(OSError):
            connection.sendall(b"".join(said))
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
    until = time.monotonic() + HANG_SECONDS
    while any("process_request_thread" in one.name for one in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.001)
    assert not any("Muster" in words for words in desk.troubles)


def test_afterwards_the_port_answers(receiver: tuple[Hl7Receiver, Desk]) -> None:
    with socket.create_connection(("127.0.0.1", receiver[0].port)) as connection:
        connection.settimeout(HANG_SECONDS)
        connection.sendall(block(WHOLE[0]))
        assert b"MSA|AA" in connection.recv(1 << 16)


@examples(8)
@given(damaged(ack("AA")) | st.binary(max_size=100))
def test_what_a_ris_answers(answer: bytes) -> None:
    with ScriptedPeer(lambda _: answer) as peer:
        values = {"name": "ris", "kind": "hl7", "host": "127.0.0.1", "port": peer.port, "timeout_seconds": 0.3}
        sender = MllpSender(Hl7Destination.model_validate(values))
        with suppress(NodeError):
            sender.send(lines(msh("ORM^O01"), "PID|1"))
        sender.close()
