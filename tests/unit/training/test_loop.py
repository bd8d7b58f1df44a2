"""The training loop: resumption, micro-batches, values that are not finite, memory and disk. A linear model stands in.

Does not cover several processes (tests/integration/test_training_distributed.py) and GPUs.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.base import checkpoint
from training.base.checkpoint import finish, finished, write_weights
from training.base.curve import read_curve
from training.base.errors import BadTrainingData, NoSpace, NotConverging, TrainingError
from training.base.loop import EndlessOrder, LoopSettings, Stage, random, train

SETTINGS = LoopSettings(steps=12, batch=4, warmup=3, device="cpu", checkpoint_every=5)


class Killed(Exception):
    """Stands for a process that dies."""


class Line(Stage[tuple[float, float]]):
    """Learns y = 2 x + 1 with dropout; the loss has a parameter of its own, as CLIP's temperature is one."""

    def __init__(self, dropout: float = 0.2, die_at: int = -1) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(1, 8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 1))
        self.module = nn.ModuleDict({"model": self.model, "scale": nn.Linear(1, 1)})
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=0.02)
        self.order = EndlessOrder(range(20), seed=1)
        self.die_at = die_at
        self.largest = 0
        self.validations: list[float | None] = []

    def draw(self, step: int, positions: range) -> Sequence[tuple[float, float]]:
        if step == self.die_at:
            raise Killed
        numbers = [self.order[step * 4 + position] / 10 for position in positions]
        noise = [random(7, step, position).normal() * 0.01 for position in positions]
        return [(x, 2 * x + 1 + e) for x, e in zip(numbers, noise, strict=True)]

    def outputs(self, items: Sequence[tuple[float, float]]) -> dict[str, Tensor]:
        self.largest = max(self.largest, len(items))
        x, y = torch.tensor(items).T[..., None]
        return {"guess": self.model(x), "truth": y}

    def losses(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        # Not a mean over items: every item is compared with every other one, as in a contrastive loss.
        differences = self.module["scale"](outputs["guess"]) - outputs["truth"].T
        return {"loss": differences.square().mean(), "largest": differences.abs().max()}

    def validate(self) -> float | None:
        return self.validations.pop(0) if self.validations else None


def weights(stage: Stage[Any]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_loss_falls(tmp_path: Path) -> None:
    result = train(Line(0.0), replace(SETTINGS, steps=150), tmp_path, {})
    curve = read_curve(tmp_path / "curve.csv")
    assert [row["step"] for row in curve] == list(range(150))
    assert curve[-1]["loss"] == result.losses["loss"] < 0.5 * curve[0]["loss"]


@pytest.mark.parametrize("die_at", [3, 5, 11])
def test_a_killed_run_goes_on_to_the_same_weights_and_curve(tmp_path: Path, die_at: int) -> None:
    whole = Line()
    train(whole, SETTINGS, tmp_path / "whole", {})
    with pytest.raises(Killed):
        train(Line(die_at=die_at), SETTINGS, tmp_path / "killed", {})
    second = Line()
    if die_at >= SETTINGS.checkpoint_every:
        second.model[0].weight.data.zero_()  # the checkpoint counts, not what the stage starts from
    train(second, SETTINGS, tmp_path / "killed", {})
    assert same(weights(whole), weights(second))
    assert (tmp_path / "whole/curve.csv").read_bytes() == (tmp_path / "killed/curve.csv").read_bytes()


def test_a_run_that_had_ended_says_the_same_again(tmp_path: Path) -> None:
    first, again = Line(), Line(die_at=0)
    assert train(first, SETTINGS, tmp_path, {}) == train(again, SETTINGS, tmp_path, {})
    assert same(weights(first), weights(again))


def test_small_pieces_give_the_same_weights_as_the_whole_batch(tmp_path: Path) -> None:
    whole, pieces = Line(0.0), Line(0.0)
    train(whole, SETTINGS, tmp_path / "whole", {})
    result = train(pieces, replace(SETTINGS, micro_batch=3), tmp_path / "pieces", {})
    assert pieces.largest == result.micro_batch == 3
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(pieces)[name], tensor, rtol=1e-5, atol=1e-6)


def test_dropout_is_the_same_in_both_passes_of_a_small_piece(tmp_path: Path) -> None:
    stage = Line(0.5)
    seen: dict[int, list[Tensor]] = {}
    outputs = stage.outputs

    def spy(items: Sequence[tuple[float, float]]) -> dict[str, Tensor]:
        result = outputs(items)
        seen.setdefault(hash(tuple(items)), []).append(result["guess"].detach())
        return result

    stage.outputs = spy  # type: ignore[method-assign]
    train(stage, replace(SETTINGS, steps=1, micro_batch=2), tmp_path, {})
    assert [torch.equal(*pair) for pair in seen.values()] == [True, True]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_out_of_memory_halves_what_runs_at_once_and_nothing_else(
    tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, short = Line(0.0), Line(0.0)
    outputs, calls = short.outputs, [0]

    def fail(*_: object) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise torch.OutOfMemoryError

    def once(items: Sequence[tuple[float, float]]) -> dict[str, Tensor]:
        if where == "forward":
            fail()
        result = outputs(items)
        if where == "backward" and calls[0] == 0:
            result["guess"].register_hook(fail)
        return result

    short.outputs = once  # type: ignore[method-assign]
    train(whole, SETTINGS, tmp_path / "whole", {})
    result = train(short, SETTINGS, tmp_path / "short", {})
    assert result.micro_batch == 2
    assert "out of memory: 2 items at once" in capsys.readouterr().err
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(short)[name], tensor, rtol=1e-5, atol=1e-6)


def test_memory_too_small_for_one_item_ends_the_run(tmp_path: Path) -> None:
    stage = Line()

    def never(_: object) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError

    stage.outputs = never  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="single item"):
        train(stage, SETTINGS, tmp_path, {})


