"""What the node answers over HTTP, with a registry behind it; the reading list is the test's own.

The page's words and looks: test_page.py and tests/integration/test_console_page.py.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.errors import ConfigurationError
from dicom_node.console import application
from dicom_node.console import http as console_http
from dicom_node.console.health import EXPECTED, health_problems
from dicom_node.console.http import Console
from dicom_node.console.page import HEADERS
from dicom_node.demo.ports import free_ports
from dicom_node.jobs.objective import FlagsInTime
from dicom_node.jobs.processes import ProcessView
from dicom_node.jobs.registry import Registry
from support.reading_list import ListedRegistry, entry
from support.studies import arrival, new_registry

HANG_SECONDS = 60  # only so that a broken test ends
AWAY = sa.exc.OperationalError("SELECT secret", {}, Exception("secret"))


@pytest.fixture
def registry(tmp_path: Path) -> ListedRegistry:
    new_registry(tmp_path).close()
    return ListedRegistry(f"sqlite:///{tmp_path / 'registry.sqlite'}")


@pytest.fixture(autouse=True)
def always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "SHARED_SECONDS", 0)


@pytest.fixture
def console(tmp_path: Path, registry: Registry) -> Iterator[Console]:
    running = Console(configuration(tmp_path), registry)
    running.start()
    yield running
    running.stop()


def configuration(folder: Path, **node: object) -> Configuration:
    [port] = free_ports(1)
    return configuration_from({"node": {"storage": ".", "http_port": port} | node}, folder)


def ask(
    console: Console, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(host, console.port, timeout=HANG_SECONDS)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def get(console: Console, path: str) -> tuple[int, str]:
    answer, body = ask(console, path)
    return answer.status, body.decode()


def all_beat(registry: Registry, status: str = "ready") -> None:
    for name in EXPECTED:
        registry.beat(name, os.getpid(), status, time.time())


def closed_by_peer(connection: socket.socket) -> bool:
    connection.settimeout(HANG_SECONDS)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_healthy_means_every_process_beats_and_is_ready(console: Console, registry: Registry) -> None:
    status, text = get(console, "/healthz")
    assert status == 503
    assert len(json.loads(text)["problems"]) == len(EXPECTED)
    all_beat(registry)
    assert get(console, "/healthz") == (200, '{"ok": true, "problems": []}')


def test_a_port_in_use_is_a_configuration_error(console: Console, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"node\.http_port"):
        Console(configuration(tmp_path, http_port=console.port), registry)


def test_an_address_that_is_not_here_is_a_configuration_error(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"node\.http_bind"):
        Console(configuration(tmp_path, http_bind="192.0.2.1", http_peers=["127.0.0.1"]), registry)


def test_an_address_that_is_not_listed_gets_no_answer(tmp_path: Path, registry: Registry) -> None:
    running = Console(configuration(tmp_path, http_peers=["192.0.2.7"]), registry)
    running.start()
    connection = socket.create_connection(("127.0.0.1", running.port))
    with connection, contextlib.suppress(ConnectionResetError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1) == b""
    running.stop()


def test_it_listens_on_ipv6(registry: Registry, tmp_path: Path) -> None:
    running = Console(configuration(tmp_path, http_bind="::1"), registry)
    running.start()
    assert ask(running, "/healthz", host="::1")[0].status == 503
    running.stop()


def test_a_stopped_console_leaves_its_port(registry: Registry, tmp_path: Path) -> None:
    settings = configuration(tmp_path)
    for _ in range(2):
        running = Console(settings, registry)
        running.start()
        assert get(running, "/healthz")[0] == 503
        running.stop()
    with pytest.raises(ConnectionRefusedError):
        get(running, "/healthz")


def test_a_silent_or_loading_process_is_named(registry: Registry) -> None:
    all_beat(registry)
    registry.beat("worker", os.getpid(), "loading the model", time.time())
    assert health_problems(registry, time.time()) == ["the worker is loading the model"]
    assert any("receiver" in problem for problem in health_problems(registry, time.time() + 3600))


def test_metrics_name_states_and_nothing_of_a_study(console: Console, registry: Registry) -> None:
    registry.record_arrivals([arrival(1)])
    all_beat(registry)
    status, text = get(console, "/metrics")
    assert status == 200
    assert 'dicom_node_studies{state="receiving"} 1.0' in text
    assert 'dicom_node_studies{state="dead"} 0.0' in text
    assert 'dicom_node_process_beat_age_seconds{process="worker"}' in text
    assert "1.2.3" not in text


def test_metrics_come_in_the_form_that_the_scraper_asks_for(console: Console) -> None:
    wanted = "application/openmetrics-text; version=1.0.0"
    answer, body = ask(console, "/metrics", Accept=wanted, Accept_Encoding="gzip")
    assert answer.getheader("Content-Type", "").startswith(wanted)
    assert gzip.decompress(body).decode().endswith("# EOF\n")
    assert ask(console, "/metrics")[0].getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"


def test_the_objective_is_of_today_and_of_this_week(
    console: Console, registry: ListedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flags_in_time(since: float, within: float, at: float) -> FlagsInTime:
        assert within == Configuration().worklist.objective_seconds
        return {1: FlagsInTime(94, 100), 7: FlagsInTime(0, 0)}[round((at - since) / 86400)]

    monkeypatch.setattr(registry, "flags_in_time", flags_in_time)
    said = get(console, "/metrics")[1]
    assert 'dicom_node_flag_objective_met{window="24h"} 0.0' in said
    assert 'dicom_node_flag_objective_met{window="7d"} 1.0' in said
    assert 'dicom_node_flags_due{window="24h"} 100.0' in said
    monkeypatch.setattr(registry, "flags_in_time", lambda *_: FlagsInTime(95, 100))
    assert 'dicom_node_flag_objective_met{window="24h"} 1.0' in get(console, "/metrics")[1]


def test_anything_else_is_not_found(console: Console) -> None:
    for path in ("/../etc/passwd", "/docs", "/redoc", "/openapi.json", "/worklist/", "/static/x"):
        assert get(console, path) == (404, "not found\n")


def test_it_is_only_read(console: Console) -> None:
    for path in ("/", "/worklist", "/worklist.json", "/healthz", "/metrics"):
        assert {ask(console, path, method)[0].status for method in ("POST", "PUT", "PATCH", "DELETE")} == {405}


def test_a_head_is_answered_like_a_get_without_the_body(console: Console) -> None:
    for path in ("/healthz", "/worklist", "/worklist.json"):
        answer, body = ask(console, path, "HEAD")
        assert answer.status == ask(console, path)[0].status
        assert body == b""


def test_requests_share_few_of_the_registry_s_connections(
    console: Console, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    active, most = set[int](), []

    def slow() -> list[ProcessView]:
        active.add(threading.get_ident())
        time.sleep(0.05)
        most.append(len(active))
        active.discard(threading.get_ident())
        return []

    monkeypatch.setattr(registry, "processes", slow)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: get(console, "/healthz"), range(16)))
    assert 1 < max(most) <= application.THREADS


def test_the_root_leads_to_the_list(console: Console) -> None:
    answer, _ = ask(console, "/")
    assert (answer.status, answer.getheader("Location")) == (307, "worklist")


def test_the_list_is_served_whole_as_a_fragment_and_as_json(console: Console, registry: ListedRegistry) -> None:
    registry.listed = [entry(1), entry(2)]
    status, html = get(console, "/worklist")
    assert status == 200
    assert html.startswith("<!DOCTYPE html>")
    assert html.count("<tr ") == 3
    assert get(console, "/worklist?fragment")[1].startswith('<div id="summary">')
    listed = json.loads(get(console, "/worklist.json")[1])
    assert [one["accession_number"] for one in listed] == ["A001", "A002"]
    assert listed[0]["age_seconds"] >= 9000


MARKED = {"model": {"allow_nonclinical": True}}


def test_the_list_is_of_the_hours_and_models_that_the_site_wants(registry: ListedRegistry, tmp_path: Path) -> None:
    wanted = {"keep_hours": 2.0, "allow_nonclinical": True}
    [port] = free_ports(1)
    settings = configuration_from({"node": {"storage": ".", "http_port": port}, "worklist": wanted} | MARKED, tmp_path)
    running = Console(settings, registry)
    running.start()
    before = time.time()
    assert get(running, "/worklist")[0] == 200
    running.stop()
    assert registry.asked is not None
    since, nonclinical = registry.asked
    assert before - 7200 <= since <= time.time() - 7200
    assert nonclinical


def test_what_tells_of_studies_is_kept_by_nobody_and_framed_by_nobody(console: Console) -> None:
    for path in ("/worklist", "/worklist?fragment", "/worklist.json"):
        answer, _ = ask(console, path)
        assert {name: answer.getheader(name) for name in HEADERS} == HEADERS
    assert HEADERS["Cache-Control"] == "no-store"
    assert HEADERS["X-Frame-Options"] == "DENY"


def test_no_answer_names_the_server_or_its_version(console: Console) -> None:
    for path in ("/worklist", "/healthz", "/metrics", "/nothing"):
        assert ask(console, path)[0].getheader("Server") is None


@pytest.mark.parametrize("path", ["/worklist", "/worklist.json", "/healthz", "/metrics"])
def test_a_database_that_is_away_is_said_and_quotes_nothing(
    console: Console, registry: ListedRegistry, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def fail(*_: object) -> None:
        raise AWAY

    registry.listed = AWAY
    monkeypatch.setattr(registry, "processes", fail)
    status, text = get(console, path)
    assert status == 503
    assert "database does not answer" in text.replace("&#39;", "'")
    assert "secret" not in text


def test_an_unexpected_error_is_logged_by_type_and_place_and_quotes_nothing(
    console: Console, registry: ListedRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    registry.listed = RuntimeError("secret")
    assert get(console, "/worklist") == (500, "internal server error\n")
    said = "".join(capfd.readouterr())
    assert "RuntimeError at reading_list.py" in said
    assert "secret" not in said
    assert get(console, "/healthz")[0] == 503


def test_requests_are_not_logged(console: Console, capfd: pytest.CaptureFixture[str]) -> None:
    get(console, "/worklist?name=secret")
    with socket.create_connection(("127.0.0.1", console.port)) as connection:
        connection.sendall(b"secret\r\n\r\n")
        connection.settimeout(HANG_SECONDS)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("limit", ["CONNECTION_SECONDS", "SILENT_SECONDS"])
def test_a_client_that_asks_nothing_is_cut_off(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(console_http, limit, 0.3)
    running = Console(configuration(tmp_path), registry)
    running.start()
    with (
        socket.create_connection(("127.0.0.1", running.port)) as silent,
        socket.create_connection(("127.0.0.1", running.port)) as slow,
    ):
        slow.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert closed_by_peer(silent)
        assert closed_by_peer(slow)
    running.stop()


def test_silent_clients_never_shut_out_one_that_asks(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody's time running out."""
    monkeypatch.setattr(console_http, "SILENT_SECONDS", 10 * HANG_SECONDS)
    monkeypatch.setattr(console_http, "CONNECTION_SECONDS", 10 * HANG_SECONDS)
    silent = [socket.create_connection(("127.0.0.1", console.port)) for _ in range(3 * console_http.CONNECTIONS)]
    assert '"ok"' in get(console, "/healthz")[1]
    assert all(closed_by_peer(one) for one in silent[: 2 * console_http.CONNECTIONS]), "the longest idle went first"
    for one in silent:
        one.close()


