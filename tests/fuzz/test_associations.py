"""Damaged association requests, and whatever may be said within an association: the node ends it and lives on.

The oracle, after each input: the connection was ended in time, no thread of the node died or stayed, the log quotes
nothing, and the spool holds what was acknowledged and nothing else.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.dul import DULServiceProvider

from dicom_node.base.config import configuration_from
from dicom_node.base.events import configure_logging
from dicom_node.intake.presentation import VERIFICATION
from dicom_node.intake.spool import INCOMING
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.dicom.modality_worklist import MODALITY_WORKLIST
from dicom_node.worklist.dicom.services import services_of
from dicom_node.worklist.dicom.ups_provider import OFFERED
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.fuzzing import damaged, examples, no_thread_dies
from support.logs import default_logging_afterwards
from support.peers import (
    AE_TITLE,
    RunningReceiver,
    configuration_for,
    data_pdu,
    free_port,
    pdu,
    pdv,
    read_pdu,
    receiver,
    wait_until,
)
from support.raw_sender import RawSender, store_request

HANG_SECONDS = 30.0  # only so that a node that hangs is found
SECRET = "Geheim"
IMPLICIT, EXPLICIT = str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian)
CONTEXTS = [
    (VERIFICATION, IMPLICIT),
    (str(MRImageStorage), IMPLICIT),
    (MODALITY_WORKLIST, IMPLICIT),
    (OFFERED[0], EXPLICIT),
]
A_ASSOCIATE_AC, P_DATA_TF, A_RELEASE_RQ, A_ABORT = 0x02, 0x04, 0x05, 0x07
#: PS3.7 E.1: every command, and some that are none.
COMMANDS = [
    *(0x0001, 0x8001, 0x0010, 0x8010, 0x0020, 0x8020, 0x0021, 0x8021, 0x0030, 0x8030, 0x0FFF),
    *(0x0100, 0x8100, 0x0110, 0x8110, 0x0120, 0x8120, 0x0130, 0x8130, 0x0140, 0x8140, 0x0150, 0x8150),
    *(0x0000, 0x0002, 0x7FFF, 0xFFFF),
]


@dataclass
class Fuzzed:
    """A node in this process, and how many of its threads there were before anybody came."""

    node: RunningReceiver
    log: Path
    read: int = 0

    def new_lines(self) -> list[dict[str, Any]]:
        text = self.log.read_text()[self.read :]
        text = text[: text.rfind("\n") + 1]  # a line that is being written may be there in part
        self.read += len(text)
        assert SECRET not in text
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def fuzzed(storing: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("node")
    times = {"acse_timeout_seconds": 2, "dimse_timeout_seconds": 2, "idle_timeout_seconds": 2}
    configuration = configuration_for(folder, free_port(), **times)
    registry = Registry(configuration.node.database_url)
    services = services_of(configuration_from({}, folder), registry)
    log = folder / "log"
    with (
        log.open("w", buffering=1) as output,
        pytest.MonkeyPatch.context() as patch,
        no_thread_dies(),
        default_logging_afterwards(),
    ):
        patch.setattr("sys.stderr", output)
        configure_logging("info")
        with receiver(configuration, registry, services) as node:
            yield Fuzzed(node, log)


def spoken(port: int, data: bytes, *, pieces: int = 0, opening: bytes = b"") -> list[tuple[int, bytes]]:
    """Say that, then nothing more; the PDUs of the answer. Fails where the node does not end the connection.

    opening: an association request, which is accepted first.
    """
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(HANG_SECONDS)
        if opening:
            connection.sendall(opening)
            accepted = read_pdu(connection)
            assert accepted is not None, threads()
            assert accepted[0] == A_ASSOCIATE_AC
        with suppress(OSError):  # it was ended before all was said
            for begin in range(0, len(data), pieces or len(data) or 1):
                connection.sendall(data[begin : begin + (pieces or len(data))])
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                answer += part
    return list(cut(answer))


def cut(answer: bytes) -> Iterator[tuple[int, bytes]]:
    while len(answer) >= 6:
        kind, length = struct.unpack_from(">BxL", answer)
        yield kind, answer[6 : 6 + length]
        answer = answer[6 + length :]


def threads() -> list[threading.Thread]:
    """Those of associations."""
    return [one for one in threading.enumerate() if isinstance(one, Association | DULServiceProvider)]


def left_alone(fuzzed: Fuzzed, answers: list[tuple[int, bytes]]) -> None:
    """The node is as it was before, and says so."""
    coming = fuzzed.node.spool.folder / INCOMING
    until = time.monotonic() + HANG_SECONDS
    while threads() or list(coming.iterdir()):
        assert time.monotonic() < until, (threads(), list(coming.iterdir()))
        time.sleep(0.001)
    fuzzed.new_lines()


# PS3.8 9.3.2 and annex D


def item(kind: int, body: bytes, lie: int = 0) -> bytes:
    return struct.pack(">BBH", kind, 0, (len(body) + lie) & 0xFFFF) + body


lies = st.sampled_from([0] * 20 + [1, -1, 2, 0x7FFF, -5])
uids = st.sampled_from(
    [
        b"",
        b"1.2.840.10008.1.1",
        b"1.2.840.10008.1.2",
        b"1.2.840.10008.5.1.4.1.1.4",
        b"1" * 65,
        b"Geheim",
        b"\0",
        b"1.2\0",
        b"\xff" * 4,
    ]
)
short = st.binary(max_size=12)


@st.composite
def user_items(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Sub-items of the user information: PS3.8 D.1, PS3.7 D.3.3."""
    uid = draw(uids)
    body = {
        0x51: draw(
            st.sampled_from([struct.pack(">L", size) for size in (0, 1, 6, 1024, 16384, 0xFFFFFFFF)] + [b"", b"\0"])
        ),
        0x52: uid,
        0x53: struct.pack(">HH", draw(st.integers(0, 0xFFFF)), draw(st.integers(0, 0xFFFF))),
        0x54: struct.pack(">H", len(uid)) + uid + draw(short),
        0x55: draw(short),
        0x56: struct.pack(">H", len(uid)) + uid + draw(short),
        0x57: struct.pack(">H", len(uid)) + uid + struct.pack(">H", draw(st.integers(0, 99))) + draw(short),
        0x58: bytes([draw(st.integers(0, 6)), 1]) + struct.pack(">H", 6) + SECRET.encode() + draw(short),
        0x59: struct.pack(">H", 2) + draw(short),
        0x77: draw(short),
    }
    kind = draw(st.sampled_from(list(body)))
    return item(kind, body[kind], draw(lies))


