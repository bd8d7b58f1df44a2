"""The HL7 sender against peers on real sockets: hl7apy's own MLLP server, and scripted ones that behave badly.

Does not cover a RIS that acts on the messages.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hl7apy.mllp import AbstractHandler, MLLPServer  # type: ignore[import-untyped]
from hl7apy.parser import parse_message  # type: ignore[import-untyped]

from dicom_node.base.errors import ConfigurationError, PeerRefused, PeerUnreachable
from dicom_node.base.tls import ClientTls, ServerTls, server_context
from dicom_node.worklist.hl7.acknowledgement import CommittedOnly
from dicom_node.worklist.hl7.messages import build
from dicom_node.worklist.hl7.sender import MllpSender
from support.hl7_messages import change, destination
from support.hl7_peers import ScriptedPeer, ack, certificate
from support.peers import free_port, wait_until

QUICK = 0.3
BABBLES = 300_000  # then a peer gives up by itself


def sender(port: int, **values: Any) -> MllpSender:
    return MllpSender(destination(port=port, **{"timeout_seconds": 10.0} | values))


def message(key: str = "K0001", **values: Any) -> bytes:
    return build(change(key=key), destination(**values))


@dataclass
class IndependentPeer:
    port: int
    levels: list[str] = field(default_factory=list)


@pytest.fixture
def independent_peer() -> Iterator[IndependentPeer]:
    """hl7apy's server; it takes the message apart itself, and closes the connection after every answer."""
    found = IndependentPeer(free_port())

    class Accept(AbstractHandler):  # type: ignore[misc]
        def reply(self) -> str:
            order = parse_message(self.incoming_message, find_groups=False)
            found.levels.append(order.orc.orc_7.orc_7_6.value)
            answer = f"MSH|^~\\&|RIS||PRIMA||20260101||ACK|1|P|2.3.1\rMSA|AA|{order.msh.msh_10.value}\r"
            return f"\x0b{answer}\x1c\r"

    server = MLLPServer("127.0.0.1", found.port, {"ORM^O01": (Accept,)})
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def test_an_independent_server_takes_messages_and_its_closed_connection_is_restored(
    independent_peer: IndependentPeer,
) -> None:
    peer = sender(independent_peer.port)
    for number in range(3):
        peer.send(message(f"K{number}"))
    assert independent_peer.levels == ["A", "A", "A"]


def test_one_connection_serves_all_messages_in_order() -> None:
    with ScriptedPeer(lambda received: ack("AA", f"K{len(received)}")) as server:
        peer = sender(server.port)
        sent = [message(f"K{number}") for number in range(1, 5)]
        for raw in sent:
            peer.send(raw)
        peer.close()
    assert server.received == sent
    assert len(server.connections) == 1


def test_nobody_there_and_a_name_that_is_none() -> None:
    with pytest.raises(PeerUnreachable):
        sender(free_port()).send(message())
    with pytest.raises(PeerUnreachable):
        sender(free_port(), host="." * 80).send(message())


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR"])
def test_a_refusal_is_for_a_person_and_the_connection_stays(code: str) -> None:
    answers = [ack(code), ack("AA", "K2")]
    with ScriptedPeer(lambda received: answers[len(received) - 1]) as server:
        peer = sender(server.port)
        with pytest.raises(PeerRefused, match=code):
            peer.send(message())
        peer.send(message("K2"))
    assert len(server.connections) == 1


def test_a_peer_that_accepts_and_never_answers() -> None:
    with ScriptedPeer(lambda _: b"") as server:
        with pytest.raises(PeerUnreachable, match="no answer in time"):
            sender(server.port, timeout_seconds=QUICK).send(message())
        assert server.received == [message()]


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_peer_that_closes_before_or_inside_its_answer(cut: int) -> None:
    def script(received: list[bytes]) -> bytes | None:
        if len(received) == 1:
            server.connections[0].sendall(ack("AA")[:cut])
            return None
        return ack("AA")

    with ScriptedPeer(script) as server:
        peer = sender(server.port)
        with pytest.raises(PeerUnreachable, match="closed the connection"):
            peer.send(message())
        peer.send(message())
        assert server.received == [message()] * 2


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n", b"\x0bhello\x1c\r", b"\x0b" + b"x" * (1 << 21)])
def test_an_answer_that_is_none_is_no_answer(garbage: bytes) -> None:
    with ScriptedPeer(lambda _: garbage) as server, pytest.raises(PeerUnreachable, match="answer"):
        sender(server.port).send(message())


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("babble", [b"\r\n" * 500, ack("AA", "OLD1")])
def test_a_peer_that_babbles_for_ever(tmp_path: Path, babble: bytes, tls: bool) -> None:
    files = certificate(tmp_path) if tls else None
    with ScriptedPeer(lambda _: babble * 100, server_context(files) if files else None) as server:
        ours = sender(server.port, timeout_seconds=QUICK, **({"tls": files} if files else {}))
        babbler = threading.Thread(target=babble_on, args=(server, babble))
        babbler.start()
        with pytest.raises(PeerUnreachable, match="in time"):
            ours.send(message())
        ours.close()
        babbler.join()


def babble_on(server: ScriptedPeer, words: bytes) -> None:
    """Write to the first connection as fast as the other side reads, until it closes it."""
    wait_until(lambda: server.connections)
    with contextlib.suppress(OSError):
        for _ in range(BABBLES):
            server.connections[0].sendall(words)


