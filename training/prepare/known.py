"""Labels and reports that a site keeps beside its studies, under Study Instance UIDs or accession numbers.

labels.csv and reports.jsonl: as in `training.base.cohort`. reports.csv: a column `study`, and the text of the report in
one or more of the columns `findings`, `impression`, `report`.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from training.base.cohort import StudyLabels, StudyReport, read_labels, read_reports
from training.base.errors import BadTrainingData
from training.base.statements import report_items

REPORT_COLUMNS = ("findings", "impression", "report")
_LONGEST_CELL = 1 << 20


@dataclass(frozen=True)
class Known:
    """What is known of studies, by the site's own names for them."""

    labels: Mapping[str, StudyLabels] = field(default_factory=dict, repr=False)
    reports: Mapping[str, StudyReport] = field(default_factory=dict, repr=False)

    def labels_of(self, *names: str) -> StudyLabels | None:
        """The labels under the first of the names that has some."""
        return next((self.labels[name] for name in names if name in self.labels), None)

    def report_of(self, *names: str) -> StudyReport | None:
        """The report under the first of the names that has one."""
        return next((self.reports[name] for name in names if name in self.reports), None)


def read_known(labels: Path | None = None, reports: Path | None = None) -> Known:
    """Raises BadTrainingData with the file and line at fault."""
    try:
        texts = {} if reports is None else _read_reports(reports)
        return Known(read_labels(labels) if labels else {}, texts)
    except OSError as error:
        raise BadTrainingData(f"{error.filename}: {error.strerror}") from error


def read_table(path: Path, *columns: str, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """The rows of a CSV file that has at least `columns`; missing cells are empty.

    Raises BadTrainingData, not before it is asked for the row at fault.
    """
    csv.field_size_limit(min(_LONGEST_CELL, sys.maxsize))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", strict=True, delimiter=delimiter)
            if lacking := [column for column in columns if column not in (reader.fieldnames or ())]:
                raise BadTrainingData(f"{path}: the first line names no column {lacking[0]!r}")
            for row in reader:
                if None in row:
                    raise BadTrainingData(f"{path}, line {reader.line_num}: more cells than columns")
                yield {column: cell.strip() for column, cell in row.items()}
    except OSError as error:
        raise BadTrainingData(f"{path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadTrainingData(f"{path}: not a CSV file in UTF-8 ({type(error).__name__})") from error


def _read_reports(path: Path) -> dict[str, StudyReport]:
    if path.suffix.lower() != ".csv":
        return read_reports(path)
    rows = list(read_table(path, "study"))
    if rows and not set(REPORT_COLUMNS) & set(rows[0]):
        raise BadTrainingData(f"{path}: none of the columns {', '.join(REPORT_COLUMNS)}")
    reports: dict[str, StudyReport] = {}
    for number, row in enumerate(rows, 1):
        if not row["study"] or row["study"] in reports:
            raise BadTrainingData(f"{path}, row {number}: the study is missing or named twice")
        items = tuple(item for column in REPORT_COLUMNS for item in report_items(row.get(column, "")))
        if items:
            reports[row["study"]] = StudyReport(items)
    return reports
