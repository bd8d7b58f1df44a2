"""The HL7 receiver over real sockets, driven by python-hl7's own client and by peers that behave badly.

Does not cover the registry: a desk in memory stands for it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hl7.client import MLLPClient  # type: ignore[import-untyped]

from dicom_node.base.errors import PermanentError, RetriableError
from dicom_node.base.hl7_settings import Hl7Listener
from dicom_node.base.orders import FinalReport, OrderReceived, PatientsMerged
from dicom_node.base.tls import ServerTls
from dicom_node.worklist.hl7.acknowledgement import Answer, read_answer
from dicom_node.worklist.hl7.framing import BlockReader, block
from dicom_node.worklist.hl7.listener import Hl7Receiver, Stored
from dicom_node.worklist.hl7.messages import build
from dicom_node.worklist.hl7.refusal import Condition, Refused
from dicom_node.worklist.hl7.sender import MllpSender
from support.hl7_messages import A40, ORM, ORU, change, destination, lines, msh
from support.hl7_peers import Desk, certificate
from support.peers import wait_until

Start = Callable[..., Hl7Receiver]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def start(desk: Desk) -> Iterator[Start]:
    running: list[Hl7Receiver] = []

    def run(**values: Any) -> Hl7Receiver:
        receiver = Hl7Receiver(Hl7Listener(**values), desk.handlers)
        receiver.start()
        running.append(receiver)
        return receiver

    yield run
    for receiver in running:
        receiver.stop()


class Peer:
    """A plain socket that writes bytes and reads answers."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> None:
        plain = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
        self.socket = context.wrap_socket(plain, server_hostname="node") if context else plain
        self._reader = BlockReader(1 << 20)

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> Answer | None:
        """The next answer; None when the connection ended instead."""
        while (raw := self._reader.next()) is None:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._reader.feed(data)
        answer = read_answer(raw)
        assert answer is not None
        return answer

    def ask(self, *segments: str) -> Answer | None:
        self.write(block(lines(*segments)))
        return self.answer()


def test_an_independent_client_is_answered_only_when_stored_and_applied(start: Start, desk: Desk) -> None:
    with MLLPClient("127.0.0.1", start().port) as client:
        for segments in (ORM, ORU, A40):
            answer = read_answer(client.send_message(lines(*segments)).strip(b"\x0b\x1c\r"))
            assert answer == Answer("AA", "M1", "")
    assert [type(event) for event in desk.events] == [OrderReceived, FinalReport, PatientsMerged]
    assert desk.stored == [lines(*segments) for segments in (ORM, ORU, A40)]


def test_the_mllp_send_command(start: Start, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "orm.hl7").write_bytes(block(lines(*ORM)))
    command = [
        sys.executable,
        "-m",
        "hl7.client",
        "-p",
        str(start().port),
        "-f",
        str(tmp_path / "orm.hl7"),
        "127.0.0.1",
    ]
    assert b"MSA|AA|M1" in subprocess.run(command, capture_output=True, check=True).stdout
    assert len(desk.events) == 1


def test_our_own_sender_and_receiver_understand_each_other(start: Start, desk: Desk) -> None:
    receiver = start()
    peer = MllpSender(destination(port=receiver.port))
    peer.send(build(change(), destination()))
    peer.send(build(change(key="K2"), destination(message="OMI")))
    asked = destination(accept_acknowledgment="AL", application_acknowledgment="AL")
    peer.send(build(change(key="K3"), asked))
    peer.close()
    assert len(desk.events) == 3


