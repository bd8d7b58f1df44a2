"""What all training commands share: an error that a person can act on is one line, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from prima_core.base.errors import PrimaError
from training.base.errors import TrainingError


def command() -> typer.Typer:
    """An empty application. Its tracebacks show no local variables, which may hold patients' data."""
    return typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def explained() -> Iterator[None]:
    """Errors raised on purpose end the command with one line and status 1.

    So does a package that is not installed, if it is imported inside the block; a module of this project is a bug.
    """
    try:
        yield
    except (TrainingError, PrimaError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "training", "prima_core", "dicom_node"):
            raise
        typer.echo(
            f"error: {error.name} is not installed; training needs `pip install 'prima-node[training]'`", err=True
        )
        raise typer.Exit(1) from error
