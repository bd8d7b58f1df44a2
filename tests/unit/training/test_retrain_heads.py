"""New heads on a bundle's own embeddings: what they take over, what they leave out, and what is refused.

The embeddings are made up; that the node's worker answers what these heads say is tested in
`tests/integration/test_retrain_node.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prima_core.bundle import Bundle, build_model, load_bundle
from training.base.cohort import StudyLabels, StudyRecord, write_labels
from training.base.embeddings import Embeddings, write_embeddings
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.evaluate.held_out import TEST_PART
from training.retrain import RetrainSettings, retrain_heads
from training.run_folder import RunFolder
from training.stages.fit import FitSettings
from training.stages.heads import HeadsSettings

STUDIES = 90
FIT = FitSettings(LoopSettings(60, 32, device="cpu", validate_every=20), hidden=(), learning_rate=2e-2)
SETTINGS = RetrainSettings("2", heads=HeadsSettings(FIT), allow_fewer=True, resamples=4)


@pytest.fixture
def base(random_bundle: Path) -> Bundle:
    torch.set_num_threads(1)
    return load_bundle(random_bundle)


def site_run(folder: Path, base: Bundle, names: tuple[str, ...] = ("tumor_adult_glioma", "x")) -> RunFolder:
    """A run without images; the sign of the embedding's n-th value decides the n-th finding."""
    folder.mkdir(exist_ok=True)
    width = base.manifest.architecture.study_vit.pooled_width
    vectors = np.random.default_rng(0).normal(size=(STUDIES, width)).astype(np.float32)
    vectors[:, : len(names)] += np.sign(vectors[:, : len(names)])
    vectors[:, len(names) :] *= 0.1
    studies = tuple(f"{n:016x}" for n in range(STUDIES))
    write_embeddings(
        folder / "embeddings.safetensors", Embeddings(studies, vectors, np.zeros((STUDIES, 0), np.float32))
    )
    write_labels(
        folder / "labels.csv",
        {
            study: StudyLabels({name: bool(v[n] > 0) for n, name in enumerate(names)})
            for study, v in zip(studies, vectors, strict=True)
        },
    )
    lines = [json.dumps(StudyRecord(study, f"p{study}").as_json()) + "\n" for study in studies]
    (folder / "records.jsonl").write_text("".join(lines))
    return RunFolder(folder)


def answers(bundle: Bundle, vectors: np.ndarray) -> list[dict[str, dict[str, float]]]:
    """What the node's model says of embeddings."""
    model = build_model(bundle, "cpu", "fp32")
    with torch.inference_mode():
        study = torch.from_numpy(vectors)
        return model.heads(study, model.study_vit.clip_vector(study))


def test_a_task_with_labels_is_replaced_and_the_others_answer_as_before(base: Bundle, tmp_path: Path) -> None:
    run = site_run(tmp_path / "run", base)
    bundle = retrain_heads(run, base, tmp_path / "new", SETTINGS)
    manifest, old = bundle.manifest, base.manifest
    assert (manifest.name, manifest.version, manifest.training_state) == (old.name, "2", old.training_state)
    assert manifest.id != old.id
    assert manifest.labels["diagnosis"] == ("tumor_adult_glioma", "x")
    for task in ("referral", "priority"):
        assert manifest.labels[task] == old.labels[task]
        assert manifest.calibration[task] == old.calibration[task]
    assert manifest.thresholds["referral"] == old.thresholds["referral"]
    assert [manifest.files[name] for name in ("tokenizer.safetensors", "study_model.safetensors")] == [
        old.files[name] for name in ("tokenizer.safetensors", "study_model.safetensors")
    ]
    embeddings, labels = run.embeddings(), run.labels()
    rows = embeddings.rows(run.split().test)
    new, before = answers(bundle, embeddings.study[rows]), answers(base, embeddings.study[rows])
    for one, other in zip(new, before, strict=True):
        assert one["priority"] == pytest.approx(other["priority"])
        assert one["referral"] == pytest.approx(other["referral"])
    truth = [labels[study].diagnosis["tumor_adult_glioma"] for study in run.split().test]
    assert np.mean([(one["diagnosis"]["tumor_adult_glioma"] > 0) == t for one, t in zip(new, truth, strict=True)]) > 0.8