@st.composite
def context_items(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    syntaxes = item(draw(st.sampled_from([0x30] * 9 + [0x40, 0x77])), draw(uids), draw(lies))
    for _ in range(draw(st.integers(0, 3))):
        syntaxes += item(draw(st.sampled_from([0x40] * 9 + [0x30, 0x77])), draw(uids), draw(lies))
    number = draw(st.integers(0, 255) | st.sampled_from([1, 3, 5]))
    body = bytes([number, 0, draw(st.integers(0, 4)), 0]) + syntaxes
    return item(draw(st.sampled_from([0x20] * 9 + [0x21])), body, draw(lies))


@st.composite
def requests(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Association requests, of which some are even right."""
    title = st.sampled_from(
        [AE_TITLE.encode().ljust(16), b"FUZZ".ljust(16), b" " * 16, b"\0" * 16, b"\xff" * 16, b"A\\B".ljust(16)]
    )
    called = draw(st.sampled_from([AE_TITLE.encode().ljust(16)] * 5) | title)
    items = [item(0x10, draw(st.sampled_from([b"1.2.840.10008.3.1.1.1"] * 5) | uids), draw(lies))]
    items += draw(st.lists(context_items(), max_size=5)) * draw(st.sampled_from([1] * 9 + [200, 3000]))
    users = draw(st.lists(user_items(), max_size=5))
    items.append(item(0x50, b"".join(users) * draw(st.sampled_from([1] * 9 + [100])), draw(lies)))
    if draw(st.integers(0, 9)) == 0:
        items = draw(st.permutations(items)) if len(items) < 10 else items[::-1]
    version = draw(st.sampled_from([1] * 9 + [0, 2, 0xFFFF]))
    body = struct.pack(">HH", version, 0) + called + draw(title) + bytes(32) + b"".join(items)
    return struct.pack(">BBL", 1, 0, max(len(body) + draw(lies), 0)) + body


def request(*contexts: tuple[str, str]) -> bytes:
    """A right one, of the contexts 1, 3, 5 …"""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for index, (abstract, transfer) in enumerate(contexts):
        items += item(
            0x20, bytes([2 * index + 1, 0, 0, 0]) + item(0x30, abstract.encode()) + item(0x40, transfer.encode())
        )
    items += item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    return pdu(1, struct.pack(">HH", 1, 0) + AE_TITLE.ljust(16).encode() + b"FUZZ".ljust(16) + bytes(32) + items)


@examples(10)
@given(requests())
def test_association_requests(fuzzed: Fuzzed, data: bytes) -> None:
    left_alone(fuzzed, spoken(fuzzed.node.port, data))


@examples(6)
@given(damaged(request(*CONTEXTS)), st.integers(0, 60))
def test_damaged_association_requests(fuzzed: Fuzzed, data: bytes, pieces: int) -> None:
    left_alone(fuzzed, spoken(fuzzed.node.port, data, pieces=pieces))


# PS3.7 annex E and PS3.8 annex E


@cache
def image() -> tuple[str, bytes]:
    dataset = mr_slices(head_phantom(1, 16, 16), StudyFacts(patient_name=f"{SECRET}^Name"))[0]
    data = encode(dataset, True, True)
    assert data is not None
    return str(dataset.SOPInstanceUID), data


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


@st.composite
def command_sets(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """A command set, complete or not, in order or not, now and then damaged."""
    number = st.sampled_from([0, 1, 2, 7, 0x0101, 0xFFFF])
    instance = image()[0].encode()
    sop_class = draw(
        st.sampled_from([VERIFICATION, str(MRImageStorage), MODALITY_WORKLIST, OFFERED[0], "1.2.3", "", SECRET])
    ).encode()
    uid = draw(st.sampled_from([instance, instance, b"1.2.3", b"", SECRET.encode(), b"1" * 70]))
    values = {
        0x0002: sop_class,
        0x0003: sop_class,
        0x0100: struct.pack("<H", draw(st.sampled_from(COMMANDS))),
        0x0110: struct.pack("<H", draw(number)),
        0x0120: struct.pack("<H", draw(number)),
        0x0600: b"FUZZ",
        0x0700: struct.pack("<H", draw(number)),
        0x0800: struct.pack("<H", draw(st.sampled_from([0, 1, 0x0101, 0x0101]))),
        0x0900: struct.pack("<H", draw(number)),
        0x1000: uid,
        0x1001: uid,
        0x1002: struct.pack("<H", draw(number)),
        0x1005: draw(short),
        0x1008: struct.pack("<H", draw(number)),
        0x1020: struct.pack("<H", draw(number)),
    }
    missing = draw(st.sets(st.sampled_from(sorted(values)), max_size=4))
    if draw(st.booleans()):
        missing -= {0x0100, 0x0110, 0x0700, 0x0800}
    body = b"".join(element(one, values[one] + b"\0" * (len(values[one]) % 2)) for one in values if one not in missing)
    whole = element(0, struct.pack("<L", len(body))) + body
    return draw(damaged(whole, 3)) if draw(st.integers(0, 4)) == 0 else whole


@st.composite
def data_sets(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    whole = draw(
        st.sampled_from([image()[1]] * 3 + [b"", bytes(50), b"\x08\0\x05\0\xff\xff\xff\xff", image()[1][:300]])
    )
    return draw(damaged(whole, 3)) if draw(st.booleans()) else whole


@st.composite
def messages(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """A message's fragments: of any size, one or several to a PDU, marked last or not, of this context or another."""
    number = draw(st.sampled_from([1, 3, 5, 7]))
    other = st.sampled_from([number] * 19 + [9, 0, 255])
    marks = st.sampled_from([None] * 19 + [0, 1, 2, 3, 0xFF])
    values: list[bytes] = []
    for kind, data in ((1, draw(command_sets())), (0, draw(data_sets()))):
        if kind == 0 and draw(st.integers(0, 2)) == 0:
            continue
        size = draw(st.sampled_from([1 << 20, 1 << 20, 100, 500]))
        pieces = [data[begin : begin + size] for begin in range(0, len(data), size)] or [b""]
        for index, piece in enumerate(pieces):
            mark = draw(marks)
            mark = kind | (2 if index == len(pieces) - 1 else 0) if mark is None else mark
            value = pdv(mark, piece, draw(other))
            lie = draw(lies)
            values.append(
                struct.pack(">L", max(struct.unpack_from(">L", value)[0] + lie, 0)) + value[4:] if lie else value
            )
    if draw(st.integers(0, 9)) == 0 and len(values) < 20:
        values = draw(st.permutations(values))
    if draw(st.integers(0, 3)) == 0:
        return pdu(P_DATA_TF, b"".join(values))
    return b"".join(pdu(P_DATA_TF, value) for value in values)


#: Everything else that PS3.8 knows, where the state machine does not await it.
out_of_turn = st.sampled_from(
    [
        request(*CONTEXTS),
        pdu(0x02, bytes(68)),
        pdu(0x03, bytes(4)),
        pdu(P_DATA_TF, b""),
        pdu(P_DATA_TF, struct.pack(">LBB", 2, 1, 3)),
        pdu(P_DATA_TF, struct.pack(">L", 1) + b"\1"),
        pdu(A_RELEASE_RQ, bytes(4)),
        pdu(A_RELEASE_RQ, b""),
        pdu(0x06, bytes(4)),
        pdu(A_ABORT, bytes(4)),
        pdu(A_ABORT, b"\0\0\5\xff"),
        pdu(A_ABORT, b""),
        pdu(0x08, b"what"),
        struct.pack(">BxL", 4, 0xFFFFFFFF),
        struct.pack(">BxL", 4, 100) + b"x",
        b"\4",
    ]
)


@examples(15)
@given(st.lists(messages() | messages() | out_of_turn, min_size=1, max_size=4), st.booleans())
def test_what_is_said_within_an_association(fuzzed: Fuzzed, said: list[bytes], release: bool) -> None:
    end = pdu(A_RELEASE_RQ, bytes(4)) if release else b""
    left_alone(fuzzed, spoken(fuzzed.node.port, b"".join(said) + end, opening=request(*CONTEXTS)))


@examples(6)
@given(st.lists(messages(), min_size=1, max_size=3).map(b"".join).flatmap(damaged), st.integers(0, 700))
def test_damaged_messages(fuzzed: Fuzzed, said: bytes, pieces: int) -> None:
    left_alone(fuzzed, spoken(fuzzed.node.port, said, pieces=max(pieces, len(said) // 50), opening=request(*CONTEXTS)))


def test_afterwards_the_node_serves_the_next_peer_and_keeps_what_it_acknowledged(fuzzed: Fuzzed) -> None:
    dataset = mr_slices(head_phantom(1, 16, 16), StudyFacts())[0]
    data = encode(dataset, True, True)
    assert data is not None
    with RawSender(fuzzed.node.port) as sender:
        sender.connection.sendall(data_pdu(3, store_request(dataset.SOPInstanceUID)) + data_pdu(2, data))
        answer = sender.answer()
        sender.release()
    assert answer is not None
    assert answer.Status == 0
    wait_until(lambda: str(dataset.SOPInstanceUID) in {row.sop_instance_uid for row in fuzzed.node.rows()})
    files = [path for path in fuzzed.node.spool.folder.rglob("*") if path.is_file()]
    assert sum(fuzzed.node.standings().values()) == len(files)
