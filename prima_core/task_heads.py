"""Task heads: the study embedding (or the CLIP image vector) → logits of diagnoses, referrals and priority.

Legend of the suffixes: B studies, P study embedding width, V CLIP vector width, X either, n outputs of one head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from prima_core.base.config import HeadShape

Thresholds = Mapping[str, Mapping[str, float]]


class Head(nn.Module):
    """One MLP with ReLU between its layers."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        widths = (*shape.widths, len(shape.outputs))
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, input_BX: Tensor) -> Tensor:
        hidden = input_BX
        for layer in self.layers[:-1]:
            hidden = layer(hidden).relu()
        result_Bn: Tensor = self.layers[-1](hidden)
        return result_Bn


class TaskHeads(nn.Module):
    """All heads of a bundle; several tasks' outputs may share one MLP's hidden layers, but only inside a task."""

    def __init__(self, shapes: Sequence[HeadShape], thresholds: Thresholds) -> None:
        super().__init__()
        self.shapes = tuple(shapes)
        self.thresholds = thresholds
        self.mlps = nn.ModuleList(Head(shape) for shape in shapes)

    def logit(self, task: str, output: str, study_BP: Tensor, clip_BV: Tensor) -> Tensor:
        """(B,) one output's logit, its threshold subtracted; its own head runs alone. Raises ValueError."""
        for shape, mlp in zip(self.shapes, self.mlps, strict=True):
            if shape.task == task and output in shape.outputs:
                logits_Bn = mlp(clip_BV if shape.source == "clip" else study_BP)
                logit_B: Tensor = logits_Bn[:, shape.outputs.index(output)]
                return logit_B - self.thresholds.get(task, {}).get(output, 0.0)
        raise ValueError(f"the bundle has no output {output!r} of task {task!r}")

    def forward(self, study_BP: Tensor, clip_BV: Tensor) -> list[dict[str, dict[str, float]]]:
        """For each study {task: {output: logit}}, the output's threshold already subtracted where it has one."""
        studies: list[dict[str, dict[str, float]]] = [{} for _ in range(len(study_BP))]
        for shape, mlp in zip(self.shapes, self.mlps, strict=True):
            thresholds = self.thresholds.get(shape.task, {})
            input_BX = clip_BV if shape.source == "clip" else study_BP
            logits_Bn = mlp(input_BX) - study_BP.new_tensor([thresholds.get(name, 0.0) for name in shape.outputs])
            for study, logits in zip(studies, logits_Bn.tolist(), strict=True):
                study.setdefault(shape.task, {}).update(zip(shape.outputs, logits, strict=True))
        return studies