def test_a_late_answer_to_an_older_message_is_not_taken_for_this_one() -> None:
    with ScriptedPeer(lambda _: ack("AE", "OLD1") + ack("AA", "") + ack("AA")) as server:
        sender(server.port).send(message())
    with ScriptedPeer(lambda _: ack("AA", "OLD1")) as server, pytest.raises(PeerUnreachable, match="in time"):
        sender(server.port, timeout_seconds=QUICK).send(message())


def test_an_answer_that_comes_twice_does_not_answer_the_next_message() -> None:
    answers = [ack("AA") * 2, ack("AE", "K2")]
    with ScriptedPeer(lambda received: answers[len(received) - 1]) as server:
        peer = sender(server.port)
        peer.send(message())
        with pytest.raises(PeerRefused):
            peer.send(message("K2"))


def test_a_connection_that_the_peer_closed_meanwhile_loses_no_message() -> None:
    with ScriptedPeer(lambda received: ack("AA", f"K{len(received)}")) as server:
        peer = sender(server.port)
        peer.send(message("K1"))
        server.connections[0].shutdown(2)
        assert server.ended.wait(5)
        peer.send(message("K2"))
        assert len(server.received) == 2
        assert len(server.connections) == 2


def test_a_peer_that_hangs_up_just_as_the_next_message_comes_gets_it_once_more() -> None:
    answers = [ack("AA", "K1"), None, ack("AA", "K2")]
    with ScriptedPeer(lambda received: answers[len(received) - 1]) as server:
        peer = sender(server.port)
        peer.send(message("K1"))
        peer.send(message("K2"))
    assert server.received == [message("K1"), message("K2"), message("K2")]


def test_it_is_tried_only_once_more() -> None:
    answers = [ack("AA", "K1"), None, None]
    with ScriptedPeer(lambda received: answers[len(received) - 1]) as server:
        peer = sender(server.port)
        peer.send(message("K1"))
        with pytest.raises(PeerUnreachable, match="closed the connection"):
            peer.send(message("K2"))
    assert len(server.received) == 3


def test_a_commit_answer_is_enough_unless_an_application_answer_was_asked_for() -> None:
    with ScriptedPeer(lambda _: ack("CA")) as server:
        sender(server.port).send(message(accept_acknowledgment="AL", application_acknowledgment="NE"))
    asked = message(accept_acknowledgment="AL", application_acknowledgment="AL")
    with ScriptedPeer(lambda _: ack("CA") + ack("CA") + ack("AA")) as server:
        sender(server.port).send(asked)
    with ScriptedPeer(lambda _: ack("CA") + ack("AE")) as server, pytest.raises(PeerRefused):
        sender(server.port).send(asked)


@pytest.mark.parametrize("then", ["silence", "hang up", "garbage"])
def test_a_commit_without_its_application_answer_is_an_alarm_and_never_sent_again(then: str) -> None:
    def script(_received: list[bytes]) -> bytes | None:
        if then == "hang up":
            server.connections[0].sendall(ack("CA"))
            return None
        return ack("CA") + (b"garbage" if then == "garbage" else b"")

    asked = message(accept_acknowledgment="AL", application_acknowledgment="AL")
    with ScriptedPeer(script) as server:
        with pytest.raises(CommittedOnly) as raised:
            sender(server.port, timeout_seconds=QUICK).send(asked)
        assert not raised.value.retriable
        assert server.received == [asked]


def test_threads_share_a_connection() -> None:
    with ScriptedPeer(lambda received: ack("AA", received[-1].split(b"|")[9].decode())) as server:
        peer = sender(server.port)
        keys = [f"K{number}" for number in range(12)]
        threads = [threading.Thread(target=peer.send, args=(message(key),)) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.connections) == 1
    assert sorted(server.received) == sorted(message(key) for key in keys)


def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    ours, theirs = certificate(tmp_path, "node"), certificate(tmp_path, "ris")
    context = server_context(
        ServerTls(certificate=theirs.certificate, private_key=theirs.private_key, ca_file=ours.ca_file)
    )
    trusting = ClientTls(
        certificate=ours.certificate, private_key=ours.private_key, ca_file=theirs.ca_file, server_name="ris"
    )
    with ScriptedPeer(lambda received: ack("AA", f"K{len(received)}"), context) as server:
        peer = sender(server.port, tls=trusting)
        peer.send(message("K1"))
        peer.send(message("K2"))
        assert len(server.connections) == 1
        server.connections[0].close()
        peer.send(message("K3"))
        assert len(server.connections) == 2


def test_tls_refuses_a_wrong_name_a_stranger_and_plain_text(tmp_path: Path) -> None:
    theirs, stranger = certificate(tmp_path, "ris"), certificate(tmp_path, "stranger")
    context = server_context(ServerTls(certificate=theirs.certificate, private_key=theirs.private_key))
    with ScriptedPeer(lambda _: ack("AA"), context) as server:
        for tls in (ClientTls(ca_file=theirs.ca_file, server_name="other"), ClientTls(ca_file=stranger.ca_file)):
            with pytest.raises(PeerUnreachable, match="TLS"):
                sender(server.port, tls=tls).send(message())
        assert server.received == []
    with ScriptedPeer(lambda _: b"") as server, pytest.raises(PeerUnreachable, match="TLS"):
        sender(server.port, tls=ClientTls(), timeout_seconds=QUICK).send(message())


def test_an_unusable_certificate_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tls"):
        sender(1, tls=ClientTls(ca_file=tmp_path / "missing.pem"))


def test_closing_ends_the_connection() -> None:
    with ScriptedPeer(lambda _: ack("AA")) as server:
        peer = sender(server.port)
        peer.send(message())
        peer.close()
        wait_until(server.ended.is_set)
