"""Training on a GPU: in every precision it learns, it goes on after a kill, and too little memory makes it no other.

Studies are made up (tests/support/training_cohort.py). Several GPUs are not covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.killed_training import killed_at
from support.training_cohort import CLIP, TEXT, cohort, tiny
from training.base.curve import read_curve
from training.base.loop import LoopSettings, Precision, Stage, train
from training.base.splits import Split
from training.stages.clip import ClipStage, Cohort, train_clip
from training.stages.text_tower import make_text_tower

ON_GPU = replace(CLIP, loop=replace(CLIP.loop, device="auto"), abnormal_extra=0, label_weight=1.0)


@pytest.fixture
def studies(tmp_path: Path) -> Cohort:
    return cohort(tmp_path / "store")


@pytest.fixture
def text(tmp_path: Path, studies: Cohort) -> Path:
    make_text_tower(studies.reports.values(), tmp_path / "text", TEXT)
    return tmp_path / "text"


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_one_batch_is_learned_by_heart(tmp_path: Path, studies: Cohort, text: Path, precision: Precision) -> None:
    one_batch = replace(studies, split=Split(studies.split.train[:6], (), ()))
    settings = replace(ON_GPU, loop=replace(ON_GPU.loop, steps=80, precision=precision))
    figures = train_clip(one_batch, tiny(), text, tmp_path / "clip", settings)
    first, *_, last = read_curve(tmp_path / "clip/curve.csv")
    assert first["clip"] > 1.5
    assert last["clip"] < 0.1
    assert last["labels"] < 0.1 < first["labels"]
    assert (figures["skipped"], figures["zeroed"]) == (0, 0)


def test_a_gpu_follows_the_curve_of_the_cpu(tmp_path: Path, studies: Cohort, text: Path) -> None:
    for device in ("auto", "cpu"):
        settings = replace(ON_GPU, loop=replace(ON_GPU.loop, steps=6, device=device))
        train_clip(studies, tiny(), text, tmp_path / device, settings)
    ours, theirs = (read_curve(tmp_path / device / "curve.csv") for device in ("auto", "cpu"))
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], abs=2e-3)


@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_a_killed_run_goes_on_along_its_curve(
    tmp_path: Path, studies: Cohort, text: Path, precision: Precision
) -> None:
    """With fp16 the scaler's state too; sums on a GPU have no fixed order, so not to the bit."""
    settings = replace(ON_GPU, loop=replace(ON_GPU.loop, steps=10, precision=precision))
    train_clip(studies, tiny(), text, tmp_path / "whole", settings)
    with killed_at(ClipStage, 5):
        train_clip(studies, tiny(), text, tmp_path / "killed", settings)
    train_clip(studies, tiny(), text, tmp_path / "killed", settings)
    whole, killed = (read_curve(tmp_path / run / "curve.csv") for run in ("whole", "killed"))
    assert [row["loss"] for row in killed] == pytest.approx([row["loss"] for row in whole], abs=2e-3)


class Wide(Stage[int]):
    """Every item takes 256 MB of the GPU while it is computed."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01)

    def draw(self, step: int, positions: range) -> Sequence[int]:
        return positions

    def outputs(self, items: Sequence[int]) -> dict[str, Tensor]:
        row = torch.tensor(items, device=self.module.weight.device).float()[:, None]
        return {"guess": self.module(row) + row.expand(-1, 64 << 20).clone().mean(dim=1, keepdim=True) * 0}

    def losses(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": outputs["guess"].square().mean()}


def test_too_little_memory_means_fewer_items_at_once(tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((1280 << 20) / torch.cuda.get_device_properties(0).total_memory)
    try:
        result = train(Wide(), LoopSettings(steps=2, batch=8), tmp_path, {})
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.micro_batch in (1, 2, 4)
    roomy = train(Wide(), LoopSettings(steps=2, batch=8), tmp_path / "roomy", {})
    assert roomy.micro_batch == 8
    assert result.losses == pytest.approx(roomy.losses)
