"""A registry that is lost, and comes back from a copy that was made while the node worked.

Every study is there afterwards, none is sent twice under another UID, and what came after the copy is rebuilt.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.base.config import Configuration
from dicom_node.demo.archive import AE_TITLE as ARCHIVE_AE
from dicom_node.demo.archive import Archive
from dicom_node.jobs.backup import back_up
from dicom_node.jobs.database import migrate
from support.command_line import Cli
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study
from support.peers import read_rows, receiver, wait_until
from support.studies import new_registry

STUDIES_MEANWHILE = int(os.environ.get("PRIMA_BACKUP_STUDIES", "1"))  # more for a longer run
REGISTRY = "registry.sqlite"


def reported(archive: Archive) -> dict[str, set[str]]:
    """Study Instance UID → SOP Instance UIDs of the reports that the archive got."""
    found: dict[str, set[str]] = {}
    for path in list(archive.reports):
        document = dcmread(path)
        found.setdefault(str(document.StudyInstanceUID), set()).add(str(document.SOPInstanceUID))
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    "PRIMA_LONG" not in os.environ, reason="half a minute of two whole nodes: PRIMA_LONG=1, or make long"
)
def test_a_lost_registry_comes_back_from_a_copy_made_under_load(tmp_path: Path, random_bundle: Path, cli: Cli) -> None:
    grown, after, *meanwhile = (StudyFacts() for _ in range(2 + STUDIES_MEANWHILE))
    late = small_study(grown, names=("AX FLAIR", "SAG T1", "COR T2"))
    copy = tmp_path / "copy.sqlite"
    with Archive(tmp_path / "archive") as archive:
        goals = [destination("pacs", ARCHIVE_AE, archive.port)]
        with Node(tmp_path / "node", random_bundle, destinations=goals) as node:
            assert set(send(node.port, late[:16])) == {0x0000}
            node.wait_for_state(grown.study_uid, "delivered")
            load = threading.Thread(target=lambda: [send(node.port, small_study(study)) for study in meanwhile])
            load.start()
            done = cli("backup", copy, "--config", node.config, "--json")
            assert (done.code, done.json["backup"], done.json["bytes"]) == (0, str(copy), copy.stat().st_size)
            well = cli("doctor", "--config", node.config, "--json")
            assert (well.code, well.json["ok"]) == (0, True), well.out
            load.join()
            assert set(send(node.port, small_study(after))) == {0x0000}
            assert set(send(node.port, late[16:])) == {0x0000}
            node.wait_for_state(grown.study_uid, "delivered", revision=2)
            for study in (after, *meanwhile):
                node.wait_for_state(study.study_uid, "delivered")
            sent = reported(archive)
            assert sorted(map(len, sent.values())) == [1] * (1 + STUDIES_MEANWHILE) + [2]
            assert node.stop() == 0
            node.registry.close()
            storage = node.configuration.node.storage
            for file in storage.glob(f"{REGISTRY}*"):
                file.unlink()
            copy.rename(storage / REGISTRY)  # as the runbook has it
            node.start()
            for study in (after, *meanwhile):
                node.wait_for_state(study.study_uid, "delivered")
            node.wait_for_state(grown.study_uid, "delivered", revision=2)
            assert reported(archive) == sent


def test_what_came_after_the_copy_is_rebuilt_from_the_spool(tmp_path: Path) -> None:
    """The same without models: what the registry has, a receiver that is fed meanwhile, and the next receiver."""
    images = [image for _ in range(6) for image in small_study(StudyFacts())]
    copies = [tmp_path / f"{number}.sqlite" for number in range(3)]
    with receiver(tmp_path) as node:
        sender = threading.Thread(target=send, args=(node.port, images))
        sender.start()
        for number, copy in enumerate(copies):
            wait_until(lambda number=number: len(node.rows()) >= 10 * number + 1)
            back_up(node.configuration.node.database_url, copy)
        sender.join()
        configuration = node.configuration
    before = rows(configuration)
    assert len(before) == len(images)
    for copy in copies:
        kept = configuration.node.storage / REGISTRY
        for file in kept.parent.glob(f"{REGISTRY}*"):
            file.unlink()
        copy.rename(kept)
        assert len(rows(configuration)) < len(images), "it was made meanwhile"
        with receiver(configuration):
            assert rows(configuration) == before


def rows(configuration: Configuration) -> set[tuple[str, str, str, float]]:
    """What is on record of the received objects."""
    return {(row.path, row.digest, row.standing, row.received_at) for row in read_rows(configuration)}


def test_a_copy_is_whole_private_and_overwrites_nothing(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "node").mkdir()
    new_registry(tmp_path / "node").close()
    config = tmp_path / "node.toml"
    config.write_text('[node]\nstorage = "node"\n')
    target = tmp_path / "copy.sqlite"
    assert cli("backup", target, "--config", config).code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(target)) as made:
        assert made.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
        assert made.execute("SELECT count(*) FROM studies").fetchall() == [(0,)]
    content = target.read_bytes()
    again = cli("backup", target, "--config", config)
    assert (again.code, target.read_bytes()) == (1, content)
    assert "overwrites nothing" in again.err
    [named] = [cli("backup", tmp_path, "--config", config, "--json").json["backup"]]
    assert Path(named).parent == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {"node", "node.toml", "copy.sqlite", Path(named).name}


@pytest.mark.peers
def test_on_postgresql_its_own_tool_is_named(tmp_path: Path, cli: Cli, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres").new_database()
    migrate(url)
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\nstorage = "node"\ndatabase = "{url}"\n')
    done = cli("backup", tmp_path / "copy", "--config", config)
    assert (done.code, "pg_dump" in done.err) == (1, True)
