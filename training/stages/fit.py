"""Fitting one head on frozen study embeddings: what task heads and transfer heads share.

Embeddings get 1 % multiplicative noise, rare findings weigh more, RMSprop updates, and the checkpoint is the best one
on the validation studies (arXiv 2509.18638).

Legend of the suffixes: B studies of a batch, P embedding width, n outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss

from prima_core.base.config import HeadShape
from prima_core.task_heads import Head
from training.base.errors import BadTrainingData
from training.base.loop import EndlessOrder, LoopResult, LoopSettings, Outputs, Stage, train
from training.stages.targets import Numbers

HEAVIEST = 50.0  # a finding seen once in thousands would otherwise drown all others


class Kind(Enum):
    """What the outputs mean: independent yes or no, one of several levels, or a number in units of its deviation."""

    FLAGS = "flags"
    LEVELS = "levels"
    NUMBER = "number"


@dataclass(frozen=True)
class FitSettings:
    """How a head is fitted. hidden: widths between the embedding and the outputs; none makes it linear.

    noise: standard deviation of the factor that each value of an embedding is multiplied with, about 1.
    """

    loop: LoopSettings
    hidden: tuple[int, ...] = (4000, 1000)
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    noise: float = 0.01


@dataclass(frozen=True)
class Examples:
    """inputs: (N, P) float32. targets: (N, n), or (N, 1) for LEVELS and NUMBER; NaN is unknown."""

    inputs: npt.NDArray[np.float32]
    targets: Numbers

    def at(self, rows: npt.NDArray[np.int64]) -> Examples:
        """These rows alone."""
        return Examples(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True)
class Fitted:
    """A head that was fitted."""

    head: Head
    result: LoopResult

    @torch.inference_mode()
    def logits(self, inputs: npt.NDArray[np.float32]) -> Numbers:
        """(N, n) float64."""
        logits: Numbers = self.head(torch.from_numpy(np.ascontiguousarray(inputs, np.float32))).double().numpy()
        return logits

    @torch.no_grad()
    def move_logits(self, by: Numbers) -> None:
        """Move each output's logit, and so its probability, by that much: (n,)."""
        self.head.layers[-1].bias += torch.from_numpy(by).float()  # type: ignore[operator]


def fit(
    outputs: Sequence[str],
    kind: Kind,
    training: Examples,
    validation: Examples,
    settings: FitSettings,
    folder: Path,
    identity: dict[str, Any],
    title: str,
) -> Fitted:
    """Fit one head; resumes from `folder`. identity: whatever else the result depends on.

    Raises BadTrainingData when no training study has a label, and what `training.base.loop.train` raises.
    """
    if not np.isfinite(training.targets).any():
        raise BadTrainingData(f"{title}: no training study has a label")
    shape = HeadShape("transfer", (training.inputs.shape[1], *settings.hidden), tuple(outputs))
    stage = _HeadStage(shape, kind, training, validation, settings)
    facts = identity | {"outputs": list(outputs), "kind": kind.value, "fit": asdict(settings) | {"loop": None}}
    result = train(stage, settings.loop, folder, facts, title)
    fitted = Fitted(stage.module, result)
    if kind is Kind.FLAGS:
        fitted.move_logits(-stage.weights.log().double().numpy())  # weighted odds back to plain odds
    return fitted


class _HeadStage(Stage[int]):
    """Rows of the training examples → logits → the loss over what is known of them."""

    module: Head

    def __init__(
        self, shape: HeadShape, kind: Kind, training: Examples, validation: Examples, settings: FitSettings
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        self.module = Head(shape)
        for layer in self.module.layers:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.optimizer = torch.optim.RMSprop(
            self.module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._kind, self._noise, self._batch = kind, settings.noise, settings.loop.batch
        self._inputs, self._targets = torch.from_numpy(training.inputs), torch.from_numpy(training.targets).float()
        self._validation = torch.from_numpy(validation.inputs), torch.from_numpy(validation.targets).float()
        self._order = EndlessOrder(
            np.flatnonzero(np.isfinite(training.targets).any(axis=1)).tolist(), settings.loop.seed
        )
        self.weights = _positive_weights(self._targets) if kind is Kind.FLAGS else torch.ones(len(shape.outputs))
        self._level_weights = _level_weights(self._targets, len(shape.outputs)) if kind is Kind.LEVELS else None

    def draw(self, step: int, positions: range) -> list[int]:
        return [self._order[step * self._batch + position] for position in positions]

    def outputs(self, items: Sequence[int]) -> Outputs:
        rows = torch.tensor(items)
        input_BP = self._inputs[rows]
        noisy_BP = input_BP * (1 + self._noise * torch.randn(input_BP.shape))
        device = next(self.module.parameters()).device
        return {"logits": self.module(noisy_BP.to(device)), "rows": rows.to(device)}

    def losses(self, outputs: Outputs) -> Outputs:
        return {"loss": self._loss(outputs["logits"], self._targets[outputs["rows"].cpu()])}

    def validate(self) -> float | None:
        input_NP, target_Nn = self._validation
        if not target_Nn.isfinite().any():
            return None
        with torch.inference_mode():
            logit_Nn = self.module(input_NP.to(next(self.module.parameters()).device))
            return float(self._loss(logit_Nn, target_Nn))

    def _loss(self, logit_Bn: Tensor, target_Bn: Tensor) -> Tensor:
        target_Bn = target_Bn.to(logit_Bn.device)
        known_Bn = target_Bn.isfinite()
        if self._kind is Kind.LEVELS:
            known_B, weights = known_Bn[:, 0], self._level_weights
            weights = weights if weights is None else weights.to(logit_Bn.device)
            return cross_entropy(logit_Bn[known_B], target_Bn[known_B, 0].long(), weights)
        if self._kind is Kind.NUMBER:
            return smooth_l1_loss(logit_Bn[known_Bn], target_Bn[known_Bn])
        target_Bn = target_Bn.nan_to_num(0.0)
        weights = self.weights.to(logit_Bn.device)
        loss_Bn = binary_cross_entropy_with_logits(logit_Bn, target_Bn, pos_weight=weights, reduction="none")
        return (loss_Bn * known_Bn).sum() / known_Bn.sum().clamp(min=1)


def _positive_weights(target_Nn: Tensor) -> Tensor:
    """Negatives over positives of each output, at least 1."""
    positive_n, negative_n = (target_Nn == 1).sum(dim=0), (target_Nn == 0).sum(dim=0)
    return (negative_n / positive_n.clamp(min=1)).clamp(1.0, HEAVIEST)


def _level_weights(target_N1: Tensor, levels: int) -> Tensor:
    """Rare levels weigh more, by the root of their rarity: in full they would cost the common ones too much."""
    known = target_N1[target_N1.isfinite()].long()
    count = torch.bincount(known, minlength=levels).float()
    return (count.sum() / (levels * count.clamp(min=1))).sqrt()
