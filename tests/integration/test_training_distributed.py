"""Training on several processes of one machine (gloo) is training on one with their batches put together.

Does not cover GPUs or several machines.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file

from support.training_cohort import TEXT, cohort, train_clip_alone, train_one_of_two
from training.base.curve import read_curve
from training.stages.text_tower import make_text_tower

pytestmark = pytest.mark.slow
STEPS = 4


def run_two(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train_one_of_two, (port, folder, STEPS), nprocs=2)


def test_two_processes_give_the_curve_and_weights_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    """Every study has negatives of the other process, and gradients come back from there."""
    make_text_tower(cohort(tmp_path / "store").reports.values(), tmp_path / "text", TEXT)
    run_two(tmp_path)
    train_clip_alone(tmp_path, STEPS)
    one, two = (read_curve(tmp_path / name / "curve.csv") for name in ("clip1", "clip2"))
    assert len(one) == STEPS
    for single, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(single, rel=1e-5, abs=1e-5)
    before, after = (load_file(tmp_path / name / "study_model.safetensors") for name in ("clip1", "clip2"))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-3, atol=1e-4)
