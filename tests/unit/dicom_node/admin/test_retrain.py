"""`retrain` as a command: what it says, what it refuses, how it goes on after a stop, and what it leaves behind.

How a bundle comes about is tested in `tests/unit/training`, a running node in `tests/integration/test_retrain_node.py`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training.retrain
from dicom_node.admin.kept_embeddings import export_embeddings
from dicom_node.admin.training_runs import only_one_run
from dicom_node.base.config import load_configuration
from dicom_node.base.types import Level, Prediction, study_id
from dicom_node.bundles import encoder_of
from dicom_node.jobs.registry import Registry
from prima_core.bundle import read_manifest
from support.command_line import Cli, Outcome
from support.studies import arrival, handover, new_registry, report
from training.base.errors import NotConverging
from training.prepare.listed import ListedStudies
from training.run_folder import RunFolder

STUDIES = 40
AT = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
QUICK = ("--allow-fewer", "--head-steps", 2)


class Site:
    """A node that stands still, with embeddings of STUDIES patients, and a file of their labels."""

    def __init__(self, folder: Path, bundle: Path, cli: Cli) -> None:
        torch.set_num_threads(1)
        self.folder, self._cli = folder, cli
        self.config = folder / "node.toml"
        self.config.write_text(f'[node]\nstorage = "."\n[model]\nbundle = "{bundle}"\n')
        self.registry: Registry = new_registry(folder)
        self.manifest = read_manifest(bundle)
        self._draw = np.random.default_rng(0)
        self.labels = folder / "labels.csv"
        self._lines = ["study,diagnosis.tumor_adult_glioma,diagnosis.nobody_has_it"]
        for number in range(STUDIES):
            self.add(number)

    def add(self, number: int) -> None:
        """One more reported and labelled study."""
        uid, at = f"1.2.{number}", AT + number
        seen = arrival(1, study=uid, at=at, patient_key=f"p{number}::", accession_number=f"MUELLER{number}")
        self.registry.record_arrivals([seen])
        self.registry.close_quiet(at + 1, 0, at + 1)
        claim = self.registry.claim("w", at + 60, at + 2)
        assert claim is not None
        vector = self._draw.normal(size=self.manifest.architecture.study_vit.pooled_width).astype("<f4")
        said = Prediction("b", encoder_of(self.manifest), {}, Level.ROUTINE, "fp32", 1.0, vector.tobytes())
        made = replace(report(uid), prediction=said, sop_instance_uid=f"2.25.{number + 1}")
        self.registry.finish_reported(claim, made, handover(), at + 3)
        self._lines.append(f"MUELLER{number},{int(vector[0] > 0)},")
        self.labels.write_text("\n".join([*self._lines, ""]))

    def heads(self, *arguments: object, code: int = 0) -> Outcome:
        """Run `retrain heads`, which must end with this code."""
        done = self._cli("retrain", "heads", "--labels", self.labels, *arguments, "--config", self.config)
        assert done.code == code, done.err
        return done

    def made(self, *arguments: object) -> Any:
        """The JSON of a run that must succeed."""
        return self.heads(*QUICK, "--json", *arguments).json

    def runs(self) -> list[Path]:
        """Folders of runs, oldest first."""
        return sorted((self.folder / "training").glob("2*Z"))


@pytest.fixture
def site(tmp_path: Path, random_bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(training.retrain, "RetrainSettings", partial(training.retrain.RetrainSettings, resamples=2))
    return Site(tmp_path, random_bundle, cli)


def stop_behind_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process ended when the heads are trained."""

    def stopped(*_: object, **__: object) -> None:
        raise NotConverging("stopped by a test")

    monkeypatch.setattr(training.retrain, "export_bundle", stopped)


def test_the_result_runs_in_shadow_and_its_run_forgets_the_patients(site: Site) -> None:
    made = site.made()
    assert (made["studies"], made["unknown"], made["role"], made["new"]) == (STUDIES, 0, "shadow", True)
    assert made["version"].startswith(f"{site.manifest.version}+heads.2")
    assert made["training_state"] == "untrained", "what the base is"
    [shadow] = [one for one in site.registry.models() if one.role]
    assert (shadow.bundle_id, str(shadow.path)) == (made["bundle"], made["path"])
    [change] = site.registry.model_changes()
    assert (change.action, change.reason) == ("shadow", "retrained (heads)")
    [run] = site.runs()
    left = {path.name for path in run.iterdir()}
    assert left == {"retrain.json", "heads", "evaluation"}
    for path in [*run.rglob("*"), *Path(made["path"]).rglob("*")]:
        assert path.is_dir() or b"MUELLER" not in path.read_bytes(), path


