"""How commands speak: results on standard output, everything else on standard error.

With `--json`, standard output is one JSON document and nothing else. Texts are printed as they are: what came from
outside (a reason, a name, a path) is never read as markup.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

WIDE = None if sys.stdout.isatty() else 200  # a file or a pipe has no width that tables must fit into

result = Console(width=WIDE, highlight=False, markup=False, emoji=False, soft_wrap=True)
notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def progress() -> Progress:
    """A progress display on standard error; silent when that is not a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=notes,
        transient=True,
        disable=not notes.is_terminal,
    )


def utc(seconds: float | None) -> str | None:
    """ISO 8601 in UTC, to the second; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
