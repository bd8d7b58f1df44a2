"""From a logit to a probability, once a temperature was fitted: one function to fit, report and evaluate."""

from __future__ import annotations

import math


def probability(logit: float, temperature: float) -> float:
    """Sigmoid of the head's own logit (no threshold subtracted) over the temperature (Guo et al. 2017)."""
    scaled = logit / temperature
    if scaled >= 0:
        return 1.0 / (1.0 + math.exp(-scaled))
    exponential = math.exp(scaled)
    return exponential / (1.0 + exponential)