def test_a_loss_that_is_not_finite_changes_nothing_and_is_counted(tmp_path: Path) -> None:
    stage = Line()
    losses, before = stage.losses, weights(stage)
    stage.losses = lambda outputs: losses(outputs) | {"loss": torch.tensor(float("nan"))}  # type: ignore[method-assign]
    result = train(stage, replace(SETTINGS, steps=3), tmp_path, {})
    assert (result.skipped, result.zeroed) == (3, 0)
    assert same(before, weights(stage))


def test_gradients_that_are_not_finite_become_zero_and_are_counted(tmp_path: Path) -> None:
    stage = Line()
    before = weights(stage)
    stage.model[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    result = train(stage, replace(SETTINGS, steps=3), tmp_path, {})
    assert (result.skipped, result.zeroed) == (0, 3)
    assert torch.equal(before["model.0.weight"], weights(stage)["model.0.weight"])
    assert not torch.equal(before["model.3.weight"], weights(stage)["model.3.weight"])


def test_too_many_of_them_end_the_run_and_leave_no_weights(tmp_path: Path) -> None:
    stage = Line()
    losses = stage.losses
    stage.losses = lambda outputs: losses(outputs) | {"loss": torch.tensor(float("inf"))}  # type: ignore[method-assign]
    with pytest.raises(NotConverging, match="3 losses"):
        train(stage, replace(SETTINGS, max_nonfinite=2), tmp_path, {})
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_best_weights_of_the_validation_are_kept(tmp_path: Path) -> None:
    stage, short = Line(), Line()
    stage.validations = [3.0, 1.0, 2.0]
    result = train(stage, replace(SETTINGS, validate_every=4, schedule="constant"), tmp_path / "long", {})
    assert (result.best, result.best_step) == (1.0, 7)
    train(short, replace(SETTINGS, steps=8, schedule="constant"), tmp_path / "short", {})
    assert same(weights(stage), weights(short))
    assert [row["validation"] for row in read_curve(tmp_path / "long/validation.csv")] == [3.0, 1.0, 2.0]


def test_the_learning_rate_rises_and_falls() -> None:
    settings = replace(SETTINGS, steps=103)
    factors = [settings.factor(step) for step in range(103)]
    assert factors[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert factors[53] == pytest.approx(0.5)
    assert factors[-1] < 0.001
    assert replace(settings, schedule="constant").factor(90) == 1


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(Line(die_at=8), SETTINGS, tmp_path, {"depth": 2})
    with pytest.raises(BadTrainingData, match="depth = 2, now 3"):
        train(Line(), SETTINGS, tmp_path, {"depth": 3})
    with pytest.raises(BadTrainingData, match=r"loop\.seed"):
        train(Line(), replace(SETTINGS, seed=1), tmp_path, {"depth": 2})
    train(Line(), replace(SETTINGS, micro_batch=2), tmp_path, {"depth": 2})


def test_a_full_disk_is_said_and_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        train(Line(die_at=7), SETTINGS, tmp_path, {})
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(_tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(NoSpace):
            train(Line(), SETTINGS, tmp_path, {})
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
    train(Line(), SETTINGS, tmp_path, {})


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(BadTrainingData, match="not a checkpoint"):
        train(Line(), SETTINGS, tmp_path, {})


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_one_process_trains_in_one_precision_after_another(tmp_path: Path, precision: Any) -> None:
    result = train(Line(), replace(SETTINGS, steps=2, precision=precision), tmp_path, {})
    assert np.isfinite(result.losses["loss"])


def test_done_names_settings_and_hashes_and_notices_changes(tmp_path: Path) -> None:
    assert finished(tmp_path, {"depth": 2}) is None
    write_weights(tmp_path / "w.safetensors", {"a": torch.ones(2)})
    finish(tmp_path, {"depth": 2}, ["w.safetensors"], {"loss": 0.5})
    assert finished(tmp_path, {"depth": 2}) == {"loss": 0.5}
    assert json.loads((tmp_path / "done.json").read_text())["settings"] == {"depth": 2}
    with pytest.raises(BadTrainingData, match="depth"):
        finished(tmp_path, {"depth": 3})
    write_weights(tmp_path / "w.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(BadTrainingData, match="altered"):
        finished(tmp_path, {"depth": 2})


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(NotConverging):
        write_weights(tmp_path / "w.safetensors", {"a": torch.tensor([1.0, float("nan")])})
    assert not list(tmp_path.iterdir())


def test_an_order_repeats_nothing_before_everything_was_there() -> None:
    order = EndlessOrder([3, 1, 4, 1], seed=5)
    drawn = [order[k] for k in range(400)]
    assert all(sorted(drawn[start : start + 4]) == [1, 1, 3, 4] for start in range(0, 400, 4))
    assert len({tuple(drawn[start : start + 4]) for start in range(0, 400, 4)}) == 12
    assert EndlessOrder([3, 1, 4, 1], seed=5)[123] == drawn[123]
