"""Muon beside another optimizer: who moves what, and a run that was killed goes on to the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from support.killed_training import killed_at
from support.training_cohort import CLIP, TEXT, cohort, tiny
from training.base.muon import WithMuon, inner_matrices, parameters_but
from training.stages.clip import ClipStage, train_clip
from training.stages.study_model import StudyModel
from training.stages.text_tower import make_text_tower

SETTINGS = replace(CLIP, muon=1e-2)


def test_only_matrices_between_layers_are_muons() -> None:
    model = StudyModel(tiny())
    ours = {id(parameter) for parameter in inner_matrices(model)}
    left = {name for name, parameter in model.named_parameters() if parameter.ndim == 2 and id(parameter) not in ours}
    assert {name.rsplit(".", 2)[-2] + "." + name.rsplit(".", 1)[-1] for name in left} == {
        "letters.weight",
        "pooling.class_tokens",
        "clip.weight",
    }
    assert len(ours) + len(parameters_but(model, inner_matrices(model))) == len([*model.parameters()])


def test_muon_moves_every_direction_of_a_matrix_alike() -> None:
    """A gradient that is nearly of one direction moves the others too; what is not Muon's follows its own optimizer."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    before = layer.weight.detach().clone()
    optimizer = WithMuon(torch.optim.SGD([layer.bias], lr=0.5), [layer.weight], 0.1)
    turn, other = (torch.linalg.qr(torch.randn(4, 4))[0] for _ in range(2))  # else Adam would do the same
    layer.weight.grad = turn @ torch.diag(torch.tensor([1.0, 0.1, 0.1, 0.1])) @ other
    layer.bias.grad = torch.ones(4)
    bias = layer.bias.detach().clone()
    optimizer.step()
    moved = torch.linalg.svdvals(before - layer.weight.detach())
    assert moved.max() / moved.min() < 2.5
    torch.testing.assert_close(layer.bias.detach(), bias - 0.5)


def test_matrices_decay_by_the_learning_rate_times_the_decay() -> None:
    layer = nn.Linear(4, 4, bias=False)
    before = layer.weight.detach().clone()
    optimizer = WithMuon(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5), [layer.weight], 0.1, decay=0.5)
    layer.weight.grad = torch.zeros(4, 4)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), 0.95 * before)


def test_the_stage_hands_its_decay_on(tmp_path: Path) -> None:
    studies = cohort(tmp_path / "store")
    make_text_tower(studies.reports.values(), tmp_path / "text", TEXT)
    stage = ClipStage(studies, tiny(), tmp_path / "text", replace(SETTINGS, muon_decay=0.25), None)
    assert stage.optimizer.param_groups[-1]["weight_decay"] == 0.25


def test_a_closure_is_refused() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="gradients"):
        WithMuon(torch.optim.SGD([layer.bias], lr=0.5), [layer.weight], 0.1).step(lambda: 0.0)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Muon's momentum is in the checkpoint."""
    studies = cohort(tmp_path / "store")
    make_text_tower(studies.reports.values(), tmp_path / "text", TEXT)
    train_clip(studies, tiny(), tmp_path / "text", tmp_path / "whole", SETTINGS)
    with killed_at(ClipStage, 5):
        train_clip(studies, tiny(), tmp_path / "text", tmp_path / "killed", SETTINGS)
    train_clip(studies, tiny(), tmp_path / "text", tmp_path / "killed", SETTINGS)
    whole, killed = (load_file(tmp_path / run / "study_model.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    train_clip(studies, tiny(), tmp_path / "text", tmp_path / "adam", CLIP)
    plain = load_file(tmp_path / "adam" / "study_model.safetensors")
    assert not torch.equal(whole["study_vit.clip.weight"], plain["study_vit.clip.weight"])
