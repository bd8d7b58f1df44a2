"""The plans of the statements that a registry really executes: which of them look through a whole table.

How to use:

    with planned(registry) as plans:
        registry.claim(...)
    assert plans.scans(GROWING) == []     # "SCAN studies: SELECT … ", on PostgreSQL where no index fits
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from dicom_node.jobs.registry import Registry

EXPLAINED = ("SELECT", "UPDATE", "DELETE", "WITH")
STEPS = 20  # counted at once
SEQUENTIAL = re.compile(r"^.*Seq Scan on (\w+)")
SCAN = re.compile(r"^SCAN (\w+)")


@dataclass
class Plans:
    """Statement → the lines of its plan."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def scans(self, tables: frozenset[str]) -> list[str]:
        """Every look through one of these tables, or through a whole index of one, with its statement."""
        return sorted(
            f"{line}: {' '.join(statement.split())}"
            for statement, lines in self.found.items()
            for line in lines
            if (scan := SCAN.match(line)) and _table_of(scan[1], statement) in tables
        )


@contextmanager
def planned(registry: Registry) -> Iterator[Plans]:
    """The plans of everything that the registry executes while the block lasts."""
    plans = Plans()

    postgresql = registry._engine.dialect.name == "postgresql"

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(EXPLAINED) and statement not in plans.found:
            ask = _ask_postgresql if postgresql else _ask_sqlite
            plans.found[statement] = ask(cursor.connection.cursor(), statement, parameters)

    event.listen(registry._engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(registry._engine, "before_cursor_execute", explain)


def _ask_sqlite(beside: Any, statement: str, parameters: Any) -> list[str]:
    rows = beside.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
    beside.close()
    return [row[3] for row in rows]


def _ask_postgresql(beside: Any, statement: str, parameters: Any) -> list[str]:
    """A small table is read as a whole whatever its indexes: so that is forbidden, and done only where none fits."""
    beside.execute("SET LOCAL enable_seqscan = off")
    rows = beside.execute(f"EXPLAIN {statement}", parameters).fetchall()
    beside.execute("SET LOCAL enable_seqscan = on")
    beside.close()
    return [SEQUENTIAL.sub(r"SCAN \1", row[0]) for row in rows]


def _table_of(name: str, statement: str) -> str:
    """The table that a name in the plan stands for: itself, or what it is an alias of."""
    alias = re.search(rf"\b(\w+) AS {name}\b", statement)
    return alias[1] if alias else name


@contextmanager
def stepped(registry: Registry) -> Iterator[dict[str, int]]:
    """How many steps of SQLite's virtual machine each statement of the registry took while the block lasts.

    The same on every machine, and what a plan hides is in it: a search in an index that finds half of a table.
    """
    taken: dict[str, int] = {}
    current = ""

    def count() -> int:
        taken[current] = taken.get(current, 0) + STEPS
        return 0

    def begin(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal current
        current = statement
        cursor.connection.set_progress_handler(count, STEPS)

    def end(_connection: Any, cursor: Any, *_: Any) -> None:
        if cursor.description is None:  # rows that are still to be read take steps as well
            cursor.connection.set_progress_handler(None, 0)

    event.listen(registry._engine, "before_cursor_execute", begin)
    event.listen(registry._engine, "after_cursor_execute", end)
    try:
        yield taken
    finally:
        event.remove(registry._engine, "before_cursor_execute", begin)
        event.remove(registry._engine, "after_cursor_execute", end)
