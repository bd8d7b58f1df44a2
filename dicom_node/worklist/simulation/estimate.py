"""A mean over independent replications, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

FEWEST = 5


@dataclass(frozen=True)
class Estimate:
    """A mean with the ends of its 95 % confidence interval; None where fewer than five replications had a value."""

    mean: float
    low: float | None
    high: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and Student's t interval of one value a replication; at least one value."""
    mean = fmean(values)
    if len(values) < FEWEST:
        return Estimate(mean, None, None)
    half = student_t(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def student_t(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution, to three digits at 0.975 from 4 degrees of freedom on.

    Cornish-Fisher expansion: Abramowitz & Stegun, Handbook of Mathematical Functions (1964), 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / float(freedom) ** power for power, term in enumerate(terms))
