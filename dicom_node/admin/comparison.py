"""Two bundles on the same studies, in numbers: agreement says whether they differ, never which of them is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.base.types import Level
from dicom_node.jobs.models import Pair

DISAGREEMENTS = 20
Logits = npt.NDArray[np.float64]


def compare(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What `model compare` prints of pairs (active, shadow): each finding's counts, priorities, largest disagreements.

    Outputs that only one of the bundles has are named and not compared. A number that these studies do not decide
    (kappa where both always say the same, correlation where one never changes) is None.
    """
    findings = {task: _task(pairs, task) for task in ("diagnosis", "referral")}
    return {
        "studies": len(pairs),
        **findings,
        "priority": _priority([(Level(pair.first.level), Level(pair.second.level)) for pair in pairs]),
        "only_active": _unshared(pairs, first=True),
        "only_shadow": _unshared(pairs, first=False),
        "disagreements": _disagreements(pairs),
    }


def kappa(table: npt.ArrayLike) -> float | None:
    """Cohen's kappa (1960) of a square table of counts; None when agreement by chance alone is certain."""
    counts = np.asarray(table, float)
    total = counts.sum()
    if total == 0:
        return None
    by_chance = float(counts.sum(0) @ counts.sum(1)) / total**2
    return None if by_chance == 1 else (float(np.trace(counts)) / float(total) - by_chance) / (1 - by_chance)


def correlation(first: Logits, second: Logits) -> float | None:
    """Pearson's correlation; None when either does not vary."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _task(pairs: Sequence[Pair], task: str) -> list[dict[str, Any]]:
    return [
        {"name": name} | _finding(_column(pairs, task, name, first=True), _column(pairs, task, name, first=False))
        for name in _shared(pairs, task)
    ]


def _finding(first: Logits, second: Logits) -> dict[str, Any]:
    a, b = first > 0, second > 0
    both, only_a, only_b = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
    neither = len(a) - both - only_a - only_b
    return {
        "both": both,
        "only_active": only_a,
        "only_shadow": only_b,
        "neither": neither,
        "agreement": (both + neither) / len(a),
        "kappa": kappa([[both, only_a], [only_b, neither]]),
        "correlation": correlation(first, second),
    }


def _priority(levels: Sequence[tuple[Level, Level]]) -> dict[str, Any]:
    counted = Counter(levels)
    table = [[counted[a, b] for b in Level] for a in Level]
    same = sum(count for (a, b), count in counted.items() if a is b)
    return {
        "confusion": {a.value: {b.value: counted[a, b] for b in Level} for a in Level},
        "agreement": same / len(levels) if levels else None,
        "kappa": kappa(table),
    }


def _disagreements(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Findings that one says and the other denies, the widest apart first."""
    found: list[dict[str, Any]] = [
        {"study": pair.study_id, "task": task, "name": name, "active": a, "shadow": b}
        for task in ("diagnosis", "referral")
        for name in _shared(pairs, task)
        for pair in pairs
        if ((a := pair.first.logits[task][name]) > 0) != ((b := pair.second.logits[task][name]) > 0)
    ]
    return sorted(found, key=lambda one: -abs(one["active"] - one["shadow"]))[:DISAGREEMENTS]


def _column(pairs: Sequence[Pair], task: str, name: str, *, first: bool) -> Logits:
    return np.array([(pair.first if first else pair.second).logits[task][name] for pair in pairs])


def _shared(pairs: Sequence[Pair], task: str) -> list[str]:
    """Every prediction of a bundle has the same outputs, so the first pair speaks for all."""
    return [name for name in pairs[0].first.logits[task] if name in pairs[0].second.logits[task]] if pairs else []


def _unshared(pairs: Sequence[Pair], *, first: bool) -> list[str]:
    if not pairs:
        return []
    mine, other = (pairs[0].first, pairs[0].second) if first else (pairs[0].second, pairs[0].first)
    return [f"{task}.{name}" for task in mine.logits for name in mine.logits[task] if name not in other.logits[task]]
