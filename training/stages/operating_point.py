"""From validation logits to an operating point: a shift and a threshold for each class, one temperature a task.

Classes are imbalanced and heads are trained with positive weights, so 0 is no natural threshold. It is chosen where
balanced accuracy on the validation studies is highest (Youden 1950) among the cuts that few studies without the finding
pass: a bundle answers dozens of findings at once, and a reader who is told of several false ones in every study stops
reading. The shift brings what is common among those who train to what is common among those who validate (Saerens et
al. 2002, Neural Comput 14:21): a teaching collection has more of everything. The temperature makes probabilities
honest without moving their order (Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.metrics import roc_curve

SPECIFICITY = 0.95  # of one finding; with 25 of them about one false finding a study
SCALE_DEVIATION = 0.5  # of the logarithm of the scale of logits, before any shift is known
FEWEST = 2  # of each kind, below which a class tells nothing about its threshold

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def best_threshold(logits: Numbers, present: Flags, specificity: float = SPECIFICITY) -> float:
    """The logit above which a study is called positive: midway between the two that balanced accuracy falls between.

    logits, present: (n,). specificity: the least that is accepted, 0…1, on these studies. Returns 0 where there are
    fewer than FEWEST positives or negatives: nothing was learned.
    """
    if min(present.sum(), (~present).sum()) < FEWEST:
        return 0.0
    false_positive, true_positive, cuts = roc_curve(present, logits, drop_intermediate=False)
    gain = np.where(false_positive <= 1 - specificity + 1e-9, true_positive - false_positive, -np.inf)
    best = float(cuts[np.argmax(gain)])
    if math.isinf(best):  # roc_curve's first point: nobody is positive
        return float(np.nextafter(logits.max(), np.inf))
    below = logits[logits < best]
    return (best + float(below.max())) / 2 if len(below) else float(np.nextafter(best, -np.inf))


def fit_odds(logits: Numbers, targets: Numbers) -> tuple[float | None, Numbers]:
    """Temperature T of all classes, and what to add to the logits (N, n) of each, so that sigmoid((logit + shift) / T)
    is as likely as the class is common in these studies.

    targets: (N, n) 1, 0, or NaN where unknown. Few studies prove little: a class' odds that are wrong by a factor of e
    are one standard deviation away before anything is seen, and a temperature that is e times that of `fit_temperature`
    two. (None, zeros) where only one kind occurs.
    """
    known = np.isfinite(targets)
    start = fit_temperature(logits[known], targets[known] == 1)
    if start is None:
        return None, np.zeros(logits.shape[1])
    signs, expected = np.where(targets == 1, -1.0, 1.0), -math.log(start)

    def loss(parameters: Numbers) -> tuple[float, Numbers]:
        scaled, moved = math.exp(parameters[0]) * logits, parameters[1:]
        against, surprise = signs * (scaled + moved), parameters[0] - expected
        slope = np.where(known, signs * expit(against), 0.0)
        value = np.logaddexp(0, against)[known].sum() + (moved**2).sum() / 2 + surprise**2 / (2 * SCALE_DEVIATION**2)
        by_scale = (slope * scaled).sum() + surprise / SCALE_DEVIATION**2
        return float(value), np.array([by_scale, *(slope.sum(axis=0) + moved)])

    found = minimize(loss, np.array([expected, *np.zeros(logits.shape[1])]), jac=True, method="L-BFGS-B").x
    temperature = math.exp(-float(found[0]))
    return temperature, found[1:] * temperature


def fit_temperature(logits: Numbers, targets: Flags) -> float | None:
    """The temperature with the least cross-entropy of independent yes/no outputs on the validation studies.

    logits, targets: (n,), all classes of a task laid end to end. None where only one kind occurs.
    """
    if len(np.unique(targets)) < 2:
        return None
    return _minimise(lambda scale: float(np.mean(np.logaddexp(0, np.where(targets, -logits, logits) * scale))))


def fit_level_temperature(logits: Numbers, level: npt.NDArray[np.int64]) -> float | None:
    """As `fit_temperature`, for levels that exclude each other: logits (n, levels), level (n,)."""
    if len(np.unique(level)) < 2:
        return None

    def loss(scale: float) -> float:
        scaled = logits * scale
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(level)), level]))

    return _minimise(loss)


def _minimise(loss_of_scale: Callable[[float], float]) -> float:
    """1 / the scale between 0.01 and 100 with the least loss; the losses are convex in the scale."""
    found = minimize_scalar(lambda power: loss_of_scale(math.exp(power)), bounds=(-4.6, 4.6), method="bounded")
    return math.exp(-float(found.x))
