"""What a hostile archive answers to STOW-RS, and what a hostile client asks of the console."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.base.config import StowDestination, configuration_from
from dicom_node.base.errors import NodeError
from dicom_node.console.http import Console
from dicom_node.demo.ports import free_ports
from dicom_node.sending.stow import StowUser
from support.fuzzing import damaged, examples, no_thread_dies
from support.studies import new_registry

HANG_SECONDS = 30.0
SR = "1.2.840.10008.5.1.4.1.1.88.34"
INSTANCE = "1.2.3"
SECRET = "Geheim"


class Archive:
    """Answers every request with the bytes it was told, then closes."""

    def __init__(self) -> None:
        self.answer = b""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection, suppress(OSError):
                    connection.settimeout(HANG_SECONDS)
                    asked = b""
                    while b"--\r\n" not in asked[-300:] and (part := connection.recv(1 << 16)):
                        asked += part
                    connection.sendall(self.answer)


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    running = Archive()
    yield running
    running.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientName = SR, INSTANCE, SECRET
    path = tmp_path_factory.mktemp("object") / "object.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([INSTANCE, SR, SECRET, 0xA700, 0x0110, 0x0111, ""])
)


@st.composite
def answers(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """DICOM JSON (PS3.18 annex F), nearly."""

    def element(value: Any) -> Any:
        return draw(
            st.sampled_from(
                [{"vr": "UI", "Value": [value]}] * 6 + [{"Value": value}, [value], value, {"Value": []}, {}]
            )
        )

    def item() -> Any:
        return {"00081155": element(draw(scalars)), "00081197": element(draw(scalars)), "00081150": element(SR)}

    body: Any = {"00081190": element("http://x")}
    for tag in draw(st.sets(st.sampled_from(["00081198", "00081199"]))):
        body[tag] = draw(
            st.sampled_from([{"vr": "SQ", "Value": [item(), item()]}, {"Value": item()}, element(item()), item()])
        )
    whole = json.dumps(draw(st.sampled_from([body, [body], [[body]], [None, body], body["00081190"]]))).encode()
    return draw(damaged(whole, 3)) if draw(st.booleans()) else whole


@st.composite
def responses(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """HTTP/1.1 answers with lengths and encodings that lie."""
    body = draw(answers() | st.sampled_from([b"", b"[" * 100_000, b"<html>", b"9" * 10_000]))
    length = draw(st.sampled_from([len(body)] * 6 + [0, len(body) + 10, 1 << 40, -1, "x"]))
    headers = draw(
        st.lists(
            st.sampled_from(
                [
                    b"Transfer-Encoding: chunked",
                    b"Content-Encoding: gzip",
                    b"Content-Encoding: deflate",
                    b"Location: http://127.0.0.1:1/",
                    b"Retry-After: 9999999999",
                    b"Content-Type: " + b"x" * 5000,
                    b"X" * 70_000,
                    b"Set-Cookie: a=b",
                    b"\xff: \xff",
                    b"no colon",
                ]
            ),
            max_size=2,
        )
    )
    status = draw(st.sampled_from([200, 200, 202, 409, 204, 301, 400, 401, 500, 503, 100, 999, "x"]))
    lines = [b"HTTP/1.1 %s OK" % str(status).encode(), b"Content-Length: %s" % str(length).encode(), *headers]
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return draw(damaged(whole, 2)) if draw(st.integers(0, 3)) == 0 else whole


@examples(16)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000)
@given(responses())
def test_what_an_archive_answers(archive: Archive, path: Path, answer: bytes) -> None:
    archive.answer = answer
    table = {"name": "web", "kind": "stow", "url": f"http://127.0.0.1:{archive.port}/x", "timeout_seconds": 2}
    words = ""
    try:
        StowUser(StowDestination.model_validate(table), Path("/nowhere")).store(path)
    except NodeError as error:
        words = str(error)
    assert SECRET not in words


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    [port] = free_ports(1)
    registry = new_registry(folder)
    with no_thread_dies():
        running = Console(configuration_from({"node": {"storage": ".", "http_port": port}}, folder), registry)
        running.start()
        yield running
        running.stop()
    registry.close()


PATHS = [
    "/",
    "/healthz",
    "/metrics",
    "/worklist",
    "/worklist.json",
    "/..%2f..%2fetc/passwd",
    "/\0",
    "/" + "a" * 70_000,
    "*",
    "http://x/",
    "/worklist?x=" + "%00" * 99,
]


@st.composite
def asked(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    method = draw(
        st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "GEHEIM", ""])
    )
    headers = draw(
        st.lists(
            st.sampled_from(
                [
                    "Host: node",
                    "Host: a\r\nHost: b",
                    "Transfer-Encoding: chunked",
                    "Content-Length: 5",
                    "Content-Length: -1",
                    "Content-Length: 99999999999999999999",
                    "Connection: Upgrade\r\nUpgrade: websocket",
                    "Accept: " + "a," * 9999,
                    "Accept: application/openmetrics-text; version=" + "1." * 500,
                    "Accept-Encoding: gzip;q=x",
                    "Cookie: " + "x" * 9000,
                    "Range: bytes=0-99999999999",
                    "If-None-Match: *",
                    "Expect: 100-continue",
                    " folded",
                ]
            ),
            max_size=4,
        )
    )
    target = draw(st.sampled_from(PATHS)) + draw(st.sampled_from(["", "?a=b", "#x", "%ff%fe"]))
    version = draw(st.sampled_from(["HTTP/1.1"] * 5 + ["HTTP/1.0", "HTTP/2.0", "HTTP/9", ""]))
    whole = "\r\n".join(
        [f"{method} {target} {version}", *headers, "", draw(st.sampled_from(["", "5\r\nhello\r\n0\r\n\r\n", "zz"]))]
    )
    return draw(damaged(whole.encode("latin-1"), 2)) if draw(st.integers(0, 3)) == 0 else whole.encode("latin-1")


@examples(16)
@given(asked())
def test_what_the_console_is_asked(console: Console, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", console.port)) as connection:
        connection.settimeout(HANG_SECONDS)
        with suppress(OSError):
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                answer += part
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert b"Traceback" not in answer


def test_afterwards_the_console_answers(console: Console) -> None:
    with socket.create_connection(("127.0.0.1", console.port)) as connection:
        connection.settimeout(HANG_SECONDS)
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
