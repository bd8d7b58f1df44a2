"""The table at the end of a speedrun: every figure beside what was hoped for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from training.speedrun.steps import AWAY, UNSEEN

GOALS = {"mean AUROC, unseen patients": 0.90, "mean AUROC, other scanners": 0.85, "AUROC of priority high": 0.95}


def figures(record: Mapping[str, Any]) -> dict[str, float | None]:
    """The run's main figures, by name."""
    unseen, away = record["sets"][UNSEEN], record["sets"][AWAY]
    retrieval = unseen.get("retrieval") or {}
    age = record["transfer"]["value.age_years"]
    return {
        "mean AUROC, unseen patients": _value(unseen["diagnosis"]["mean_auroc"]),
        "mean AUROC, other scanners": _value(away["diagnosis"]["mean_auroc"]),
        "AUROC of priority high": _high(unseen),
        "AUROC of priority high, other scanners": _high(away),
        "mean AUROC of referrals": _value(unseen["referral"]["mean_auroc"]) if "referral" in unseen else None,
        "mean AUROC, zero-shot": _value(unseen["zero_shot"]["mean_auroc"]),
        "report found among the first five": retrieval.get("report_of_image_top5"),
        "brain age, mean error in years": age["error"],
        "brain age, error of the median": age["baseline"],
    }


def table(record: Mapping[str, Any], seconds: Mapping[str, float]) -> Table:
    """Figures with their goals, then the steps' minutes."""
    shown = Table("figure", "result", "goal", box=None)
    for name, value in figures(record).items():
        goal = GOALS.get(name)
        shown.add_row(name, "–" if value is None else f"{value:.3f}", "" if goal is None else f"{goal:.2f}")
    shown.add_section()
    for step, spent in seconds.items():
        shown.add_row(f"minutes: {step}", f"{spent / 60:.1f}", "")
    shown.add_row("minutes in all", f"{sum(seconds.values()) / 60:.1f}", "")
    return shown


def _value(interval: Mapping[str, float] | None) -> float | None:
    return None if interval is None else interval["value"]


def _high(one: Mapping[str, Any]) -> float | None:
    outputs = one.get("priority", {"outputs": []})["outputs"]
    return next((_value(output["auroc"]) for output in outputs if output["name"] == "high"), None)