def test_a_bundle_that_would_report_less_is_refused_in_one_line(site: Site) -> None:
    refused = site.heads("--json", code=1)
    assert refused.out == ""
    last = refused.err.strip().splitlines()[-1]
    assert last.startswith("dicom-node: the new bundle would no longer report diagnosis.")
    assert last.endswith("(--allow-fewer)")
    assert site.registry.models() == []


def test_a_finding_that_nobody_has_is_named_until_it_is_left_out(site: Site) -> None:
    lines = site.labels.read_text().splitlines()
    site.labels.write_text("\n".join([lines[0], *(line + "0" for line in lines[1:]), ""]))
    assert "diagnosis.nobody_has_it" in site.heads(*QUICK, code=1).err
    made = site.made("--leave-out")
    assert made["left_out"] == made["without_positives"] == ["diagnosis.nobody_has_it"]
    assert len(site.runs()) == 1, "the refused run was taken up again"


def test_a_stopped_run_goes_on_with_the_studies_it_began_with(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_behind_training(patch)
        assert "stopped by a test" in site.heads(*QUICK, code=1).err
    [run] = site.runs()
    before = (run / "heads" / "heads.safetensors").read_bytes()
    made = site.made()
    assert made["run"] == str(run)
    assert (run / "heads" / "heads.safetensors").read_bytes() == before


def test_other_labels_begin_a_new_run_and_what_was_stopped_is_deleted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_behind_training(patch)
        site.heads(*QUICK, code=1)
    [old] = site.runs()
    (site.folder / "training" / "20260101T000000.000000Z").mkdir()  # ended before it began in earnest
    site.add(STUDIES)
    assert site.made()["studies"] == STUDIES + 1
    [run] = site.runs()
    assert run != old


def test_if_new_does_nothing_while_nothing_is_new(site: Site) -> None:
    first = site.made("--if-new")
    assert first["new"] is True
    assert site.made("--if-new") == {"bundle": first["bundle"], "new": False}
    assert len(site.runs()) == 1
    assert site.made()["bundle"] == first["bundle"], "without it the same comes out again"
    site.add(STUDIES)
    assert site.made("--if-new")["new"] is True


def test_labels_that_give_the_active_bundle_again_change_nothing(site: Site, cli: Cli) -> None:
    made = site.made()
    assert cli("model", "activate", made["bundle"], "--config", site.config).code == 0
    again = site.made()
    assert (again["bundle"], again["role"]) == (made["bundle"], "active")
    assert len(site.registry.model_changes()) == 2


def test_only_one_retraining_runs_at_a_time(site: Site) -> None:
    with only_one_run(load_configuration(site.config)):
        assert "another retraining runs" in site.heads(*QUICK, code=1).err


def test_full_trains_on_what_the_node_reported_and_counts(
    site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which studies and files; what is made of them is replaced by an error."""
    site.config.write_text(site.config.read_text() + '[scope.exclude]\nae_titles = ["RESEARCH"]\n')
    for uid, title in (("1.3.1", "RESEARCH"), ("1.3.2", "PACS")):
        site.registry.record_arrivals([arrival(1, study=uid, at=AT, calling_ae=title)])
    site.registry.close_quiet(AT + 100, 0, AT + 100)
    claims = [site.registry.claim("w", AT + 600, AT + 101 + n) for n in range(2)]
    for number, claim in enumerate(claims):
        assert claim is not None
        if claim.study_instance_uid == "1.3.1":
            made = replace(report("1.3.1"), sop_instance_uid=f"2.25.9{number}")
            site.registry.finish_reported(claim, made, handover(), AT + 110)
    seen: list[ListedStudies] = []

    def full(_run: Any, source: ListedStudies, *_: object) -> None:
        seen.append(source)
        raise NotConverging("seen")

    monkeypatch.setattr(training.retrain, "retrain_full", full)
    reports = tmp_path / "reports.jsonl"
    reports.write_text(json.dumps({"study": "1.2.0", "items": ["Normal."]}) + "\n")
    command = ("retrain", "full", "--labels", site.labels, "--reports", reports, "--config", site.config)
    assert cli(*command).err.strip().endswith("dicom-node: seen")
    assert set(seen[0].references()) == {f"1.2.{number}" for number in range(STUDIES)}
    assert seen[0].files["1.2.7"] == [site.folder / "spool" / arrival(1, study="1.2.7").path]
    assert seen[0].known.report_of("1.2.0") is not None
    made = export_embeddings(load_configuration(site.config), site.registry, site.labels)
    kept = {record.study: record.patient for record in RunFolder(made.folder).records()}
    assert {study_id(uid): patient for uid, patient in seen[0].patients.items()} == kept, "one split for both commands"
    shutil.rmtree(made.folder)
    assert cli(*command).err.strip().endswith("dicom-node: seen")
    assert len(site.runs()) == 1, "the same run goes on"
