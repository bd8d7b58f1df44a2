"""Studies as training knows them: who they are without saying who the patient is, and what is known of them.

`study` and `patient` are pseudonyms (see `training.base.pseudonyms`): within a site the same study or patient has the
same one, and nobody can go back without the site's key. Days are shifted by a secret whole number of weeks, so that
order, distance and weekday survive.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from training.base.errors import BadTrainingData

TRUE, FALSE = "1", "0"
PREFIXES = ("diagnosis", "referral", "value")


@dataclass(frozen=True)
class StudyRecord:
    """One study: its pseudonyms and the attributes that subgroups are made of. Empty or None is unknown.

    age_years: at most 89. sex: "F", "M", "O" or "". day: shifted, see the module. vendor, site: as headers name them.
    """

    study: str
    patient: str
    day: date | None = None
    age_years: float | None = None
    sex: str = ""
    vendor: str = ""
    site: str = ""
    field_strength: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `record_from_json` reads them back."""
        return asdict(self) | {"day": self.day.isoformat() if self.day else None}


def record_from_json(values: Mapping[str, Any]) -> StudyRecord:
    """The record of `StudyRecord.as_json`. Raises BadTrainingData."""
    try:
        day = values.get("day")
        return StudyRecord(**{**values, "day": date.fromisoformat(day) if day else None})
    except (TypeError, ValueError) as error:
        raise BadTrainingData(f"not a study record: {error}") from error


@dataclass(frozen=True)
class StudyLabels:
    """What is known of one study. A name that is absent is unknown, which is not the same as False.

    diagnosis, referral: name → present or not. priority: the level's name. value: other targets, such as an age.
    """

    diagnosis: Mapping[str, bool] = field(default_factory=dict)
    referral: Mapping[str, bool] = field(default_factory=dict)
    priority: str | None = None
    value: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyReport:
    """A report as single statements, in the order they were written; training shuffles them."""

    items: tuple[str, ...]

    @property
    def text(self) -> str:
        """All statements as one text."""
        return " ".join(self.items)


def write_labels(path: Path, labels: Mapping[str, StudyLabels]) -> None:
    """A CSV file: `study`, `diagnosis.<name>` and `referral.<name>` as 1, 0 or empty, `priority`, `value.<name>`."""
    rows = {study: _flat(one) for study, one in labels.items()}
    columns = ["study", *sorted({name for row in rows.values() for name in row})]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({"study": study, **row} for study, row in rows.items())


def read_labels(path: Path) -> dict[str, StudyLabels]:
    """The labels of every study that `path` names. Raises BadTrainingData with the line at fault."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if "study" not in columns:
            raise BadTrainingData(f"{path}: the first line must name the columns, one of them 'study'")
        for column in columns:
            if column not in ("study", "priority") and column.partition(".")[0] not in PREFIXES:
                raise BadTrainingData(f"{path}: column {column!r}: not diagnosis.…, referral.…, value.… or priority")
        labels: dict[str, StudyLabels] = {}
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            study = (row["study"] or "").strip()
            if not study or study in labels:
                raise BadTrainingData(f"{where}: the study is missing or named twice")
            labels[study] = _parse(row, where)
    return labels


def write_reports(path: Path, reports: Mapping[str, StudyReport]) -> None:
    """A JSON Lines file of {"study", "items"}."""
    with path.open("w", encoding="utf-8") as file:
        for study, report in reports.items():
            file.write(json.dumps({"study": study, "items": list(report.items)}, ensure_ascii=False) + "\n")


def read_reports(path: Path) -> dict[str, StudyReport]:
    """The reports of every study that `path` names. Raises BadTrainingData with the line at fault."""
    reports: dict[str, StudyReport] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
                study, items = str(entry["study"]), tuple(str(item) for item in entry["items"])
            except (ValueError, KeyError, TypeError) as error:
                raise BadTrainingData(f"{path}, line {number}: not a report: {type(error).__name__}") from error
            if study in reports:
                raise BadTrainingData(f"{path}, line {number}: the study is named twice")
            reports[study] = StudyReport(items)
    return reports


def _flat(labels: StudyLabels) -> dict[str, str]:
    row = {f"diagnosis.{name}": TRUE if present else FALSE for name, present in labels.diagnosis.items()}
    row |= {f"referral.{name}": TRUE if present else FALSE for name, present in labels.referral.items()}
    row |= {f"value.{name}": repr(float(value)) for name, value in labels.value.items()}
    return row | ({"priority": labels.priority} if labels.priority else {})


def _parse(row: Mapping[str, Any], where: str) -> StudyLabels:
    flags: dict[str, dict[str, bool]] = {"diagnosis": {}, "referral": {}}
    values: dict[str, float] = {}
    if None in row or None in row.values():
        raise BadTrainingData(f"{where}: the number of cells differs from the first line's")
    for column, cell in _filled(row):
        kind, _, name = column.partition(".")
        if kind == "value":
            try:
                values[name] = float(cell)
            except ValueError:
                raise BadTrainingData(f"{where}: {column} is not a number") from None
        elif cell not in (TRUE, FALSE):
            raise BadTrainingData(f"{where}: {column} must be 1, 0 or empty")
        else:
            flags[kind][name] = cell == TRUE
    return StudyLabels(flags["diagnosis"], flags["referral"], (row.get("priority") or "").strip() or None, values)


def _filled(row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for column, cell in row.items():
        if column not in ("study", "priority") and cell.strip():
            yield column, cell.strip()
