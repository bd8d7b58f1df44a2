"""Who may run on a storage folder, and a database that describes this folder and no other."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicom_node import storage
from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.durable import create_file
from dicom_node.base.errors import ConfigurationError
from dicom_node.intake.spool import INCOMING
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.storage import STORAGE_ID, check_belongs_together, discard_half_received, join_others, only_one
from support.postgres import PostgresServer
from support.studies import new_registry


def configured(folder: Path) -> Configuration:
    folder.mkdir(parents=True, exist_ok=True)
    return configuration_from({"node": {"storage": str(folder)}}, folder)


def test_a_second_node_on_the_same_folder_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TAKEOVER_SECONDS", 0.0)
    with (
        only_one(tmp_path / "node"),
        pytest.raises(ConfigurationError, match="already runs"),
        only_one(tmp_path / "node"),
    ):
        pass
    with only_one(tmp_path / "node"):
        pass


def test_a_database_of_another_folder_is_refused_until_a_person_says_so(tmp_path: Path) -> None:
    registry = new_registry(tmp_path)
    check_belongs_together(configured(tmp_path / "one"), registry)
    check_belongs_together(configured(tmp_path / "one"), registry)
    with pytest.raises(ConfigurationError, match="another storage folder") as refused:
        check_belongs_together(configured(tmp_path / "not-mounted"), registry)
    mine = (tmp_path / "one" / STORAGE_ID).read_text()
    assert mine in str(refused.value)
    (tmp_path / "not-mounted" / STORAGE_ID).write_text(mine)
    check_belongs_together(configured(tmp_path / "not-mounted"), registry)


def test_a_database_that_was_lost_is_begun_anew(tmp_path: Path) -> None:
    check_belongs_together(configured(tmp_path / "one"), new_registry(tmp_path))
    (tmp_path / "fresh").mkdir()
    check_belongs_together(configured(tmp_path / "one"), new_registry(tmp_path / "fresh"))


@pytest.mark.parametrize(("name", "left"), [("mine", {"mine", "runs"}), (None, {""})])
def test_half_objects_of_names_that_do_not_run_are_deleted(tmp_path: Path, name: str | None, left: set[str]) -> None:
    here = configured(tmp_path) if name is None else named(tmp_path, name)
    halves = {
        one: here.node.spool / (f"{INCOMING}-{one}" if one else INCOMING) / "half"
        for one in ("", "mine", "runs", "gone")
    }
    whole = here.node.spool / "0123" / "whole.dcm"
    for file in (*halves.values(), whole):
        file.parent.mkdir(parents=True)
        file.touch()
    with ExitStack() as stack:
        locks = stack.enter_context(only_one(tmp_path, name))
        if name is not None:
            fcntl.flock(locks.held[0], fcntl.LOCK_SH)  # as once it has joined
            stack.enter_context(only_one(tmp_path, "runs"))
        discard_half_received(here)
    assert {one for one, file in halves.items() if file.exists()} == left
    assert whole.exists()


def named(folder: Path, name: str, **sections: dict[str, object]) -> Configuration:
    node = {"storage": str(folder), "name": name, "database": "postgresql://somewhere/else"}
    return configuration_from({"node": node, **sections}, folder)


@pytest.fixture
def shared(postgres: PostgresServer) -> Iterator[Registry]:
    """A registry that nodes may share."""
    url = postgres.new_database()
    migrate(url)
    opened = Registry(url)
    opened.describes("folder")
    yield opened
    opened.close()


def test_nodes_with_names_share_a_folder_and_each_name_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("TAKEOVER_SECONDS", "JOINING_SECONDS"):
        monkeypatch.setattr(storage, patience, 0.0)
    with only_one(tmp_path, "a") as first:
        assert first.alone
        with pytest.raises(ConfigurationError, match=r"without node\.name"), only_one(tmp_path, "b"):
            pass
        fcntl.flock(first.held[0], fcntl.LOCK_SH)  # as it does once it joined
        with only_one(tmp_path, "b") as second:
            assert not second.alone
            with pytest.raises(ConfigurationError, match="named b already"), only_one(tmp_path, "b"):
                pass
            with pytest.raises(ConfigurationError, match="another node already"), only_one(tmp_path):
                pass
    with only_one(tmp_path), pytest.raises(ConfigurationError, match=r"without node\.name"), only_one(tmp_path, "a"):
        pass


def test_only_postgresql_takes_several_nodes(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"node\.name"):
        configuration_from({"node": {"name": "a"}}, tmp_path)


@pytest.mark.peers
def test_a_node_of_another_database_is_kept_off_the_folder_while_one_runs(
    tmp_path: Path, shared: Registry, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    migrate(url)
    other = Registry(url)
    other.describes("folder")
    with only_one(tmp_path, "a") as first:
        join_others(named(tmp_path, "a"), shared, first)
        with (
            only_one(tmp_path, "b") as second,
            pytest.raises(ConfigurationError, match="another database"),
        ):
            join_others(named(tmp_path, "b"), other, second)
        with only_one(tmp_path, "b") as second:
            join_others(named(tmp_path, "b"), shared, second)
    with only_one(tmp_path, "b") as alone:
        join_others(named(tmp_path, "b"), other, alone)
    other.close()


@pytest.mark.peers
def test_nodes_agree_on_what_becomes_of_a_study_and_differ_in_where_they_are(tmp_path: Path, shared: Registry) -> None:
    alike = {"node": {"port": 11999}, "model": {"device": "cpu"}, "hl7": {"port": 2575}}
    assert named(tmp_path, "a").shared_digests() == configuration_from(alike, tmp_path / "x").shared_digests()
    with only_one(tmp_path, "a") as first:
        join_others(named(tmp_path, "a"), shared, first)
        with (
            only_one(tmp_path, "b") as second,
            pytest.raises(ConfigurationError, match="intake of a"),
        ):
            join_others(named(tmp_path, "b", intake={"stability_seconds": 5.0}), shared, second)


@pytest.mark.peers
def test_a_node_whose_clock_is_wrong_does_not_join(
    tmp_path: Path, shared: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = time.time() + 60
    with only_one(tmp_path, "a") as first:
        monkeypatch.setattr("dicom_node.storage.time.time", lambda: wrong)
        with pytest.raises(ConfigurationError, match="clock"):
            join_others(named(tmp_path, "a"), shared, first)


def test_of_nodes_that_begin_a_folder_at_once_one_gives_it_its_name(tmp_path: Path) -> None:
    file = tmp_path / STORAGE_ID
    for text in ("first", "second"):
        create_file(file, text.encode())
    assert file.read_text() == "first"
    assert list(tmp_path.iterdir()) == [file]
