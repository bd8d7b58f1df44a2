"""Audit records to a syslog server on a real socket: framed as RFC 5425 has it, in order, none lost while it is away.

The server is the test's own: it shares no code with the sender. `tests/integration/test_audit_rsyslog.py` has rsyslog.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from pathlib import Path

import pytest

from dicom_node.audit.chain import read_record
from dicom_node.audit.syslog import AT_ONCE, Forwarder
from dicom_node.audit.trail import Trail
from dicom_node.base.audit_settings import Syslog
from dicom_node.base.errors import ConfigurationError, PeerUnreachable
from support.certificates import Authority, Issued
from support.peers import free_port, wait_until

HEADER = re.compile(
    rb"<85>1 \d{4}-\S+Z \S+ prima-node \d+ IHE\+RFC-3881 \[chain@32473 number=\"(\d+)\" digest=\"\w{64}\"\] "
)


class Server:
    """Takes RFC 5425 frames. reset: closes with a reset before it has read anything."""

    def __init__(self, own: Issued, *, reset: bool = False, port: int = 0) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=own.ca_file)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(own.certificate, own.key)
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._reset = reset
        self.received: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
                connection = self._context.wrap_socket(plain, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            if self._reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
                continue
            data = b""
            with connection:
                while part := connection.recv(65536):
                    data += part
            while data:
                length, _, data = data.partition(b" ")
                self.received.append(data[: int(length)])
                data = data[int(length) :]

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def numbers(self) -> list[int]:
        found = [HEADER.match(message) for message in self.received]
        return [int(one[1]) for one in found if one]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return Authority(tmp_path_factory.mktemp("syslog")).issue("syslog")


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    made = Trail(tmp_path / "audit", None, 2000)
    made.append([f"<A>Kätzchen {number}</A>" for number in range(1, 6)])
    return made


def forwarder(trail: Trail, port: int, own: Issued) -> Forwarder:
    return Forwarder(Syslog(host="localhost", port=port, tls=own.client(), timeout_seconds=5.0), trail)


def test_records_are_framed_and_sent_once_in_their_order(trail: Trail, own: Issued) -> None:
    server = Server(own)
    sender = forwarder(trail, server.port, own)
    assert sender.send_due() == 5
    trail.append(["<A>6</A>"])
    assert forwarder(trail, server.port, own).send_due() == 1  # another process goes on where the first stopped
    assert sender.send_due() == 0 or server.numbers()[-1] == 6
    assert server.numbers()[:6] == [1, 2, 3, 4, 5, 6]
    text = HEADER.sub(b"", server.received[0])
    assert text == b"\xef\xbb\xbf" + "<A>Kätzchen 1</A>".encode()
    server.close()


def test_a_server_that_is_away_loses_nothing(trail: Trail, own: Issued) -> None:
    port = free_port()
    sender = forwarder(trail, port, own)
    with pytest.raises(PeerUnreachable, match="cannot be reached"):
        sender.send_due()
    resetting = Server(own, reset=True, port=port)
    with pytest.raises(PeerUnreachable):
        sender.send_due()
    resetting.close()
    trail.append([f"<A>{number}</A>" for number in range(6, AT_ONCE + 20)])
    server = Server(own, port=port)
    assert sender.send_due() == AT_ONCE
    assert sender.send_due() == 19
    assert sender.send_due() == 0
    wait_until(lambda: len(server.received) == AT_ONCE + 19, "all were received")
    assert server.numbers() == list(range(1, AT_ONCE + 20))
    server.close()


def test_nothing_goes_to_a_server_that_is_not_trusted(trail: Trail, own: Issued, tmp_path: Path) -> None:
    server = Server(own)
    stranger = Authority(tmp_path, "strangers").issue("node")
    with pytest.raises(PeerUnreachable, match="no TLS connection"):
        forwarder(trail, server.port, stranger).send_due()
    assert server.received == []
    server.close()


def test_the_thread_sends_what_comes_and_ends_when_it_is_told_to(trail: Trail, own: Issued) -> None:
    server, stop = Server(own), threading.Event()
    forwarder(trail, server.port, own).start(stop)
    wait_until(lambda: server.numbers() == [1, 2, 3, 4, 5], "the records were sent")
    assert sending()
    stop.set()
    wait_until(lambda: not sending(), "the thread ended")
    server.close()


def sending() -> bool:
    return any(thread.name == "syslog" for thread in threading.enumerate())


def test_records_go_by_datagrams_too(trail: Trail) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        settings = Syslog(host="127.0.0.1", port=server.getsockname()[1], transport="udp")
        assert Forwarder(settings, trail).send_due() == 5
        received = [server.recv(65536) for _ in range(5)]
    assert all(HEADER.match(message) for message in received)


def test_half_a_record_is_left_for_later(trail: Trail, own: Issued) -> None:
    server = Server(own)
    sender = forwarder(trail, server.port, own)
    newest = trail.files()[-1]
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-10])
    assert sender.send_due() == 4
    newest.write_bytes(whole)
    assert sender.send_due() == 1
    assert read_record(whole.splitlines()[-1]) is not None
    server.close()


def test_an_unusable_certificate_is_a_configuration_error(trail: Trail, own: Issued, tmp_path: Path) -> None:
    tls = own.client().model_copy(update={"ca_file": tmp_path / "absent.pem"})
    with pytest.raises(ConfigurationError, match="absent"):
        Forwarder(Syslog(host="localhost", tls=tls), trail)
