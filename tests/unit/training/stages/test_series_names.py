"""Pre-training of the series-name encoder, and that CLIP starts from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.killed_training import killed_at
from support.training_cohort import cohort, tiny
from training.base.checkpoint import finish
from training.base.curve import read_curve
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.stages.clip import ClipSettings, ClipStage
from training.stages.series_names import SeriesNamesSettings, _NamesStage, train_series_names
from training.stages.start import begin_from, read_start
from training.stages.study_model import StudyModel
from training.stages.text_tower import TextSettings, make_text_tower

LOOP = LoopSettings(70, 12, warmup=2, device="cpu", checkpoint_every=10)
SETTINGS = SeriesNamesSettings(LOOP, learning_rate=1e-3)


def test_names_find_their_series_and_clip_starts_from_them(tmp_path: Path) -> None:
    studies = cohort(tmp_path / "store")
    folder = tmp_path / "names"
    train_series_names(studies.tokens, studies.split.train, tiny(), folder, SETTINGS)  # type: ignore[arg-type]
    curve = read_curve(folder / "curve.csv")
    assert curve[0]["loss"] > 1.0
    assert curve[-1]["loss"] < 0.05
    make_text_tower(studies.reports.values(), tmp_path / "text", TextSettings(16, 1, 2, 300, 32))
    stage = ClipStage(studies, tiny(), tmp_path / "text", ClipSettings(LOOP), folder)
    for name, tensor in read_start(folder).items():
        assert torch.equal(stage.module.image.state_dict()[name], tensor)
    other = replace(tiny(), sequence_vit=replace(tiny().sequence_vit, class_tokens=3))
    with pytest.raises(BadTrainingData, match="another architecture"):
        begin_from(StudyModel(other), folder)


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    studies = cohort(tmp_path / "store")
    settings = replace(SETTINGS, loop=replace(LOOP, steps=8, checkpoint_every=3))

    def names(folder: str) -> None:
        train_series_names(studies.tokens, studies.split.train, tiny(), tmp_path / folder, settings)  # type: ignore[arg-type]

    names("whole")
    with killed_at(_NamesStage, 5):
        names("killed")
    names("killed")
    assert (tmp_path / "killed/start.safetensors").read_bytes() == (tmp_path / "whole/start.safetensors").read_bytes()


def test_what_an_earlier_release_made_is_named(tmp_path: Path) -> None:
    finish(tmp_path, {}, (), {})
    with pytest.raises(BadTrainingData, match="earlier release"):
        read_start(tmp_path)


def test_it_is_refused_before_it_is_done_and_without_series(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingData, match="not ended"):
        read_start(tmp_path)
    studies = cohort(tmp_path / "store")
    with pytest.raises(BadTrainingData, match="two series"):
        train_series_names(studies.tokens, (), tiny(), tmp_path / "names", replace(SETTINGS))  # type: ignore[arg-type]
