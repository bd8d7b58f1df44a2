"""How many statements a registry needs: with counted(registry) as statements: ... ; len(statements)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from dicom_node.jobs.registry import Registry


@contextmanager
def counted(registry: Registry) -> Iterator[list[str]]:
    """The statements that the registry executes while the block lasts."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(registry._engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(registry._engine, "before_cursor_execute", note)
