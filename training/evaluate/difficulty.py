"""Simulated findings by how hard they are to see, so that easy phantoms flatter no model.

Each positive study of an output falls into a bin by the finding's contrast-to-noise on its best series, and by its
size; the negatives are the same for all bins. A model that sees only what is plain shows it here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from training.base.errors import BadTrainingData
from training.evaluate.figures import FEWEST, mean_auroc
from training.evaluate.scored import Scored

CONTRAST = (0.0, 2.0, 5.0, 10.0, np.inf)  # times the noise
SIZE_MM = (0.0, 10.0, 20.0, 40.0, np.inf)


@dataclass(frozen=True)
class Bin:
    """low, high: of the measure. positives: studies with such a finding, over all outputs. auroc: mean over outputs
    with FEWEST or more of them; sensitivity: share of the positives above the threshold.
    """

    low: float
    high: float | None
    positives: int
    outputs: int
    auroc: float | None
    sensitivity: float | None


def by_contrast(scored: Scored, truth: Mapping[str, str]) -> tuple[Bin, ...]:
    """Bins of contrast-to-noise. truth: JSON of each study as the phantoms give it."""
    return _bins(scored, _plainest(scored, truth, lambda finding: finding["contrast_to_noise"]), CONTRAST)


def by_size(scored: Scored, truth: Mapping[str, str]) -> tuple[Bin, ...]:
    """Bins of the largest diameter; findings without one (diffuse ones) are in none."""
    return _bins(scored, _plainest(scored, truth, lambda finding: finding["size_mm"] or np.nan), SIZE_MM)


def _plainest(scored: Scored, truth: Mapping[str, str], measure: Callable[[Mapping[str, Any]], float]) -> np.ndarray:
    """(N, n) the measure of the plainest finding that gives the output, NaN where there is none."""
    found = np.full(scored.logits.shape, np.nan)
    for row, record in enumerate(scored.records):
        for finding in _findings(truth.get(record.study, '{"findings": []}')):
            for name in finding["diagnoses"]:
                if name in scored.names:
                    column = scored.names.index(name)
                    found[row, column] = np.fmax(found[row, column], measure(finding))
    return found


def _findings(text: str) -> Sequence[Mapping[str, Any]]:
    try:
        findings: Sequence[Mapping[str, Any]] = json.loads(text)["findings"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadTrainingData("a study's truth is not that of a phantom") from error
    return findings


def _bins(scored: Scored, measure: np.ndarray, edges: Sequence[float]) -> tuple[Bin, ...]:
    return tuple(_bin(scored, measure, low, high) for low, high in pairwise(edges))


def _bin(scored: Scored, measure: np.ndarray, low: float, high: float) -> Bin:
    inside = (measure >= low) & (measure < high) & (scored.targets == 1)
    others = (scored.targets == 1) & ~inside
    targets = np.where(others, np.nan, scored.targets)  # other positives are neither hits nor false alarms here
    kept = Scored(scored.names, scored.records, scored.logits, targets)
    names = tuple(name for n, name in enumerate(scored.names) if inside[:, n].sum() >= FEWEST)
    return Bin(
        low,
        None if np.isinf(high) else high,
        int(inside.sum()),
        len(names),
        mean_auroc(kept, names) if names else None,
        float(scored.called[inside].mean()) if inside.any() else None,
    )
