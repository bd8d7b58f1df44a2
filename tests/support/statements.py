"""How many statements a registry needs, and what happens when others act between two of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import event

from dicom_node.jobs.registry import Registry

OTHERS_SECONDS = 0.5  # in which another transaction does what it can do now


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


@contextmanager
def meanwhile(registry: Registry, statement: str, act: Callable[[], None]) -> Iterator[None]:
    """Another connection acts after the first statement of the registry that holds these words."""
    other: list[threading.Thread] = []

    def start(_connection: object, _cursor: object, said: str, *_: object) -> None:
        if statement in said and not other:
            other.append(threading.Thread(target=act))
            other[0].start()
            other[0].join(OTHERS_SECONDS)

    event.listen(registry._engine, "after_cursor_execute", start)
    try:
        yield
    finally:
        event.remove(registry._engine, "after_cursor_execute", start)
        assert other, "nothing happened meanwhile"
        other[0].join()
