"""`model …`: what is there and in use, who may change that and how, and why not. Progress of the long commands.

No worker runs here: what it makes of a change is tested in `test_models_in_use.py`.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dicom_node.admin import output
from dicom_node.base.types import Level, Prediction
from dicom_node.jobs.registry import Registry
from prima_core.bundle import read_manifest
from support.bundles import damaged, evaluated, new_bundle, new_heads
from support.command_line import Cli, Outcome
from support.studies import arrival, handover, new_registry, report

KEYS = {"id", "training_state", "device_uid", "path", "active", "role", "loaded_as", "problem"}


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
    assert "active" in shown
    assert "not a bundle" in shown


def test_a_long_check_shows_that_it_moves(random_bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(output, "notes", Console(file=screen, force_terminal=True))
    checked = cli("model", "verify", random_bundle, "--json")
    assert (checked.code, checked.json["training_state"]) == (0, "untrained")
    assert "checking every file" in screen.getvalue()
    monkeypatch.setattr(output, "notes", Console(file=screen, stderr=True))
    assert cli("model", "verify", random_bundle, "--json").err == ""


class Site:
    """A node's folder with a registry, and commands on it."""

    def __init__(self, folder: Path, bundle: Path, cli: Cli) -> None:
        self._cli, self.folder = cli, folder
        self.first = read_manifest(bundle).id
        self.config = folder / "node.toml"
        self.config.write_text(f'[node]\nstorage = "."\n[model]\nbundle = "{bundle}"\n')
        self.registry: Registry = new_registry(folder)

    def model(self, *arguments: object, code: int = 0) -> Outcome:
        """Run `model …`, which must end with this code."""
        done = self._cli("model", *arguments, "--config", self.config)
        assert done.code == code, done.err
        return done

    def changes(self) -> list[str]:
        """The audit's actions, newest first."""
        return [change["action"] for change in self.model("history", "--json").json]

    def roles(self) -> dict[str, str | None]:
        """Role of each bundle in the list, by id."""
        return {entry["id"]: entry["role"] for entry in self.model("list", "--json").json}


@pytest.fixture
def site(tmp_path: Path, random_bundle: Path, cli: Cli) -> Site:
    shutil.copytree(random_bundle, tmp_path / "bundles" / "first")
    return Site(tmp_path, tmp_path / "bundles" / "first", cli)


def test_an_activation_needs_an_evaluation_of_this_very_bundle(site: Site, tmp_path: Path) -> None:
    other = new_bundle(tmp_path / "elsewhere", seed=1)
    refused = site.model("activate", other, "--json", code=1)
    assert (refused.out, "no evaluation record" in refused.err) == ("", True)
    evaluated(other, bundle_id="another")
    site.model("activate", other, code=1)
    assert site.changes() == []
    evaluated(other)
    done = site.model("activate", other, "--json").json
    assert (done["bundle"], done["forced"], len(done["evaluation"])) == (read_manifest(other).id, False, 64)
    assert site.roles() == {site.first: None, done["bundle"]: "active"}, "it is listed wherever it lies"
    [change] = site.model("history", "--json").json
    assert (change["previous"], change["forced"], change["evaluation"]) == (site.first, False, done["evaluation"])
    assert change["who"]


def test_a_forced_activation_needs_a_reason_which_is_kept(site: Site, tmp_path: Path) -> None:
    other = new_bundle(tmp_path / "elsewhere", seed=1)
    site.model("activate", other, "--force", code=2)
    assert site.model("activate", other, "--force", "--reason", "the old one fails", "--json").json["forced"] is True
    [change] = site.model("history", "--json").json
    assert (change["forced"], change["reason"], change["evaluation"]) == (True, "the old one fails", None)
    assert "the old one fails" in site.model("history").out
    evaluated(other)
    site.model("rollback")
    assert (
        site.model("activate", read_manifest(other).id, "--force", "--reason", "again", "--json").json["forced"]
        is False
    )


def test_a_damaged_or_unfit_bundle_is_never_activated_even_by_force(site: Site, tmp_path: Path) -> None:
    other = new_bundle(tmp_path / "whole", seed=1)
    force = ["--force", "--reason", "x"]
    assert "study_model.safetensors" in site.model("activate", damaged(other, tmp_path / "bad"), *force, code=1).err
    site.model("activate", tmp_path / "nothing", *force, code=1)
    site.config.write_text(site.config.read_text() + '[worklist]\nmapping = { none = "routine" }\n')
    assert "worklist.mapping" in site.model("activate", other, *force, code=2).err
    assert site.changes() == []


