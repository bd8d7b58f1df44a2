"""One STOW-RS attempt against an HTTP server on loopback, and every way in which it can end.

Does not cover: a real DICOMweb service (`tests/integration/test_orthanc_delivery.py`).
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dicom_node.base.config import StowDestination
from dicom_node.base.errors import ConfigurationError, NodeError, PeerBusy, PeerRefused, PeerUnreachable, RetriableError
from dicom_node.demo.ports import free_ports
from dicom_node.sending.stow import MAX_ANSWER_BYTES, StowUser

SR = "1.2.840.10008.5.1.4.1.1.88.34"
JSON = "application/dicom+json"


class Service:
    """An HTTP server that answers as told and keeps the last request."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.status = 200
        self.answer: bytes = b""
        self.location = ""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.requests.append((self.path, headers, body))
                self.send_response(service.status)
                if service.location:
                    self.send_header("Location", service.location)
                self.send_header("Content-Type", JSON)
                self.send_header("Content-Length", str(len(service.answer)))
                self.end_headers()
                self.wfile.write(service.answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = SR
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName = "Doe^John"
    dataset.add_new(0x00420011, "OB", bytes(range(256)) * 1000)
    path = tmp_path / "object.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def uid_of(path: Path) -> str:
    return str(dcmread(path).SOPInstanceUID)


def user(port: int, scheme: str = "http", host: str = "127.0.0.1", **changes: Any) -> StowUser:
    table = {"name": "web", "kind": "stow", "url": f"{scheme}://{host}:{port}/dicom-web/", "timeout_seconds": 20}
    return StowUser(StowDestination.model_validate(table | changes), Path("/nowhere"))


def item(uid: str | None, reason: object = None) -> dict[str, Any]:
    made: dict[str, Any] = {"00081150": {"vr": "UI", "Value": [SR]}}
    if uid is not None:
        made["00081155"] = {"vr": "UI", "Value": [uid]}
    if reason is not None:
        made["00081197"] = {"vr": "US", "Value": [reason]}
    return made


def said(*, failed: list[dict[str, Any]] | None = None, stored: list[dict[str, Any]] | None = None) -> bytes:
    answer: dict[str, Any] = {"00081190": {"vr": "UR", "Value": ["http://somewhere/studies/1"]}}
    if failed is not None:
        answer["00081198"] = {"vr": "SQ", "Value": failed}
    if stored is not None:
        answer["00081199"] = {"vr": "SQ", "Value": stored}
    return json.dumps(answer).encode()


def test_the_object_goes_as_it_is_in_one_part(service: Service, path: Path) -> None:
    user(service.port).store(path)
    [(target, headers, body)] = service.requests
    assert target == "/dicom-web/studies"
    assert headers["accept"] == JSON
    assert "authorization" not in headers
    assert headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
    message = message_from_bytes(b"Content-Type: " + headers["content-type"].encode() + b"\r\n\r\n" + body)
    [part] = message.get_payload()
    assert part.get_content_type() == "application/dicom"
    assert path.read_bytes() in body
    assert body.count(path.read_bytes()) == 1


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (200, said(stored=[item("U")]), None),
        (200, b"", None),
        (200, b"not JSON", PeerRefused),
        (200, b"<html>log in</html>", PeerRefused),
        (200, b"[" * 100_000, PeerRefused),
        (200, said(failed=[item("U", 0xA700)]), PeerBusy),
        (200, said(failed=[item("U", 0xC000)]), PeerRefused),
        (202, said(stored=[item("U") | {"00081196": {"vr": "US", "Value": [0xB000]}}]), None),
        (202, b"[" + said(stored=[item("U")]) + b"]", None),
        (202, said(failed=[item("U", 0x0111)]), None),
        (202, said(failed=[item("U", 0xA770)]), PeerBusy),
        (202, said(failed=[item("U", 0x0110)]), PeerBusy),
        (202, said(failed=[item("U", 0x0122)]), PeerRefused),
        (202, said(failed=[item("U")]), PeerRefused),
        (202, said(failed=[item("U", "A700")]), PeerRefused),
        (202, said(failed=[item("U", -1)]), PeerRefused),
        (202, said(failed=[item(None, 0xA700)]), PeerBusy),
        (202, said(failed=[item("1.2.9", 0xC000)], stored=[item("U")]), None),
        (202, said(stored=[item("1.2.9")]), PeerRefused),
        (202, b"", PeerRefused),
        (202, b'{"00081198": 3, "00081199": {"Value": {}}}', PeerRefused),
        (409, said(failed=[item("U", 0xA700)]), PeerBusy),
        (409, said(failed=[item("U", 0x0111)]), None),
        (409, said(failed=[item("U", 0xA900)]), PeerRefused),
        (409, b"", PeerRefused),
        (201, b"", PeerRefused),
        (400, b"", PeerRefused),
        (401, b"", PeerRefused),
        (403, b"", PeerRefused),
        (404, b"", PeerRefused),
        (408, b"", PeerBusy),
        (413, b"", PeerRefused),
        (415, b"", PeerRefused),
        (429, b"", PeerBusy),
        (500, b"", PeerBusy),
        (502, b"", PeerBusy),
        (503, b"", PeerBusy),
    ],
)
def test_every_answer_has_its_end(
    service: Service, path: Path, status: int, answer: bytes, error: type[NodeError] | None
) -> None:
    service.status, service.answer = status, answer.replace(b'"U"', f'"{uid_of(path)}"'.encode())
    if error is None:
        user(service.port).store(path)
    else:
        with pytest.raises(error) as raised:
            user(service.port).store(path)
        assert "Doe" not in str(raised.value)
        assert uid_of(path) not in str(raised.value)
    assert len(service.requests) == 1


