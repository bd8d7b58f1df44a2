"""`model list`: what is there, which one is configured, and why one cannot be read. Progress of the long commands."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dicom_node.admin import output
from prima_core.bundle import read_manifest
from support.command_line import Cli

KEYS = {"id", "training_state", "device_uid", "path", "active", "problem"}


@pytest.fixture
def bundles(tmp_path: Path, random_bundle: Path) -> Path:
    """A folder with a bundle, a broken one, one still being written and something else."""
    folder = tmp_path / "bundles"
    shutil.copytree(random_bundle, folder / "first")
    shutil.copytree(random_bundle, folder / ".second.part")
    for name, manifest in (("broken", "{"), ("notes", None)):
        (folder / name).mkdir()
        if manifest is not None:
            (folder / name / "bundle.json").write_text(manifest)
    return folder


def configuration(folder: Path, bundle: str) -> Path:
    path = folder / "node.toml"
    path.write_text(f'[model]\nbundle = "{bundle}"\n')
    return path


def test_the_bundles_beside_the_configured_one_are_listed(tmp_path: Path, bundles: Path, cli: Cli) -> None:
    listed = cli("model", "list", "--config", configuration(tmp_path, "bundles/first"), "--json")
    assert listed.code == 0
    broken, first = listed.json
    assert first.keys() == broken.keys() == KEYS
    manifest = read_manifest(bundles / "first")
    assert (first["id"], first["training_state"]) == (manifest.id, "untrained")
    assert first["device_uid"] == manifest.device_uid
    assert (first["path"], first["active"], first["problem"]) == (str(bundles / "first"), True, None)
    assert (broken["path"], broken["active"], broken["id"]) == (str(bundles / "broken"), False, None)
    assert "not a bundle manifest" in broken["problem"]


def test_the_configured_bundle_is_listed_even_if_it_is_not_there(tmp_path: Path, bundles: Path, cli: Cli) -> None:
    listed = cli("model", "list", "--config", configuration(tmp_path, "bundles/missing"), "--json").json
    assert [Path(entry["path"]).name for entry in listed] == ["broken", "first", "missing"]
    [active] = [entry for entry in listed if entry["active"]]
    assert Path(active["path"]).name == "missing"
    assert active["problem"]
    assert bundles.is_dir()


def test_a_folder_needs_no_configuration(tmp_path: Path, bundles: Path, cli: Cli) -> None:
    listed = cli("model", "list", bundles, "--json").json
    assert [entry["active"] for entry in listed] == [False, False]
    config = configuration(tmp_path, "elsewhere/../bundles/first")
    marked = cli("model", "list", bundles, "--config", config, "--json").json
    assert [entry["active"] for entry in marked] == [False, True]


def test_nothing_to_list_and_nowhere_to_look(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "node.toml").write_text("")
    assert cli("model", "list", "--config", tmp_path / "node.toml", "--json").json == []
    assert "no bundles" in cli("model", "list", tmp_path).out
    nowhere = cli("model", "list", tmp_path / "nowhere", "--json")
    assert (nowhere.code, nowhere.out) == (1, "")
    assert cli("model", "list", "--config", tmp_path / "none.toml", "--json").code == 2


def test_a_table_names_each_bundle_and_what_is_wrong_with_it(tmp_path: Path, bundles: Path, cli: Cli) -> None:
    shown = cli("model", "list", "--config", configuration(tmp_path, "bundles/first")).out
    assert read_manifest(bundles / "first").id in shown
    assert "*" in shown
    assert "not a bundle" in shown


def test_a_long_check_shows_that_it_moves(random_bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(output, "notes", Console(file=screen, force_terminal=True))
    checked = cli("model", "verify", random_bundle, "--json")
    assert (checked.code, checked.json["training_state"]) == (0, "untrained")
    assert "checking every file" in screen.getvalue()
    monkeypatch.setattr(output, "notes", Console(file=screen, stderr=True))
    assert cli("model", "verify", random_bundle, "--json").err == ""
