"""The model that comes with the node: whole, small, evaluated, honest about what it is, and what the documents say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dicom_node.demo.run import SHIPPED_BUNDLE
from prima_core.bundle import build_model, load_bundle
from training.phantom.case import SIMULATED
from training.phantom.prepared import prepared
from training.phantom.study import simulate
from training.speedrun.steps import AWAY, MOST_BYTES, UNSEEN
from training.speedrun.table import figures

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(90_000_000, 90_000_008)  # far from every run's, see training/speedrun/steps.py


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SHIPPED_BUNDLE / "evaluation.json").read_text("utf-8"))
    return found


def test_it_is_small_and_says_that_it_knows_phantoms_alone(record: dict[str, Any]) -> None:
    bundle = load_bundle(SHIPPED_BUNDLE)
    assert bundle.manifest.training_state == record["training_state"] == "phantom"
    assert record["bundle_id"] == bundle.manifest.id
    assert sum(path.stat().st_size for path in SHIPPED_BUNDLE.iterdir()) <= MOST_BYTES
    assert set(bundle.manifest.labels["diagnosis"]) == set(SIMULATED)
    assert all(temperature for temperature in bundle.manifest.calibration.values())


def test_the_documents_give_its_figures(record: dict[str, Any]) -> None:
    said = (ROOT / "deploy/TRAINING.md").read_text("utf-8")
    for name, value in figures(record).items():
        assert value is not None, name
        assert f"| {name} | {value:.3f} |" in said, f"TRAINING.md does not say that {name} is {value:.3f}"
    short = (ROOT / "README.md").read_text("utf-8")
    for one in (UNSEEN, AWAY):
        assert f"{record['sets'][one]['diagnosis']['mean_auroc']['value']:.3f}" in short


def test_it_tells_present_from_absent_in_patients_of_no_run() -> None:
    model = build_model(load_bundle(SHIPPED_BUNDLE), "cpu", "fp32")
    present, said = [], []
    for seed in SEEDS:
        study = simulate(seed, "home")
        answer = model.predict_one(prepared(study)).diagnosis
        present += [study.truth.labels.diagnosis[name] for name in SIMULATED]
        said += [answer[name] for name in SIMULATED]
    assert 10 < np.sum(present) < len(present) / 3
    assert roc_auc_score(present, said) > 0.75