def test_an_answer_that_is_too_long_is_not_read(service: Service, path: Path) -> None:
    service.status = 202
    service.answer = said(stored=[item(uid_of(path))]) + b" " * MAX_ANSWER_BYTES
    with pytest.raises(PeerRefused, match="202"):
        user(service.port).store(path)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_the_credentials_stay_here(
    service: Service, path: Path, tmp_path: Path, status: int
) -> None:
    elsewhere = Service()
    (tmp_path / "token").write_text("secret\n")
    try:
        service.status, service.location = status, f"http://127.0.0.1:{elsewhere.port}/dicom-web/studies"
        with pytest.raises(PeerRefused, match="not followed"):
            user(service.port, token_file=tmp_path / "token").store(path)
    finally:
        elsewhere.close()
    assert elsewhere.requests == []


def test_credentials_are_read_at_each_attempt(service: Service, path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pass:wörd\r\n", encoding="utf-8")
    user(service.port, user="node", password_file=secret).store(path)
    sender = user(service.port, token_file=secret)
    for token in ("first", "second"):
        secret.write_text(token + "\n")
        sender.store(path)
    values = [headers["authorization"] for _, headers, _ in service.requests]
    assert values[1:] == ["Bearer first", "Bearer second"]
    assert base64.b64decode(values[0].removeprefix("Basic ")).decode() == "node:pass:wörd"


@pytest.mark.parametrize("content", [None, b"", b"two words\n", b"\xff\xfe"])
def test_a_secret_that_cannot_be_used_is_tried_again_and_not_shown(
    service: Service, path: Path, tmp_path: Path, content: bytes | None
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(RetriableError, match="token_file") as error:
        user(service.port, token_file=secret).store(path)
    assert "two words" not in str(error.value)
    assert service.requests == []


def test_a_service_that_is_down_is_tried_again(path: Path) -> None:
    [port] = free_ports(1)
    with pytest.raises(PeerUnreachable, match="nobody answers"):
        user(port).store(path)
    with pytest.raises(PeerUnreachable, match="nobody answers"):
        user(80, host="no-such-host.invalid").store(path)


@pytest.mark.parametrize("first", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"])
def test_a_service_that_breaks_off_is_tried_again(path: Path, first: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                size = len(path.read_bytes())
                while size > 0:
                    size -= len(connection.recv(1 << 16))
                connection.sendall(first)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PeerUnreachable, match="broke"):
            user(server.getsockname()[1]).store(path)
        thread.join()


def test_a_service_that_says_nothing_is_tried_again(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(PeerUnreachable):
        user(server.getsockname()[1], timeout_seconds=0.2).store(path)


DRIPS = 500  # then a peer hangs up by itself: a sender that waits for that says so
LATE = "in time"


def begin(connection: socket.socket, request: int, head: bytes) -> None:
    """Read a request of at least so many bytes and begin the answer."""
    while request > 0:
        request -= len(connection.recv(1 << 16))
    connection.sendall(head)


def drip(connection: socket.socket, request: int, head: bytes, drop: bytes) -> None:
    """Begin the answer and never end it."""
    with connection, suppress(OSError):  # the sender has gone
        begin(connection, request, head)
        for _ in range(DRIPS):
            connection.sendall(drop)
            time.sleep(0.02)


@contextmanager
def scripted(script: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A peer that serves one connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                script(context.wrap_socket(connection, server_side=True) if context else connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: 1\r\n"),
    ],
)
def test_an_answer_that_drips_ends(
    path: Path, certificate: tuple[Path, Path], head: bytes, drop: bytes, tls: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    size = path.stat().st_size
    with scripted(lambda peer: drip(peer, size, head, drop), context if tls else None) as port:
        sender = user(
            port,
            "https" if tls else "http",
            timeout_seconds=0.06,
            **({"tls": {"ca_file": certificate[0]}} if tls else {}),
        )
        with pytest.raises(PeerUnreachable, match=LATE):
            sender.store(path)


def test_a_peer_that_takes_the_object_in_drops_ends(path: Path) -> None:
    def sip(peer: socket.socket) -> None:
        # A large buffer is said to be free once much of it is: one wait for that may be too long by itself.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        with peer, suppress(OSError):
            for _ in range(DRIPS):
                if not peer.recv(1 << 16):
                    break
                time.sleep(0.02)

    dataset = dcmread(path)
    dataset.EncapsulatedDocument = bytes(32 << 20)  # more than any socket takes by itself
    dataset.save_as(path, enforce_file_format=True)
    with scripted(sip) as port, pytest.raises(PeerUnreachable, match=LATE):
        user(port, timeout_seconds=0.3).store(path)


def test_a_length_below_zero_does_not_make_the_node_read_on(path: Path) -> None:
    sent: list[int] = []

    def flood(peer: socket.socket) -> None:
        begin(peer, path.stat().st_size, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n")
        for _ in range(DRIPS):
            sent.append(peer.send(bytes(MAX_ANSWER_BYTES)))

    with scripted(flood) as port, pytest.raises(PeerUnreachable, match="broke"):
        user(port).store(path)
    assert len(sent) < DRIPS


def test_an_answer_before_the_whole_object_counts(path: Path) -> None:
    def refuse(peer: socket.socket) -> None:
        with peer:
            peer.recv(1 << 10)
            peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            peer.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                while peer.recv(1 << 20):
                    pass

    with scripted(refuse) as port, pytest.raises(PeerRefused, match="413"):
        user(port).store(path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "server.pem", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *names, "-out", made, "-keyout", key], check=True, capture_output=True)
    return made, key


def test_tls_with_a_certificate_of_the_sites_own_authority(path: Path, certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    service = Service(context)
    try:
        user(service.port, "https", tls={"ca_file": certificate[0]}).store(path)
        with pytest.raises(PeerUnreachable, match="certificate"):
            user(service.port, "https").store(path)
    finally:
        service.close()
    assert len(service.requests) == 1


def test_a_certificate_file_that_is_not_there_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tls"):
        user(443, "https", tls={"ca_file": tmp_path / "ca.pem"})
