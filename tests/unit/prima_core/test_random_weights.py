"""Random bundles: small, untrained, the same on every machine; the released widths have the published size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prima_core.bundle import build_model, expected_tensors, load_bundle
from prima_core.random_weights import DIAGNOSES, _random_tensor, demo, released, write_random_bundle
from support.golden import GoldenStudy

PINNED = [-0.498273969, 0.29786396, 0.203251481]


def test_the_demo_bundle_is_small_untrained_and_runs(tmp_path: Path, golden_studies: list[GoldenStudy]) -> None:
    bundle = write_random_bundle(tmp_path / "demo", demo(), name="demo")
    assert sum(path.stat().st_size for path in bundle.directory.iterdir()) < 5_000_000
    assert bundle.manifest.training_state == "untrained"
    prediction = build_model(load_bundle(bundle.directory), "cpu", "fp32").predict_one(golden_studies[0].study)
    assert tuple(prediction.diagnosis) == DIAGNOSES
    assert tuple(prediction.priority) == ("none", "low", "medium", "high")
    assert len(set(prediction.diagnosis.values())) == len(DIAGNOSES)


def test_labels_can_be_given() -> None:
    architecture = demo(diagnoses=["glioma"], referrals=["neurology"])
    assert architecture.labels("diagnosis") == ("glioma",)
    assert architecture.labels("referral") == ("neurology",)


def test_numbers_depend_on_seed_and_name_only() -> None:
    """The constants pin the numbers across machines and library versions."""
    one = _random_tensor("study_vit.clip.weight", (2, 3), 0)
    np.testing.assert_array_equal(one, _random_tensor("study_vit.clip.weight", (2, 3), 0))
    assert not np.array_equal(one, _random_tensor("study_vit.clip.weight", (2, 3), 1))
    assert not np.array_equal(one, _random_tensor("sequence_vit.output.weight", (2, 3), 0))
    np.testing.assert_allclose(one.ravel()[:3], PINNED, rtol=1e-6)


def test_released_widths_have_the_published_parameters() -> None:
    shapes = expected_tensors(released())
    encoder = sum(int(np.prod(shape)) for name, shape in shapes.items() if name.startswith("tokenizer."))
    head = sum(int(np.prod(shape)) for name, shape in shapes.items() if name.startswith("heads.mlps.0."))
    assert shapes["study_vit.clip.weight"] == (128, 10_240)
    assert round(encoder / 1e6, 1) == 14.7
    assert round(head / 1e6) == 45
