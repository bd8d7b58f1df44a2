"""A run's weights → a bundle that the node takes, together with its evaluation record.

Nothing half-trained leaves: every stage must have written its done.json, and the bundle's own checks run on the result.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prima_core.base.config import Architecture, HeadShape
from prima_core.bundle import Bundle, build_model, load_bundle, write_bundle
from training.base.checkpoint import write_json
from training.base.errors import BadTrainingData
from training.stages.heads import TrainedHeads
from training.stages.zero_shot import ZeroShotHead

EVALUATION = "evaluation.json"

Weights = Mapping[str, npt.NDArray[np.float32]]


def export_bundle(
    out: Path,
    *,
    name: str,
    version: str,
    training_state: str,
    architecture: Architecture,
    body: Weights,
    heads: TrainedHeads,
    zero_shot: Sequence[tuple[ZeroShotHead, Mapping[str, float]]] = (),
) -> Bundle:
    """Write the bundle and load it once as the node would.

    body: all tensors but the heads', by the bundle's names. zero_shot: heads with the thresholds of their outputs.
    Raises BadTrainingData when a tensor is missing, BundleError when something does not fit or `out` is not free.
    """
    shapes: list[HeadShape] = [*heads.shapes, *(head.shape for head, _ in zero_shot)]
    weights = {**body, **heads.weights}
    thresholds = {task: dict(of) for task, of in heads.thresholds.items()}
    for position, (head, cuts) in enumerate(zero_shot, len(heads.shapes)):
        weights |= head.weights(position)
        thresholds[head.shape.task] |= {output: cuts.get(output, 0.0) for output in head.shape.outputs}

    def tensor(wanted: str) -> npt.NDArray[np.float32]:
        if wanted not in weights:
            raise BadTrainingData(f"{wanted}: no stage of the run has trained it")
        return weights[wanted]

    write_bundle(
        out,
        name=name,
        version=version,
        training_state=training_state,
        architecture=replace(architecture, heads=tuple(shapes)),
        thresholds=thresholds,
        calibration=heads.temperatures,
        weights=tensor,
    )
    bundle = load_bundle(out)
    build_model(bundle, "cpu", "fp32")
    return bundle


def attach_evaluation(bundle: Bundle, evaluation: Mapping[str, object], page: Path | None = None) -> None:
    """Put the evaluation's figures, and its page, beside the manifest: what the node asks for before it activates."""
    write_json(bundle.directory / EVALUATION, {**evaluation, "bundle_id": bundle.manifest.id})
    if page is not None:
        shutil.copyfile(page, bundle.directory / "evaluation.html")