@pytest.mark.parametrize(
    ("segments", "answer"),
    [
        ((msh("ORM^O01"), "ORC|NW|P1"), Answer("AE", "M1", "100")),
        ((msh("ORM^O01"), "PID|1", "ORC|NW|P1"), Answer("AE", "M1", "101")),
        ((msh("ADT^A01"), *ORM[1:]), Answer("AR", "M1", "201")),
        ((msh("ORM^O01", control_id=""), *ORM[1:]), Answer("AE", "", "101")),
        ((msh("ORM^O01", f18="KLINGON"), *ORM[1:]), Answer("AE", "M1", "103")),
        ((*ORM[:-1], "ZDS|ä"), Answer("AE", "M1", "102")),
        (("hello",), Answer("AE", "", "100")),
        (("",), Answer("AE", "", "100")),
    ],
)
def test_what_is_malformed_is_kept_and_answered_with_the_reason(
    start: Start, desk: Desk, segments: tuple[str, ...], answer: Answer
) -> None:
    peer = Peer(start().port)
    assert peer.ask(*segments) == answer
    assert desk.stored == [lines(*segments)]
    assert [str(refusal.condition.value) for refusal in desk.refusals] == [answer.condition]
    assert desk.events == []
    assert peer.ask(*ORM) == Answer("AA", "M1", "")


def test_what_the_node_cannot_use_is_refused_in_its_words(start: Start, desk: Desk) -> None:
    peer = Peer(start().port)
    desk.refuse = Refused(Condition.UNKNOWN_KEY_IDENTIFIER, "no such patient")
    assert peer.ask(*A40) == Answer("AE", "M1", "204")
    desk.refuse = PermanentError("two studies have this accession number")
    assert peer.ask(*ORM) == Answer("AE", "M1", "207")
    assert [str(refusal) for refusal in desk.refusals] == ["no such patient", "two studies have this accession number"]


@pytest.mark.parametrize("error", [RetriableError("database away"), RuntimeError("patient Muster")])
@pytest.mark.parametrize("where", ["down", "refuse"])
def test_what_cannot_be_stored_or_applied_now_is_not_answered(
    start: Start, desk: Desk, error: Exception, where: str
) -> None:
    receiver = start()
    setattr(desk, where, error)
    assert Peer(receiver.port).ask(*ORM) is None
    setattr(desk, where, None)
    assert Peer(receiver.port).ask(*ORM) == Answer("AA", "M1", "")
    assert len(desk.events) == 1
    assert len(desk.troubles) == 1
    assert "Muster" not in desk.troubles[0]


def test_the_same_message_again_is_answered_again_and_harmless(start: Start, desk: Desk) -> None:
    peer = Peer(start().port)
    assert [peer.ask(*ORM) for _ in range(3)] == [Answer("AA", "M1", "")] * 3
    assert len(desk.events) == 1


def test_enhanced_mode_gets_a_commit_and_an_application_answer(start: Start) -> None:
    peer = Peer(start().port)
    assert peer.ask(msh("ORM^O01", f15="AL", f16="AL"), *ORM[1:]) == Answer("CA", "M1", "")
    assert peer.answer() == Answer("AA", "M1", "")
    assert peer.ask(msh("ORM^O01", f15="AL", f16="NE"), "ORC|NW|P1") == Answer("CE", "M1", "100")


def test_messages_that_come_at_once_are_answered_in_order(start: Start) -> None:
    peer = Peer(start().port)
    peer.write(b"".join(block(lines(msh("ORM^O01", control_id=f"M{n}"), *ORM[1:])) for n in range(5)))
    assert [peer.answer() for _ in range(5)] == [Answer("AA", f"M{n}", "") for n in range(5)]


