"""What many connections, slow senders, large objects and hostile headers may cost: places, memory, disk.

Bounds are counts and megabytes of a receiver in a process of its own, watched from outside.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicom_node.base.config import Configuration
from dicom_node.intake.spool import INCOMING
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.peers import (
    associate_request,
    configuration_for,
    data_pdu,
    free_port,
    pdu,
    read_pdu,
    read_rows,
    receiver,
    receiver_process,
    wait_until,
)
from support.raw_sender import RawSender, store_request

both_ways = pytest.mark.usefixtures("storing")

A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_RELEASE_RQ = 0x02, 0x03, 0x05
LOCAL_LIMIT = (0x02, 0x03, 0x02)  # PS3.8 table 9-21: transient, presentation, local limit exceeded
OUT_OF_RESOURCES = 0xA700


@dataclass(frozen=True)
class Watched:
    """A receiver in a process of its own."""

    pid: int
    port: int
    configuration: Configuration

    def figure(self, name: str) -> int:
        """A line of /proc/PID/status: memory in kB, or a count."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    @property
    def megabytes(self) -> int:
        """The most memory that it ever had."""
        return self.figure("VmHWM") // 1024

    def stored(self) -> int:
        return len(read_rows(self.configuration))


@contextmanager
def watched(folder: Path, **intake: object) -> Iterator[Watched]:
    configuration = configuration_for(folder, free_port(), **intake)
    with receiver_process(folder, configuration, **intake) as process:
        yield Watched(process.pid, configuration.node.port, configuration)


def image(size: int = 512) -> tuple[str, bytes]:
    """An instance and its data set of so many bytes, and a few."""
    dataset = mr_slices(head_phantom(1, 16, 16), StudyFacts())[0]
    dataset.PixelData = bytes(size)
    data = encode(dataset, True, True)
    assert data is not None
    return str(dataset.SOPInstanceUID), data


def store(sender: RawSender, uid: str, data: bytes, size: int = 100_000) -> int | None:
    """The status; None once the association is ended."""
    begin(sender, uid, data, size)
    sender.connection.sendall(data_pdu(2, b""))
    answer = sender.answer()
    return None if answer is None else int(answer.Status)


def begin(sender: RawSender, uid: str, data: bytes, size: int = 100_000) -> None:
    """All of a C-STORE but its end."""
    fragments = [data[at : at + size] for at in range(0, len(data), size)]
    sender.connection.sendall(data_pdu(3, store_request(uid)) + b"".join(data_pdu(0, one) for one in fragments))


def stores_images(port: int, count: int = 5, calling: str = "RAW") -> bool:
    with RawSender(port, calling=calling) as sender:
        done = all(store(sender, *image()) == 0 for _ in range(count))
        sender.release()
    return done


