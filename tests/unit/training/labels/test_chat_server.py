"""A language model behind an address: a real HTTP server on this machine that answers well, badly, late or never."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from training.base.cohort import StudyReport
from training.base.errors import BadTrainingData
from training.labels.chat_server import ATTEMPTS, ChatServer
from training.labels.language_model import ModelAway, label_by_model

FINDINGS = ("structural_edema",)
GOOD = json.dumps({"choices": [{"message": {"content": '{"structural_edema": "present"}'}}]})
SECRET = "not-for-logs"


class Server:
    """Answers in turn with (status, headers, body), the last one for ever. A status of 0 answers nothing in time."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], str]] = [(200, {}, GOOD)]
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.late = threading.Event()
        own = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                own.headers.append(dict(self.headers) | {"path": self.path})
                own.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, headers, body = own.answers.pop(0) if len(own.answers) > 1 else own.answers[0]
                if not status:
                    own.late.wait(30)
                    return
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body.encode()))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.late.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def model(server: Server, **settings: Any) -> tuple[ChatServer, list[float]]:
    pauses: list[float] = []
    return ChatServer(server.url, "m", key=SECRET, pause=pauses.append, **settings), pauses


def test_a_good_answer_becomes_a_label(server: Server, tmp_path: Path) -> None:
    chat, pauses = model(server)
    done = label_by_model({"a": StudyReport(("Edema.",))}, chat, tmp_path / "cache", FINDINGS)
    assert done.labels["a"].diagnosis == {"structural_edema": True}
    [asked], [headers] = server.asked, server.headers
    assert (asked["model"], asked["temperature"], pauses) == ("m", 0, [])
    assert "Edema." in asked["messages"][0]["content"]
    assert headers["path"] == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in repr(chat) + chat.name + (tmp_path / "cache").read_text()


def test_a_busy_server_is_asked_again_as_late_as_it_says(server: Server) -> None:
    server.answers = [(429, {"Retry-After": "7"}, ""), (503, {}, ""), (200, {}, GOOD)]
    chat, pauses = model(server)
    assert chat.complete("x") == '{"structural_edema": "present"}'
    assert pauses == [7, 4]


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_stays_busy_ends_the_command(server: Server, status: int) -> None:
    server.answers = [(status, {}, "patient")]
    chat, pauses = model(server)
    with pytest.raises(ModelAway, match=rf"answered {status}, 5 times") as raised:
        chat.complete("x")
    assert (len(server.asked), len(pauses)) == (ATTEMPTS, ATTEMPTS - 1)
    assert "patient" not in str(raised.value)


def test_an_answer_that_comes_too_late_is_none(server: Server) -> None:
    server.answers = [(0, {}, ""), (200, {}, GOOD)]
    chat, pauses = model(server, timeout_seconds=0.2)
    assert chat.complete("x") == '{"structural_edema": "present"}'
    assert len(pauses) == 1


def test_an_answer_that_is_no_completion_fails_the_study_alone(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, {}, "<html>"), (200, {}, '{"choices": []}'), (200, {}, GOOD)]
    chat, _ = model(server)
    reports = {study: StudyReport((study,)) for study in "abc"}
    done = label_by_model(reports, chat, tmp_path / "cache", FINDINGS)
    assert set(done.failed) == {"a", "b"}
    assert set(done.labels) == {"c"}


def test_a_malformed_label_is_told_and_may_be_put_right(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, {}, GOOD.replace("present", "maybe")), (200, {}, GOOD)]
    chat, _ = model(server)
    done = label_by_model({"a": StudyReport(("Edema.",))}, chat, tmp_path / "cache", FINDINGS)
    assert done.labels["a"].diagnosis == {"structural_edema": True}
    assert "was not accepted" in server.asked[1]["messages"][0]["content"]


@pytest.mark.parametrize(("status", "error"), [(401, ModelAway), (404, ModelAway), (413, BadTrainingData)])
def test_what_asking_again_cannot_help_is_not_asked_again(server: Server, status: int, error: type[Exception]) -> None:
    server.answers = [(status, {}, "")]
    chat, pauses = model(server)
    with pytest.raises(error):
        chat.complete("x")
    assert pauses == []


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_not_followed(server: Server, status: int) -> None:
    other = Server()
    try:
        server.answers = [(status, {"Location": f"{other.url}/v1/chat/completions"}, "")]
        with pytest.raises(ModelAway, match=f"answered {status}"):
            model(server)[0].complete("x")
        assert (other.asked, len(server.asked)) == ([], 1)
    finally:
        other.close()


def test_no_proxy_sees_what_stays_on_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Server()
    try:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        model(server)[0].complete("x")
        assert (len(server.asked), proxy.asked) == (1, [])
    finally:
        proxy.close()


def test_nobody_there(server: Server) -> None:
    closed = Server()
    closed.close()
    chat, pauses = model(closed)
    with pytest.raises(ModelAway, match="cannot be reached"):
        chat.complete("x")
    assert pauses == [2, 4, 8, 16]


@pytest.mark.parametrize(
    "url",
    ["http://models.hospital", "http://192.0.2.1:8000", "http://localhost@models.hospital", "ftp://127.0.0.1", "x"],
)
def test_reports_are_not_sent_in_plain_http_to_another_machine(url: str) -> None:
    with pytest.raises(BadTrainingData, match="address"):
        ChatServer(url, "m")


def test_addresses_that_reports_may_go_to() -> None:
    assert ChatServer("http://localhost:8000", "m").is_local
    assert ChatServer("http://[::1]:8000", "m").is_local
    assert not ChatServer("https://models.hospital", "m").is_local
    assert not ChatServer("http://192.0.2.1", "m", plain_http=True).is_local