def test_a_client_that_waits_for_its_answer_keeps_its_place(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, asked = threading.Event(), threading.Semaphore(0)

    def slow() -> list[ProcessView]:
        asked.release()
        assert go_on.wait(HANG_SECONDS)
        return []

    monkeypatch.setattr(console_http, "CONNECTIONS", 2)
    monkeypatch.setattr(registry, "processes", slow)
    running = Console(configuration(tmp_path), registry)
    running.start()
    waiting = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(2)]
    for one in waiting:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
        assert asked.acquire(timeout=HANG_SECONDS)
    with socket.create_connection(("127.0.0.1", running.port)) as refused:
        assert closed_by_peer(refused)
    go_on.set()
    for one in waiting:
        one.settimeout(HANG_SECONDS)
        assert one.recv(100).startswith(b"HTTP/1.1 503")
        one.close()
    running.stop()


def test_a_stop_does_not_wait_for_a_database_that_is_silent(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on, answered = threading.Event(), threading.Event(), threading.Event()

    def silent() -> list[ProcessView]:
        asked.set()
        go_on.wait(HANG_SECONDS)
        answered.set()
        return []

    monkeypatch.setattr(console_http, "STOP_SECONDS", 0)
    monkeypatch.setattr(registry, "processes", silent)
    running = Console(configuration(tmp_path), registry)
    running.start()
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
        assert asked.wait(HANG_SECONDS)
        running.stop()
        assert not answered.is_set()
        with pytest.raises(ConnectionRefusedError):
            get(running, "/healthz")
        go_on.set()


def test_a_stop_does_not_wait_for_a_client_that_stays(registry: Registry, tmp_path: Path) -> None:
    running = Console(configuration(tmp_path), registry)
    running.start()
    with socket.create_connection(("127.0.0.1", running.port)) as silent:
        silent.sendall(b"GET /healthz HTTP/1.1\r\n")
        running.stop()
        assert closed_by_peer(silent)
