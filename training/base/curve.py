"""A CSV file of figures by step, which a resumed run continues as if it had never stopped."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from training.base.checkpoint import no_space, write_whole


class Curve:
    """Rows of `step` and named figures, one a step, on disk as soon as they are added."""

    def __init__(self, path: Path, first: int) -> None:
        """first: the step that the run is about to take; rows from there on belong to a run that was killed."""
        self._path = path
        self._columns: list[str] = []
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        kept = [row for row in rows[1:] if len(row) == len(rows[0]) and int(row[0]) < first]
        self._columns = rows[0] if kept else []
        write_whole(path, lambda scratch: _write(scratch, [self._columns, *kept] if kept else []))

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Raises NoSpace."""
        row = [str(step), *(repr(value) for value in figures.values())]
        rows = [row] if self._columns else [["step", *figures], row]
        self._columns = self._columns or rows[0]
        try:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
        except OSError as error:
            raise no_space(error, self._path) or error from error


def read_curve(path: Path) -> list[dict[str, float]]:
    """All rows of a curve."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
