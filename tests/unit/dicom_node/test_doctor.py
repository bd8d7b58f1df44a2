"""The doctor: what it says of each thing that can be wrong, with real files, ports and peers; and that it says no more.

A node that runs is looked at in `tests/integration/test_backup.py`.
"""

from __future__ import annotations

import fcntl
import http.server
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.demo.archive import AE_TITLE as ARCHIVE_AE
from dicom_node.demo.archive import Archive
from dicom_node.doctor import certificates, storage
from dicom_node.doctor.bundle import check_bundle
from dicom_node.doctor.certificates import check_certificates
from dicom_node.doctor.database import check_database
from dicom_node.doctor.finding import Finding
from dicom_node.doctor.peers import check_peers
from dicom_node.doctor.running import check_limits, check_ports, check_processes, check_titles, is_running
from dicom_node.doctor.storage import check_storage
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.storage import only_one
from support.bundles import damaged
from support.command_line import Cli
from support.peers import free_port
from support.postgres import PostgresServer
from support.studies import arrival


def configured(folder: Path, **sections: Any) -> Configuration:
    table = {"node": {"storage": str(folder / "node")}} | sections
    return configuration_from(table, folder)


def said(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.what: finding.state.value for finding in findings}


def words(findings: Iterable[Finding]) -> str:
    return "\n".join(f"{finding.said} → {finding.todo}" for finding in findings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the folders of a node, private as the node makes them."""
    for name in ("spool", "outgoing"):
        (tmp_path / "node" / name).mkdir(parents=True)
    for path in (tmp_path / "node", *(tmp_path / "node").iterdir()):
        path.chmod(0o700)
    return tmp_path


def test_folders_are_private_and_keep_what_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = configured(folder)
    assert set(said(check_storage(here)).values()) == {"ok"}
    assert list((folder / "node").glob("*doctor*")) == []
    (folder / "node" / "spool").chmod(0o750)
    assert said(check_storage(here))[f"folder {folder}/node/spool"] == "warning"

    def broken(_: int) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(storage.os, "fsync", broken)
    assert said(check_storage(here))[f"folder {folder}/node"] == "failed"
    assert list((folder / "node").glob(".doctor*")) == []


def test_the_disk_is_judged_by_the_sites_own_marks(folder: Path) -> None:
    free = storage.reserve_of(configured(folder)).free()
    reached, near = {"reserve_bytes": 2 * free}, {"reserve_bytes": 2 * free // 3}
    assert said(check_storage(configured(folder, intake=reached)))["disk space"] == "failed"
    assert said(check_storage(configured(folder, intake=near)))["disk space"] == "warning"
    above = {"min_free_bytes": 2 * free}
    assert said(check_storage(configured(folder, retention=above)))["disk space"] == "warning"


def test_a_node_that_was_never_started_is_no_failure(tmp_path: Path) -> None:
    here = configured(tmp_path)
    assert set(said([*check_database(here), *check_storage(here)]).values()) <= {"ok", "warning"}
    assert not (tmp_path / "node").exists(), "the doctor makes nothing"


def test_the_database_answers_and_is_ours_and_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = configured(folder)
    migrate(here.node.database_url)
    assert said(check_database(here)) == {"database": "ok", "clock": "ok"}
    with monkeypatch.context() as earlier:
        earlier.setattr("alembic.script.ScriptDirectory.get_current_head", lambda _: "9999")
        assert said(check_database(here)) == {"database": "failed"}
    registry = Registry(here.node.database_url)
    registry.describes("another folder")
    assert "another storage folder" in words(check_database(here))
    (folder / "node" / ".storage-id").write_text("another folder")
    assert said(check_database(here))["database"] == "ok"
    registry.record_arrivals([arrival(1, at=time.time() + 3600)])
    assert said(check_database(here))["clock"] == "failed"
    registry.close()
    away = configured(folder, node={"database": "postgresql://nobody@127.0.0.1:9/none"})
    assert said(check_database(away)) == {"database": "failed"}


def certificate(folder: Path, days: int) -> tuple[Path, Path]:
    """Certificate and key that are good for so many days."""
    made, key = folder / f"{days}.pem", folder / f"{days}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*command, "-keyout", key, "-out", made, "-days", str(days), "-subj", "/CN=node"],
        check=True,
        capture_output=True,
    )
    return made, key


@pytest.mark.parametrize("days", [90, 20000])  # UTCTime, and GeneralizedTime from 2050 on
def test_certificates_are_found_wherever_they_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    made, key = certificate(folder, days)
    bundle = folder / "both.pem"
    bundle.write_text(made.read_text() + certificate(folder, days + 1)[0].read_text())
    tls = {"certificate": str(made), "private_key": str(key)}
    cloud = {"name": "cloud", "kind": "stow", "url": "https://pacs.example.org", "tls": tls | {"ca_file": str(bundle)}}
    here = configured(folder, destinations=[cloud], hl7={"tls": tls})
    keys = ["destinations.cloud.tls.ca_file", "destinations.cloud.tls.certificate", "hl7.tls.certificate"]
    keys += ["destinations.cloud.tls.private_key", "hl7.tls.private_key"]
    assert said(check_certificates(here)) == dict.fromkeys(keys, "ok")
    now = time.time()
    for later, state in ((days - 10, "warning"), (days + 2, "failed")):
        with monkeypatch.context() as clock:
            clock.setattr(certificates.time, "time", lambda later=later: now + later * 86400)
            assert said(check_certificates(here))["hl7.tls.certificate"] == state
    key.chmod(0o644)
    assert said(check_certificates(here))["hl7.tls.private_key"] == "warning"
    key.unlink()
    made.write_text(made.read_text().replace("A", "B"))
    found = said(check_certificates(here))
    assert (found["hl7.tls.private_key"], found["hl7.tls.certificate"]) == ("failed", "failed")


@contextmanager
def web_server(status: int) -> Iterator[int]:
    """Answers every OPTIONS with this status; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_OPTIONS(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_every_kind_of_destination_is_asked_as_the_node_reaches_it(folder: Path) -> None:
    with Archive(folder / "archive") as archive, web_server(204) as web, socket.create_server(("127.0.0.1", 0)) as mllp:
        loopback = {"host": "127.0.0.1", "timeout_seconds": 5.0}
        there = [
            loopback | {"name": "pacs", "ae_title": ARCHIVE_AE, "port": archive.port},
            loopback | {"name": "manager", "kind": "ups", "ae_title": ARCHIVE_AE, "port": archive.port},
            loopback | {"name": "ris", "kind": "hl7", "port": mllp.getsockname()[1]},
            {"name": "cloud", "kind": "stow", "url": f"http://127.0.0.1:{web}"},
        ]
        names = ["pacs (dicom)", "manager (ups)", "ris (hl7)", "cloud (stow)"]
        found = said(check_peers(configured(folder, destinations=there)))
        assert found == {f"destination {name}": "ok" for name in names}
        gone = [one | {"port": free_port()} for one in there[:3]]
        gone.append(there[3] | {"url": f"http://127.0.0.1:{free_port()}"})
        found = said(check_peers(configured(folder, destinations=gone)))
        assert found == {f"destination {name}": "failed" for name in names}
    with web_server(403) as web:
        refusing = [there[3] | {"url": f"http://127.0.0.1:{web}"}]
        assert "does not allow" in words(check_peers(configured(folder, destinations=refusing)))


def test_the_bundle_is_whole_fits_and_loads(folder: Path, random_bundle: Path, tmp_path: Path) -> None:
    def judged(bundle: Path, **sections: Any) -> str:
        model = {"bundle": str(bundle), "precision": "fp32", "device": "cpu"} | sections.pop("model", {})
        return said(check_bundle(configured(folder, model=model, **sections), None, load=True))["model bundle"]

    assert judged(random_bundle, model={"allow_nonclinical": True}) == "ok"
    assert judged(random_bundle) == "warning", "its results are held"
    assert judged(random_bundle, worklist={"mapping": {"other": "routine"}}) == "failed"
    assert judged(damaged(random_bundle, tmp_path / "damaged")) == "failed"
    assert judged(tmp_path / "none") == "failed"


def test_ports_are_free_before_the_start_and_answer_afterwards(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        node = {"port": taken.getsockname()[1], "http_port": free_port(), "storage": str(folder / "node")}
        here = configured(folder, node=node)
        first, second = f"node.port {node['port']}", f"node.http_port {node['http_port']}"
        assert said(check_ports(here, running=False)) == {first: "failed", second: "ok"}
        assert said(check_ports(here, running=True)) == {first: "ok", second: "failed"}


def test_titles_and_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    itself = {"name": "pacs", "ae_title": "PRIMA", "host": "127.0.0.1", "port": 11112}
    assert said(check_titles(configured(folder, destinations=[itself]))) == {"AE titles": "failed"}
    anywhere = {"peers": [{"ae_title": "PACS"}]}
    assert said(check_titles(configured(folder, intake=anywhere))) == {"AE titles": "warning"}
    bound: dict[str, Any] = {"peers": [{"ae_title": "PACS", "certificate": "pacs.example.org"}]}
    bound["tls"] = {"certificate": "node.pem", "private_key": "node.key", "ca_file": "ca.pem"}
    assert said(check_titles(configured(folder, intake=bound))) == {"AE titles": "ok"}
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 64))
    assert said(check_limits(configured(folder), None, running=False)) == {"open files": "warning"}


def test_of_several_nodes_each_is_looked_at_for_itself(folder: Path) -> None:
    shared = {"storage": str(folder / "node"), "database": "postgresql://node@127.0.0.1:9/none"}
    first, second = (configured(folder, node=shared | {"name": name}) for name in ("first", "second"))
    url = f"sqlite:///{folder / 'node' / 'registry.sqlite'}"
    migrate(url)
    registry = Registry(url)
    now = time.time()
    for role in ("receiver", "scheduler", "worker"):
        registry.beat(first.node.process(role), os.getpid(), "ready", now)
        registry.beat(second.node.process(role), os.getpid(), "ready", now - 3600)
    with only_one(folder / "node", "first") as locks:
        fcntl.flock(locks.held[0], fcntl.LOCK_SH)  # as once it has joined
        assert (is_running(first), is_running(second)) == (True, False)
    assert said(check_processes(first, registry, running=True)) == {"node": "ok"}
    assert set(said(check_processes(second, registry, running=True)).values()) == {"failed"}
    roles = ("receiver", "scheduler", "worker")
    helper = subprocess.Popen(["/usr/bin/sleep", "60"])
    try:
        resource.prlimit(helper.pid, resource.RLIMIT_NOFILE, (64, 64))
        found = said(check_limits(first, registry, running=True))
    finally:
        helper.kill()
        helper.wait()
    assert found[f"open files of the receiver@first's helper {helper.pid}"] == "warning"
    assert {f"open files of the {role}@first" for role in roles} < set(found)
    assert not [what for what in found if "second" in what]
    registry.close()


@pytest.mark.parametrize(("reserve", "code"), [(0, 0), (1 << 60, 1)])
def test_the_command_says_it_all_at_once(cli: Cli, folder: Path, random_bundle: Path, reserve: int, code: int) -> None:
    config = folder / "node.toml"
    config.write_text(
        f'[node]\nport = {free_port()}\nhttp_port = {free_port()}\nstorage = "node"\n'
        f"[intake]\nreserve_bytes = {reserve}\n"
        f'[model]\nbundle = "{random_bundle}"\nprecision = "fp32"\n'
    )
    done = cli("doctor", "--config", config, "--json")
    assert (done.code, done.json["ok"]) == (code, code == 0)
    assert all(set(one) == {"what", "state", "said", "todo"} for one in done.json["checks"])
    assert all(one["todo"] for one in done.json["checks"] if one["state"] != "ok"), "each says what to do"
    shown = cli("doctor", "--config", config, "--no-peers")
    assert shown.code == code
    assert "disk space" in shown.out


@pytest.mark.peers
def test_postgresql_is_looked_at_alike(folder: Path, postgres: PostgresServer) -> None:
    here = configured(folder, node={"database": postgres.new_database(), "storage": str(folder / "node")})
    assert said(check_database(here)) == {"database": "warning"}, "not there yet"
    migrate(here.node.database_url)
    assert said(check_database(here)) == {"database": "ok", "clock": "ok"}