def test_a_message_of_five_megabytes(start: Start, desk: Desk) -> None:
    peer = Peer(start().port)
    row = "OBX|3|TX|||" + "normal " * 10_000 + "||||||F"
    report = (*ORU, *[row] * (5_000_000 // len(row)))
    assert peer.ask(*report) == Answer("AA", "M1", "")
    (event,) = desk.events
    assert isinstance(event, FinalReport)
    assert len(event.text) > 4_900_000


@pytest.mark.parametrize("size", [(5 << 20) + 1, 40 << 20])
def test_a_longer_one_is_refused_and_the_connection_ends(start: Start, desk: Desk, size: int) -> None:
    peer = Peer(start().port)
    head = lines(*ORU)
    peer.write(block(head + b"Z" * (size - len(head))))
    assert peer.answer() == Answer("AE", "M1", "207")
    assert peer.answer() is None
    assert desk.stored == []
    assert "longer than" in desk.troubles[0]


@pytest.mark.parametrize(
    "data",
    [lines(*ORM), block(lines(*ORM))[:-2] + block(lines(*ORM)), b"\x0bMSH|\x1c\x1c\r", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_wrong_framing_ends_the_connection_and_nothing_else(start: Start, desk: Desk, data: bytes) -> None:
    receiver = start()
    peer = Peer(receiver.port)
    peer.write(data)
    assert peer.answer() is None
    assert desk.stored == desk.events == []
    assert Peer(receiver.port).ask(*ORM) == Answer("AA", "M1", "")


def test_a_connection_that_ends_inside_a_message_stores_nothing(start: Start, desk: Desk) -> None:
    peer = Peer(start().port)
    peer.write(block(lines(*ORM))[:-1])
    peer.socket.close()
    wait_until(lambda: desk.troubles == ["the connection ended inside a message"])
    assert desk.stored == []


def test_a_peer_that_drips_or_says_nothing_is_hung_up_on(start: Start, desk: Desk) -> None:
    slow = Peer(start(message_timeout_seconds=0.2).port)
    slow.write(b"\x0bMSH")
    assert slow.answer() is None
    silent = Peer(start(idle_timeout_seconds=0.2).port)
    assert silent.answer() is None
    assert desk.troubles == ["nothing came in time"] * 2


def test_only_peers_that_are_named_may_connect(start: Start, desk: Desk) -> None:
    assert Peer(start(peers=("192.0.2.7",)).port).answer() is None
    assert desk.troubles == ["not one of the peers that may connect"]
    assert Peer(start(peers=("192.0.2.7", "127.0.0.1")).port).ask(*ORM) == Answer("AA", "M1", "")
    assert Peer(start(peers=("::ffff:127.0.0.1",)).port).ask(*ORM) == Answer("AA", "M1", "")


DONE = Answer("AA", "M1", "")


def used(receiver: Hl7Receiver, *peers: Peer) -> None:
    """Each asks once and is idle again before the next one asks."""
    for peer in peers:
        assert peer.ask(*ORM) == DONE
        wait_until(lambda: all(place.idle_since is not None for place in receiver._places.values()))


def test_when_all_places_are_taken_the_connection_that_is_idle_for_longest_makes_room(start: Start, desk: Desk) -> None:
    receiver = start(max_connections=3)
    first, second, third = (Peer(receiver.port) for _ in range(3))
    used(receiver, first, second, third, first)
    assert Peer(receiver.port).ask(*ORM) == DONE
    assert second.answer() is None
    assert desk.troubles == ["idle for longest when another connection needed the place"]
    assert [first.ask(*ORM), third.ask(*ORM)] == [DONE] * 2


def test_silent_connections_of_one_address_shut_out_neither_it_nor_another(start: Start, desk: Desk) -> None:
    receiver = start(max_connections=4, max_connections_of_one=2, peers=("127.0.0.1", "127.0.0.2"))
    other = Peer(receiver.port, source="127.0.0.2")
    assert other.ask(*ORM) == DONE
    silent = [Peer(receiver.port) for _ in range(20)]
    assert Peer(receiver.port).ask(*ORM) == DONE
    assert other.ask(*ORM) == DONE, "the connection of the other address stayed, although it was idle for longest"
    assert [peer.answer() for peer in silent[:19]] == [None] * 19
    assert len(desk.troubles) == 19


def test_a_connection_inside_a_message_keeps_its_place(start: Start, desk: Desk) -> None:
    receiver = start(max_connections=2)
    begun = [Peer(receiver.port) for _ in range(2)]
    for peer in begun:
        peer.write(b"\x0b" + lines(*ORM))
    wait_until(lambda: [place.idle_since for place in receiver._places.values()] == [None, None])
    assert Peer(receiver.port).answer() is None
    assert desk.troubles == ["too many connections, all of them inside a message"]
    for peer in begun:
        peer.write(b"\x1c\r")
        assert peer.answer() == DONE
    wait_until(lambda: None not in [place.idle_since for place in receiver._places.values()])
    assert Peer(receiver.port).ask(*ORM) == DONE


def test_line_ends_between_messages_are_idleness(start: Start, desk: Desk) -> None:
    receiver = start(max_connections=2)
    trickling, waiting = Peer(receiver.port), Peer(receiver.port)
    used(receiver, trickling, waiting)
    for _ in range(5):
        trickling.write(b"\r\n")
    assert Peer(receiver.port).ask(*ORM) == DONE
    assert trickling.answer() is None
    assert waiting.ask(*ORM) == DONE


def test_under_tls_an_idle_connection_makes_room(start: Start, desk: Desk, tmp_path: Path) -> None:
    node = certificate(tmp_path, "node")
    receiver = start(max_connections=1, tls=ServerTls(certificate=node.certificate, private_key=node.private_key))
    context = ssl.create_default_context(cafile=node.ca_file)
    first = Peer(receiver.port, context)
    used(receiver, first)
    assert Peer(receiver.port, context).ask(*ORM) == DONE
    with contextlib.suppress(ssl.SSLError):  # the connection ends without a goodbye
        assert first.answer() is None


def test_tls_needs_a_certificate_that_the_node_knows(start: Start, desk: Desk, tmp_path: Path) -> None:
    node, ris = certificate(tmp_path, "node"), certificate(tmp_path, "ris")
    tls = ServerTls(certificate=node.certificate, private_key=node.private_key, ca_file=ris.ca_file)
    receiver = start(tls=tls)
    trusted = ris.model_copy(update={"ca_file": node.ca_file, "server_name": "node"})
    peer = MllpSender(destination(port=receiver.port, tls=trusted))
    peer.send(build(change(), destination()))
    assert len(desk.events) == 1
    context = ssl.create_default_context(cafile=node.ca_file)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    with contextlib.suppress(ssl.SSLError):  # in TLS 1.3 the refusal comes with the first read
        assert Peer(receiver.port, context).ask(*ORM) is None
    Peer(receiver.port).write(block(lines(*ORM)))
    wait_until(lambda: len(desk.troubles) == 2)
    assert all(words.startswith("no TLS connection: ") for words in desk.troubles)
    assert len(desk.events) == 1
    receiver.stop()
    peer.close()


@pytest.mark.parametrize("encrypted", [False, True])
def test_stopping_finishes_the_message_in_hand(start: Start, desk: Desk, tmp_path: Path, encrypted: bool) -> None:
    node = certificate(tmp_path, "node")
    tls = ServerTls(certificate=node.certificate, private_key=node.private_key) if encrypted else None
    entered, go_on = threading.Event(), threading.Event()

    def slow(raw: bytes, address: str) -> Stored:
        entered.set()
        assert go_on.wait(10)
        return desk.store(raw, address)

    receiver = Hl7Receiver(Hl7Listener(tls=tls), replace(desk.handlers, store=slow))
    receiver.start()
    peer = Peer(receiver.port, ssl.create_default_context(cafile=node.ca_file) if encrypted else None)
    peer.write(block(lines(*ORM)))
    assert entered.wait(10)
    stopping = threading.Thread(target=receiver.stop)
    stopping.start()
    wait_until(lambda: receiver.stopping)
    go_on.set()
    assert peer.answer() == Answer("AA", "M1", "")
    assert peer.answer() is None
    stopping.join(10)
    assert receiver._places == {}
    with pytest.raises(ConnectionRefusedError):
        Peer(receiver.port)
