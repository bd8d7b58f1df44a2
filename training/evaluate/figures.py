"""Figures of each output: AUROC with its interval, operating point, calibration. The numbers are scikit-learn's.

Intervals are percentiles of a bootstrap over patients (95 %). An output that lacks positives or negatives has no AUROC:
None, never 0.5.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.calibration import calibration_curve
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    recall_score,
    roc_auc_score,
)

from training.evaluate.scored import Rows, Scored, resamples

RESAMPLES = 500
FEWEST = 5  # of each kind, below which an AUROC says nothing
BINS = 10
LOW, HIGH = 2.5, 97.5

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OutputFigures:
    """One output on the studies that have its label.

    sensitivity, specificity, balanced_accuracy: of what the node calls, at the bundle's threshold. brier,
    calibration_error: of the calibrated probability; the latter is the mean gap between said and seen over BINS equal
    bins, weighted by studies.
    """

    name: str
    positives: int
    negatives: int
    auroc: Interval | None
    average_precision: float | None
    sensitivity: float | None
    specificity: float | None
    balanced_accuracy: float | None
    brier: float | None
    calibration_error: float | None


@dataclass(frozen=True)
class TaskFigures:
    """All outputs of a task. mean_auroc: over the outputs that have one; left_out: the others, by name."""

    outputs: tuple[OutputFigures, ...]
    mean_auroc: Interval | None
    left_out: tuple[str, ...]


def judge(scored: Scored, count: int = RESAMPLES, seed: int = 0) -> TaskFigures:
    """Figures of every output and their mean. count: bootstrap samples."""
    samples = resamples(scored.records, count, seed)
    drawn = np.array([[_auroc(scored.at(rows), n) for n in range(len(scored.names))] for rows in samples])
    drawn = drawn.reshape(len(samples), len(scored.names))
    outputs = tuple(_output(scored, n, drawn[:, n]) for n in range(len(scored.names)))
    judged = [n for n, one in enumerate(outputs) if one.auroc is not None]
    return TaskFigures(
        outputs,
        _mean([one.auroc.value for one in outputs if one.auroc], drawn[:, judged]),
        tuple(one.name for one in outputs if one.auroc is None),
    )


def mean_auroc(scored: Scored, names: Sequence[str] | None = None, fewest: int = FEWEST) -> float | None:
    """Mean AUROC of the outputs (all, or those named) that have `fewest` studies of each kind; None without any."""
    found = [_auroc(scored, n, fewest) for n, name in enumerate(scored.names) if names is None or name in names]
    values = [value for value in found if not np.isnan(value)]
    return float(np.mean(values)) if values else None


def interval_of(
    scored: Scored, figure: Callable[[Scored], float | None], count: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Any figure of a set of studies with its bootstrap interval; None where the whole set has none."""
    value = figure(scored)
    if value is None:
        return None
    drawn = [figure(scored.at(rows)) for rows in resamples(scored.records, count, seed)]
    return _interval(value, np.array([one for one in drawn if one is not None]))


def _auroc(scored: Scored, n: int, fewest: int = 1) -> float:
    """NaN where there are fewer than `fewest` positives or negatives."""
    present, logits = _known(scored, n)
    if min(present.sum(), (~present).sum()) < fewest:
        return float("nan")
    return float(roc_auc_score(present, logits))


def _known(scored: Scored, n: int) -> tuple[Flags, Numbers]:
    known = np.isfinite(scored.targets[:, n])
    return scored.targets[known, n] == 1, scored.logits[known, n]


def _output(scored: Scored, n: int, drawn: Numbers) -> OutputFigures:
    present, logits = _known(scored, n)
    positives, negatives = int(present.sum()), int((~present).sum())
    enough = min(positives, negatives) >= FEWEST
    called = scored.called[np.isfinite(scored.targets[:, n]), n]
    brier, gap = _calibration(scored, n) if enough else (None, None)
    return OutputFigures(
        name=scored.names[n],
        positives=positives,
        negatives=negatives,
        auroc=_interval(float(roc_auc_score(present, logits)), drawn[~np.isnan(drawn)]) if enough else None,
        average_precision=float(average_precision_score(present, logits)) if enough else None,
        sensitivity=float(recall_score(present, called)) if positives else None,
        specificity=float(recall_score(~present, ~called)) if negatives else None,
        balanced_accuracy=_balanced(present, called) if enough else None,
        brier=brier,
        calibration_error=gap,
    )


def _balanced(present: Flags, called: Flags) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return float(balanced_accuracy_score(present, called))


def _calibration(scored: Scored, n: int) -> tuple[float | None, float | None]:
    if scored.probabilities is None:
        return None, None
    known = np.isfinite(scored.targets[:, n])
    present, said = scored.targets[known, n] == 1, scored.probabilities[known, n]
    seen, mean_said = calibration_curve(present, said, n_bins=BINS, strategy="uniform")
    edges = np.linspace(0, 1, BINS + 1)
    weight = np.bincount(np.searchsorted(edges[1:-1], said), minlength=BINS)
    gap = float(np.average(np.abs(seen - mean_said), weights=weight[weight > 0]))
    return float(brier_score_loss(present, said)), gap


def _interval(value: float, drawn: Rows | Numbers) -> Interval:
    if not len(drawn):
        return Interval(value, value, value)
    low, high = np.percentile(drawn, (LOW, HIGH))
    return Interval(value, float(low), float(high))


def _mean(values: Sequence[float], drawn: Numbers) -> Interval | None:
    if not values:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a sample without a single positive of any output
        means = np.nanmean(drawn, axis=1)
    return _interval(float(np.mean(values)), means[~np.isnan(means)])