def test_a_rollback_goes_back_and_ends_at_the_first(site: Site, tmp_path: Path) -> None:
    site.model("rollback", code=1)
    other = evaluated(new_bundle(tmp_path / "elsewhere", seed=1))
    site.model("activate", other)
    assert "already" in site.model("activate", other, code=1).err
    assert site.model("rollback", "--reason", "worse", "--json").json == {"bundle": site.first}
    assert site.roles()[site.first] == "active"
    site.model("rollback", code=1)
    assert site.changes() == ["rollback", "activate"]


def test_a_shadow_is_begun_and_stopped(site: Site, tmp_path: Path) -> None:
    heads = new_heads(tmp_path / "bundles" / "heads", tmp_path / "bundles" / "first")
    for wrong in (["shadow"], ["shadow", heads, "--stop"]):
        site.model(*wrong, code=2)
    site.model("shadow", "--stop", code=1)
    assert "active bundle" in site.model("shadow", tmp_path / "bundles" / "first", code=1).err
    bundle = site.model("shadow", heads, "--json").json["bundle"]
    assert site.roles() == {site.first: "active", bundle: "shadow"}
    assert "shadow" in site.model("list").out
    assert site.model("shadow", "--stop", "--json").json == {"bundle": None, "previous": bundle}
    assert site.roles() == {site.first: "active", bundle: None}


def test_what_the_worker_says_of_a_bundle_is_listed(site: Site, tmp_path: Path) -> None:
    other = evaluated(new_bundle(tmp_path / "bundles" / "other", seed=1))
    bundle = site.model("activate", other, "--json").json["bundle"]
    site.registry.note_loaded(site.first, None)
    site.registry.note_model(bundle, faults=1, problem="no memory")
    listed = {entry["id"]: entry for entry in site.model("list", "--json").json}
    assert (listed[bundle]["active"], listed[bundle]["loaded_as"], listed[bundle]["problem"]) == (
        True,
        None,
        "no memory",
    )
    assert (listed[site.first]["active"], listed[site.first]["loaded_as"]) == (False, "active")


def test_the_shadow_is_held_against_the_active_bundle(site: Site, tmp_path: Path) -> None:
    assert "no bundle runs in shadow" in site.model("compare", "--json", code=1).err
    bundle = site.model("shadow", new_bundle(tmp_path / "other", seed=1), "--json").json["bundle"]
    assert site.model("compare", "--json").json["studies"] == 0
    site.registry.record_arrivals([arrival(1)])
    site.registry.close_quiet(100, 0, 100)
    claim = site.registry.claim("w", 1e12, 200)
    assert claim is not None
    first, second = (
        Prediction(name, name, {"diagnosis": {"glioma": logit}, "referral": {}, "priority": {}}, level, "fp32", 1, b"")
        for name, logit, level in ((site.first, 2.0, Level.URGENT), (bundle, -1.0, Level.ROUTINE))
    )
    site.registry.finish_reported(claim, replace(report(), prediction=first), handover(), 300)
    site.registry.keep_shadow(claim, second, 400)
    compared = site.model("compare", "--json").json
    assert (compared["active"], compared["shadow"], compared["studies"]) == (site.first, bundle, 1)
    assert compared["diagnosis"][0]["only_active"] == 1
    assert compared["priority"]["confusion"]["urgent"]["routine"] == 1
    assert [one["study"] for one in compared["disagreements"]] == [claim.study_id]
    shown = site.model("compare").out
    assert claim.study_id in shown
    assert claim.study_instance_uid not in shown


def test_a_node_that_never_started_changes_nothing(tmp_path: Path, random_bundle: Path, cli: Cli) -> None:
    config = configuration(tmp_path, str(random_bundle))
    for command in (["activate", random_bundle], ["shadow", random_bundle], ["rollback"], ["compare"], ["history"]):
        refused = cli("model", *command, "--config", config)
        assert (refused.code, "dicom-node serve" in refused.err) == (2, True), command
