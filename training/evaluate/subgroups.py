"""The same figures by sex, age, vendor, site and weekday, and how far the subgroups lie apart.

A gap is the best subgroup's mean AUROC less the worst's, over the outputs that every compared subgroup has enough
studies for; otherwise subgroups with other diseases would be compared, not the model on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from training.base.cohort import StudyRecord
from training.evaluate.figures import Interval, mean_auroc
from training.evaluate.scored import Scored, resamples

SMALLEST = 20  # studies, below which a subgroup is not judged
AGE_BANDS = (
    (0, 18, "under 18"),
    (18, 40, "18 to 39"),
    (40, 60, "40 to 59"),
    (60, 75, "60 to 74"),
    (75, 200, "75 and over"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
RESAMPLES = 100


@dataclass(frozen=True)
class Subgroup:
    """One value of an attribute. auroc: mean over the compared outputs, None where the subgroup is too small."""

    value: str
    studies: int
    auroc: Interval | None


@dataclass(frozen=True)
class Comparison:
    """All subgroups of one attribute. gap: best minus worst; None with fewer than two subgroups. outputs: compared."""

    attribute: str
    subgroups: tuple[Subgroup, ...]
    gap: Interval | None
    outputs: tuple[str, ...]


def age_band(record: StudyRecord) -> str:
    """The band's name, or "" where the age is unknown."""
    age = record.age_years
    return next((name for low, high, name in AGE_BANDS if age is not None and low <= age < high), "")


ATTRIBUTES: Mapping[str, Callable[[StudyRecord], str]] = {
    "sex": lambda record: record.sex,
    "age": age_band,
    "vendor": lambda record: record.vendor,
    "site": lambda record: record.site,
    "field strength": lambda record: f"{record.field_strength:g} T" if record.field_strength else "",
    "weekday": lambda record: WEEKDAYS[record.day.weekday()] if record.day else "",
}


def compare_all(scored: Scored, count: int = RESAMPLES) -> tuple[Comparison, ...]:
    """Every attribute of ATTRIBUTES."""
    return tuple(compare(scored, name, of, count) for name, of in ATTRIBUTES.items())


def compare(scored: Scored, attribute: str, of: Callable[[StudyRecord], str], count: int = RESAMPLES) -> Comparison:
    """The subgroups of one attribute; studies of which it is unknown are in none. count: bootstrap samples."""
    values = sorted({of(record) for record in scored.records} - {""})
    parts = {value: scored.where(lambda record, value=value: of(record) == value) for value in values}  # type: ignore[misc]
    large = {value: part for value, part in parts.items() if len(part.records) >= SMALLEST}
    outputs = tuple(
        name for name in scored.names if large and all(mean_auroc(part, (name,)) is not None for part in large.values())
    )
    drawn = {value: _drawn(part, outputs, count) for value, part in large.items()}
    found = {value: mean_auroc(part, outputs) for value, part in large.items()} if outputs else {}
    return Comparison(
        attribute,
        tuple(
            Subgroup(value, len(part.records), _interval(found.get(value), drawn.get(value)))
            for value, part in parts.items()
        ),
        _gap({value: one for value, one in found.items() if one is not None}, drawn),
        outputs,
    )


def _drawn(part: Scored, outputs: tuple[str, ...], count: int) -> np.ndarray:
    found = [mean_auroc(part.at(rows), outputs, fewest=1) for rows in resamples(part.records, count)]
    return np.array([np.nan if one is None else one for one in found])


def _interval(value: float | None, drawn: np.ndarray | None) -> Interval | None:
    if value is None or drawn is None or np.isnan(drawn).all():
        return None
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return Interval(value, float(low), float(high))


def _gap(found: Mapping[str, float], drawn: Mapping[str, np.ndarray]) -> Interval | None:
    """Subgroups are resampled independently of each other: their patients are others."""
    if len(found) < 2:
        return None
    each = np.stack([drawn[value] for value in found])
    return _interval(max(found.values()) - min(found.values()), each.max(axis=0) - each.min(axis=0))
