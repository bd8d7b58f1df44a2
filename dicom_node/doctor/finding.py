"""One line of the doctor's: what was looked at, how it is, and what to do. No patient data."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """How something is. `warning`: works now, and may not for long, or not as it should."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """what: its name. said: what was found. todo: what to do about it; empty where nothing is to be done."""

    what: str
    state: State
    said: str = ""
    todo: str = ""


def ok(what: str, said: str = "") -> Finding:
    """As it should be."""
    return Finding(what, State.OK, said)


def warning(what: str, said: str, todo: str) -> Finding:
    """Works, and somebody should look at it."""
    return Finding(what, State.WARNING, said, todo)


def failed(what: str, said: str, todo: str) -> Finding:
    """Does not work."""
    return Finding(what, State.FAILED, said, todo)
