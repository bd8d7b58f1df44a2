"""C-STORE in the reading thread: the same commands as pynetdicom's, whatever the pieces they come in."""

from __future__ import annotations

import random
import ssl
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pynetdicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import Verification

from dicom_node.intake import inline
from dicom_node.intake.inline import announcement, response
from dicom_node.intake.storage import Announcement, Answer
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.peers import RunningReceiver, data_pdu, pdu, pdv, receiver
from support.raw_sender import P_DATA_TF, RawSender, store_request

uids = st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,20}){0,2}", fullmatch=True)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of the leading zeros
@given(uids, st.integers(0, 2), st.integers(0, 0xFFFF))
def test_a_request_is_read_as_pynetdicom_writes_it(instance: str, priority: int, message_id: int) -> None:
    read = announcement(
        memoryview(store_request(instance, priority, message_id)), MRImageStorage, ImplicitVRLittleEndian
    )
    assert read == Announcement(message_id, MRImageStorage, instance, priority, MRImageStorage, ImplicitVRLittleEndian)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(uids, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.text("abc XYZ.", max_size=64))
def test_an_answer_is_written_as_pynetdicom_reads_it(instance: str, message_id: int, status: int, comment: str) -> None:
    announced = Announcement(message_id, MRImageStorage, instance, 0, MRImageStorage, ImplicitVRLittleEndian)
    written = response(announced, Answer(status, comment))
    command = decode(BytesIO(written), True, True)
    assert command.CommandGroupLength == len(written) - 12
    message = C_STORE_RSP()
    message.command_set = command
    answer = message.message_to_primitive()
    assert (answer.MessageIDBeingRespondedTo, answer.Status) == (message_id, status)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (MRImageStorage, instance)
    assert str(answer.ErrorComment or "").strip() == comment.strip()


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300)
@given(st.data())
def test_a_damaged_request_is_left_to_pynetdicom_or_read_as_it_reads_it(data: st.DataObject) -> None:
    whole = bytearray(store_request("1.2.3.4"))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    read = announcement(memoryview(damaged), MRImageStorage, ImplicitVRLittleEndian)
    if read is None:
        return
    command = decode(BytesIO(damaged), True, True)
    assert command.CommandField == 1
    assert (command.MessageID, command.Priority) == (read.message_id, read.priority)
    assert (command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (read.sop_class_uid, read.sop_instance_uid)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    with receiver(tmp_path_factory.mktemp("node"), max_pdu_bytes=1 << 16, inline=True) as running:
        yield running


def image(size: int = 64) -> tuple[Dataset, bytes]:
    dataset = mr_slices(head_phantom(1, size, size), StudyFacts())[0]
    encoded = encode(dataset, True, True)
    assert encoded is not None
    return dataset, encoded


def stored(node: RunningReceiver, dataset: Dataset) -> bytes:
    """The data set's bytes in the spool."""
    (path,) = [
        path for path in node.spool.paths() if node.spool.read(path, 1 << 30).sop_instance_uid == dataset.SOPInstanceUID
    ]
    return (node.spool.folder / path).read_bytes()[1024:]


PIECES = {
    "all in one PDU": lambda command, data: pdu(P_DATA_TF, pdv(3, command) + pdv(2, data)),
    "half of the data with the command": lambda command, data: (
        pdu(P_DATA_TF, pdv(3, command) + pdv(0, data[:1000])) + data_pdu(2, data[1000:])
    ),
    "many values in a PDU": lambda command, data: (
        data_pdu(3, command)
        + pdu(P_DATA_TF, b"".join(pdv(0, data[n : n + 100]) for n in range(0, len(data), 100)) + pdv(2, b""))
    ),
    "a PDU for every few bytes": lambda command, data: (
        data_pdu(3, command)
        + b"".join(data_pdu(0, data[n : n + 50]) for n in range(0, len(data), 50))
        + data_pdu(2, b"")
    ),
    "a command in two pieces": lambda command, data: (
        data_pdu(1, command[:20]) + data_pdu(3, command[20:]) + data_pdu(2, data)
    ),
}


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("chunk", [1 << 20, 1000, 7])
def test_whatever_the_pieces_the_bytes_are_the_same(node: RunningReceiver, pieces: str, chunk: int) -> None:
    sender = RawSender(node.port)
    dataset, data = image(24)
    sent = PIECES[pieces](store_request(dataset.SOPInstanceUID, message_id=77), data)
    for place in range(0, len(sent), chunk):
        sender.connection.sendall(sent[place : place + chunk])
    answer = sender.answer()
    assert answer is not None
    assert (answer.Status, answer.MessageIDBeingRespondedTo) == (0, 77)
    assert stored(node, dataset) == data
    sender.release()


WRONG = {
    "another context": lambda data: data_pdu(2, data, context_id=3),
    "another command": lambda data: data_pdu(3, store_request("1.2.3")),
    "a value longer than its PDU": lambda data: pdu(P_DATA_TF, struct.pack(">LBB", 5000, 1, 2) + data[:10]),
    "a value without a header": lambda data: pdu(P_DATA_TF, struct.pack(">LB", 1, 1)),
    "more than the last value": lambda data: pdu(P_DATA_TF, pdv(2, data) + pdv(2, b"more")),
    "a PDU that declares too much": lambda data: struct.pack(">BxL", P_DATA_TF, 0xFFFFFFFF),
    "an unknown PDU": lambda data: pdu(0x09, b"what"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_must_not_follow_a_request_ends_the_association(node: RunningReceiver, wrong: str) -> None:
    before = len(list(node.spool.paths()))
    sender = RawSender(node.port)
    dataset, data = image(24)
    sender.connection.sendall(data_pdu(3, store_request(dataset.SOPInstanceUID)) + data_pdu(0, data[:500]))
    sender.connection.sendall(WRONG[wrong](data[500:]))
    assert sender.answer() is None
    sender.connection.close()
    assert len(list(node.spool.paths())) == before
    assert not list((node.spool.folder / ".incoming").iterdir())


def test_an_echo_between_two_images_is_pynetdicoms(node: RunningReceiver) -> None:
    sender = RawSender(node.port)
    echo = C_ECHO_RQ()
    primitive = C_ECHO()
    primitive.MessageID, primitive.AffectedSOPClassUID = 5, Verification
    echo.primitive_to_message(primitive)
    command = encode(echo.command_set, True, True)
    assert command is not None
    for number in range(2):
        dataset, data = image(24)
        sender.connection.sendall(
            data_pdu(3, store_request(dataset.SOPInstanceUID, message_id=number)) + data_pdu(2, data)
        )
        stored_it = sender.answer()
        sender.connection.sendall(data_pdu(3, command, context_id=3))
        echoed = sender.answer()
        assert stored_it is not None
        assert echoed is not None
        assert (stored_it.Status, stored_it.MessageIDBeingRespondedTo) == (0, number)
        assert (echoed.CommandField, echoed.Status, echoed.MessageIDBeingRespondedTo) == (0x8030, 0, 5)
    sender.release()


def store_one(node: RunningReceiver) -> None:
    """One image over an association of its own, from opening to release."""
    sender = RawSender(node.port)
    dataset, data = image(24)
    sender.connection.sendall(data_pdu(3, store_request(dataset.SOPInstanceUID)) + data_pdu(2, data))
    answer = sender.answer()
    assert answer is not None
    assert answer.Status == 0
    sender.release()
    assert stored(node, dataset) == data


def test_nothing_waits_for_the_next_look(node: RunningReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "LOOK_SECONDS", 3600.0)
    for _ in range(5):
        store_one(node)


def test_a_large_object_is_never_whole_in_memory(node: RunningReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.intake.incoming.IN_MEMORY_BYTES", 1 << 16)
    held: list[int] = []
    real = inline.Incoming.write

    def watch(self: inline.Incoming, fragment: bytes | memoryview) -> None:
        real(self, fragment)
        held.append(self._memory.getbuffer().nbytes)

    monkeypatch.setattr(inline.Incoming, "write", watch)
    dataset, data = image(1024)
    assert len(data) > 2_000_000
    sender = RawSender(node.port)
    sender.connection.sendall(data_pdu(3, store_request(dataset.SOPInstanceUID)))
    step = (1 << 16) - 6
    for place in range(0, len(data), step):
        sender.connection.sendall(data_pdu(0 if place + step < len(data) else 2, data[place : place + step]))
    answer = sender.answer()
    assert answer is not None
    assert answer.Status == 0
    assert stored(node, dataset) == data
    assert len(held) > 10
    assert max(held) <= 1 << 16
    sender.release()


def test_another_pynetdicom_is_left_to_its_own_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynetdicom, "__version__", "9.9")
    monkeypatch.setattr(inline.InlineProvider, "_take_data", lambda *_: pytest.fail("stored inline"))
    assert not inline.usable()
    with receiver(tmp_path, inline=True) as plain:
        store_one(plain)


def test_the_pinned_pynetdicom_is_the_one_that_this_was_written_for() -> None:
    assert inline.usable()


def test_noise_between_images_ends_one_association_and_no_other(node: RunningReceiver) -> None:
    draw = random.Random(3)
    steady = RawSender(node.port)
    for _ in range(6):
        noisy = RawSender(node.port)
        noisy.connection.sendall(data_pdu(draw.randrange(4), draw.randbytes(draw.randrange(1, 300))))
        noisy.connection.close()
    dataset, data = image(24)
    steady.connection.sendall(data_pdu(3, store_request(dataset.SOPInstanceUID)) + data_pdu(2, data))
    answer = steady.answer()
    assert answer is not None
    assert answer.Status == 0
    steady.release()


class Reluctant:
    """A connection that takes some bytes at once, or raises what says that it takes none."""

    def __init__(self, takes: int | type[OSError]) -> None:
        self.takes, self.waits, self.sent = takes, [0.0], b""

    def send(self, data: bytes) -> int:
        if self.waits[-1]:  # as AssociationSocket.send has it, which then waits
            self.sent += data
            return len(data)
        if not isinstance(self.takes, int):
            raise self.takes
        self.sent += data[: self.takes]
        return min(self.takes, len(data))

    def settimeout(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.mark.parametrize(
    ("takes", "waits"),
    [
        (100, []),
        (3, [5, 0]),
        (BlockingIOError, [5, 0]),
        (ssl.SSLWantWriteError, [5, 0]),
        (ssl.SSLWantReadError, [5, 0]),
    ],
)
def test_an_answer_goes_out_whole_whatever_the_connection_takes_at_once(
    takes: int | type[OSError], waits: list[float]
) -> None:
    connection = Reluctant(takes)
    provider = SimpleNamespace(_pdus=SimpleNamespace(seconds=5), socket=connection)
    inline.InlineProvider._send_answer(provider, connection, b"an answer")  # type: ignore[arg-type]
    assert (connection.sent, connection.waits[1:]) == (b"an answer", waits)


def test_a_connection_that_is_gone_is_said() -> None:
    provider = SimpleNamespace(_pdus=SimpleNamespace(seconds=5), socket=None)
    with pytest.raises(ConnectionResetError):
        inline.InlineProvider._send_answer(provider, Reluctant(ConnectionResetError), b"an answer")  # type: ignore[arg-type]