def test_the_evaluation_beside_it_is_of_patients_who_were_not_trained_on(base: Bundle, tmp_path: Path) -> None:
    run = site_run(tmp_path / "run", base)
    bundle = retrain_heads(run, base, tmp_path / "new", SETTINGS)
    record = json.loads((bundle.directory / "evaluation.json").read_text())
    assert (record["bundle_id"], record["base"]) == (bundle.manifest.id, base.manifest.id)
    assert record["studies"] == len(run.split().test) == record["sets"][TEST_PART]["studies"]
    assert record["auroc"]["tumor_adult_glioma"] > 0.8
    assert record["kept_tasks"] == ["priority", "referral"]
    assert "diagnosis.structural_edema" in record["no_longer_reported"]
    assert f"{TEST_PART} under {base.manifest.id}" in record["sets"], "the same studies under the bundle before"
    assert (bundle.directory / "evaluation.html").exists()


def test_a_finding_that_would_no_longer_be_reported_is_named_and_refused(base: Bundle, tmp_path: Path) -> None:
    run = site_run(tmp_path / "run", base)
    with pytest.raises(BadTrainingData, match=r"no longer report .*diagnosis\.structural_edema.*--allow-fewer"):
        retrain_heads(run, base, tmp_path / "new", replace(SETTINGS, allow_fewer=False))
    assert not (tmp_path / "new").exists()
    every = site_run(tmp_path / "every", base, base.manifest.labels["diagnosis"])
    small = replace(SETTINGS, heads=HeadsSettings(replace(FIT, loop=replace(FIT.loop, steps=2))), allow_fewer=False)
    bundle = retrain_heads(every, base, tmp_path / "new", small)
    assert set(bundle.manifest.labels["diagnosis"]) == set(base.manifest.labels["diagnosis"])


@pytest.mark.parametrize("part", ["", "train"])
def test_a_finding_that_cannot_be_learned_is_named_or_left_out_on_demand(
    base: Bundle, tmp_path: Path, part: str
) -> None:
    """Nobody has it; or only patients who test the model have it, so that no training study even says no."""
    run = site_run(tmp_path / "run", base)
    labels = run.labels()
    for study in run.split().train if part else labels:
        labels[study].diagnosis.pop("x") if part else labels[study].diagnosis.update(x=False)  # type: ignore[attr-defined]
    write_labels(run / "labels.csv", labels)
    with pytest.raises(BadTrainingData, match=r"training studies of diagnosis\.x"):
        retrain_heads(run, base, tmp_path / "new", SETTINGS)
    leave_out = replace(SETTINGS, heads=replace(SETTINGS.heads, leave_out=True))
    bundle = retrain_heads(run, base, tmp_path / "new", leave_out)
    assert bundle.manifest.labels["diagnosis"] == ("tumor_adult_glioma",)
    assert json.loads((bundle.directory / "evaluation.json").read_text())["left_out"] == ["diagnosis.x"]


def test_nothing_is_made_that_no_study_can_judge(base: Bundle, tmp_path: Path) -> None:
    run = site_run(tmp_path / "run", base)
    labels = run.labels()
    write_labels(run / "labels.csv", {study: labels[study] for study in run.split().train})
    with pytest.raises(BadTrainingData, match="test part"):
        retrain_heads(run, base, tmp_path / "new", SETTINGS)
    assert not (tmp_path / "new").exists()


def test_a_call_that_was_stopped_behind_the_export_ends_with_the_same_bundle(base: Bundle, tmp_path: Path) -> None:
    run = site_run(tmp_path / "run", base)
    first = retrain_heads(run, base, tmp_path / "new", SETTINGS)
    (first.directory / "evaluation.json").unlink()
    assert retrain_heads(run, base, tmp_path / "new", SETTINGS).manifest == first.manifest
    assert (first.directory / "evaluation.json").exists()
