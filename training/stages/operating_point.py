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


def fit_shift(logits: Numbers, targets: Numbers) -> Numbers:
    """(n,) what to add to the logits (N, n) so that each class is as likely as it is common in these studies.

    targets: 1, 0, or NaN where unknown. Fitted together with a temperature; odds that are wrong by a factor of e are
    one standard deviation away before anything is seen, so a class of which little is known hardly moves.
    """
    known = np.isfinite(targets)
    signs = np.where(targets == 1, -1.0, 1.0)

    def loss(parameters: Numbers) -> tuple[float, Numbers]:
        scale, shift = math.exp(parameters[0]), parameters[1:]
        against = signs * scale * (logits + shift)
        slope = np.where(known, signs * expit(against), 0.0)  # of the loss by the scaled logit
        value = float(np.logaddexp(0, against)[known].sum() + (shift**2).sum() / 2)
        by_scale = float((slope * scale * (logits + shift)).sum())
        return value, np.array([by_scale, *(scale * slope.sum(axis=0) + shift)])

    bounds = [(-4.6, 4.6), *[(-10.0, 10.0)] * logits.shape[1]]
    found = minimize(loss, np.zeros(1 + logits.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x[1:], np.float64)


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