def connected(port: int, source: str = "127.0.0.2", said: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    connection.sendall(said)
    return connection


REQUEST = associate_request()
FLOODS = {
    "idle": b"",
    "half a request": REQUEST[:50],
    "refused and stays": associate_request(called="ANOTHER"),
    "invalid and stays": pdu(0x01, bytes(300)),
    "probe": b"GET / HTTP/1.1\r\n\r\n",
}


def test_floods_of_connections_keep_nobody_out_and_cost_few_threads(tmp_path: Path) -> None:
    with watched(tmp_path, acse_timeout_seconds=5) as node:
        assert stores_images(node.port)
        before = node.megabytes
        for said in FLOODS.values():
            with ExitStack() as flood:
                for number in range(1000 if not said else 70):
                    flood.enter_context(connected(node.port, said=said))
                    if number % 200 == 199:
                        assert stores_images(node.port, 1)
                assert stores_images(node.port)
                # Of those that were refused, a quarter of 128 places, two threads each, and those on their way out.
                assert node.figure("Threads") < 10 + 2 * (32 + 32 + 1)
        assert node.megabytes - before < 100
        wait_until(lambda: node.stored() >= 5 * 6, "the rows of all images")


def test_an_address_that_floods_does_not_take_its_own_way_out(tmp_path: Path) -> None:
    with watched(tmp_path) as node, ExitStack() as flood:
        for _ in range(300):
            flood.enter_context(connected(node.port, "127.0.0.1"))
        assert stores_images(node.port)


def rejection(port: int, calling: str) -> tuple[int, ...] | None:
    """Result, source and reason of an A-ASSOCIATE-RJ; None where it was accepted."""
    with connected(port, "127.0.0.1", associate_request(calling)) as connection:
        answer = read_pdu(connection)
        assert answer is not None
        connection.sendall(pdu(A_RELEASE_RQ, bytes(4)))
        return tuple(answer[1][1:4]) if answer[0] == A_ASSOCIATE_RJ else None


def test_one_ae_title_does_not_get_all_associations(tmp_path: Path) -> None:
    with (
        receiver(tmp_path, max_associations=4, max_associations_of_one=2) as node,
        RawSender(node.port, calling="ONE"),
        RawSender(node.port, calling="ONE") as second,
    ):
        assert rejection(node.port, "ONE") == LOCAL_LIMIT
        assert rejection(node.port, "OTHER") is None
        second.release()
        wait_until(lambda: rejection(node.port, "ONE") is None)


@both_ways
def test_what_is_on_its_way_is_bounded_for_all_and_for_one_sender(tmp_path: Path) -> None:
    five, eight = 5 << 20, 8 << 20
    (uid, first), (other_uid, second) = image(five), image(five)
    with receiver(tmp_path, max_object_bytes=eight, max_incoming_bytes=2 * eight) as node:
        coming = node.spool.folder / INCOMING
        with RawSender(node.port, calling="ONE") as one, RawSender(node.port, calling="ONE") as again:
            begin(one, uid, first)
            wait_until(lambda: any(path.stat().st_size >= five for path in coming.iterdir()))
            assert store(again, other_uid, second) == OUT_OF_RESOURCES
            with RawSender(node.port, calling="TWO") as two:
                assert store(two, *image(five)) == 0
            one.connection.sendall(data_pdu(2, b""))
            answer = one.answer()
            assert answer is not None
            assert answer.Status == 0
            assert store(again, other_uid, second) == 0  # as its sender will try later
            begin(one, *image(five))  # and is gone
            wait_until(lambda: any(path.stat().st_size >= five for path in coming.iterdir()))
            one.connection.close()
            wait_until(lambda: not list(coming.iterdir()))
            assert store(again, *image(five)) == 0
        assert set(node.standings(after=3)) == {"current"}


@both_ways
@pytest.mark.parametrize("fragment", [b"\0", b""])
def test_an_object_that_drips_ends_its_association(tmp_path: Path, fragment: bytes) -> None:
    with receiver(tmp_path, dimse_timeout_seconds=0.3) as node:
        with RawSender(node.port) as sender:
            begin(sender, *image())
            with suppress(ConnectionError):
                while not gone(sender.connection):  # each PDU whole and in time
                    sender.connection.sendall(data_pdu(0, fragment))
                    time.sleep(0.02)
        assert node.standings() == {}
        assert [path for path in node.spool.folder.rglob("*") if path.is_file()] == []


def test_a_command_that_drips_ends_its_association(tmp_path: Path) -> None:
    with receiver(tmp_path, dimse_timeout_seconds=0.3) as node:
        with RawSender(node.port) as sender, suppress(ConnectionError):
            while not gone(sender.connection):
                sender.connection.sendall(data_pdu(1, b"\0"))
                time.sleep(0.02)
        assert node.standings() == {}


def gone(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1000) is not None
    except BlockingIOError:
        return False
    finally:
        connection.setblocking(True)


@both_ways
def test_a_slow_sender_is_borne(tmp_path: Path) -> None:
    uid, data = image(8000)
    with (
        receiver(tmp_path, dimse_timeout_seconds=0.2, least_bytes_per_second=1000) as node,
        RawSender(node.port) as sender,
    ):
        begin(sender, uid, data[:1000])
        for at in range(1000, len(data), 1000):
            sender.connection.sendall(data_pdu(0, data[at : at + 1000]))
            time.sleep(0.05)
        sender.connection.sendall(data_pdu(2, b""))
        answer = sender.answer()
        assert answer is not None
        assert answer.Status == 0
        sender.release()


def empty_items() -> bytes:
    """Four megabytes of sequence items without anything in them, before the UIDs: each costs a parser a kilobyte."""
    return struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (1 << 19)


def bomb() -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return b"".join([*(deflater.compress(bytes(1 << 20)) for _ in range(200)), deflater.flush()])


HOSTILE = {
    "empty items": empty_items(),
    "four gigabytes declared": struct.pack("<HHL", 8, 8, 0xFFFFFFFE) + bytes(1 << 20),
    "large": bytes(12 << 20),
}


def test_hostile_objects_at_once_cost_the_receiver_a_bounded_amount_of_memory(tmp_path: Path) -> None:
    intake = {"max_associations": 16, "max_object_bytes": 64 << 20, "dimse_timeout_seconds": 60}
    with watched(tmp_path, **intake) as node:
        assert stores_images(node.port)
        before = node.megabytes
        for data in HOSTILE.values():
            at_once(node, 5, data)
        at_once(node, 1, bomb(), str(DeflatedExplicitVRLittleEndian))
        assert stores_images(node.port)
        assert node.megabytes - before < 300


def at_once(node: Watched, count: int, data: bytes, syntax: str = "1.2.840.10008.1.2") -> None:
    """So many associations send the same, and wait for each other before its last fragment."""
    together = threading.Barrier(count)
    statuses: list[int | None] = []

    def send(number: int) -> None:
        with RawSender(node.port, calling="ONE", syntax=syntax) as sender:
            begin(sender, f"1.2.{number}", data)
            together.wait()
            sender.connection.sendall(data_pdu(2, b""))
            answer = sender.answer()
            statuses.append(None if answer is None else int(answer.Status))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == count
    assert 0 not in statuses
