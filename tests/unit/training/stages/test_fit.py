"""Fitting one head: it can learn its examples by heart, and a kill changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.killed_training import killed_at
from training.base.curve import read_curve
from training.base.loop import LoopSettings
from training.stages.fit import Examples, FitSettings, Fitted, Kind, _HeadStage, fit

STUDIES, WIDTH = 16, 24
SETTINGS = FitSettings(LoopSettings(300, STUDIES, device="cpu", checkpoint_every=3), (32,), 3e-3, noise=0.0)
OUTPUTS = {Kind.FLAGS: ("glioma", "abscess"), Kind.LEVELS: ("none", "low", "medium"), Kind.NUMBER: ("age",)}


def examples(kind: Kind) -> Examples:
    """One batch whose answers have nothing to do with its embeddings."""
    random = np.random.default_rng(0)
    answers = {
        Kind.FLAGS: random.integers(2, size=(STUDIES, 2)),
        Kind.LEVELS: random.integers(3, size=(STUDIES, 1)),
        Kind.NUMBER: random.normal(size=(STUDIES, 1)),
    }
    return Examples(random.normal(size=(STUDIES, WIDTH)).astype(np.float32), answers[kind].astype(np.float64))


def fitted(kind: Kind, folder: Path, settings: FitSettings = SETTINGS) -> Fitted:
    return fit(OUTPUTS[kind], kind, examples(kind), examples(kind), settings, folder, {}, kind.value)


@pytest.mark.parametrize("kind", Kind)
def test_one_batch_is_learned_by_heart(tmp_path: Path, kind: Kind) -> None:
    fitted(kind, tmp_path)
    first, *_, last = read_curve(tmp_path / "curve.csv")
    assert first["loss"] > 0.3
    assert last["loss"] < 0.02


@pytest.mark.parametrize("kind", Kind)
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, kind: Kind) -> None:
    settings = replace(SETTINGS, loop=replace(SETTINGS.loop, steps=8), noise=0.1)
    whole = fitted(kind, tmp_path / "whole", settings).head.state_dict()
    with killed_at(_HeadStage, 5):
        fitted(kind, tmp_path / "killed", settings)
    after = fitted(kind, tmp_path / "killed", settings).head.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in whole.items())
