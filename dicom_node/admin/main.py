"""The command `dicom-node`. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 out of scope, 4 no peer."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.admin import (
    backup,
    configuration,
    control,
    demo,
    doctor,
    explain,
    infer,
    model,
    provenance,
    reports,
    retrain,
    serve,
    studies,
    worklist,
)
from dicom_node.admin.output import notes
from dicom_node.base.errors import ConfigurationError, NodeError, PeerUnreachable
from prima_core.base.errors import PrimaError
from training.base.errors import TrainingError

FAILED, WRONG_USAGE, UNREACHABLE = 1, 2, 4

app = typer.Typer(
    help="A DICOM node that runs the Prima model on brain MRI studies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for group in (serve, infer, demo, studies, provenance, explain, control, backup, doctor):
    app.registered_commands.extend(group.app.registered_commands)
app.add_typer(configuration.app, name="config")
app.add_typer(model.app, name="model")
app.add_typer(retrain.app, name="retrain")
app.add_typer(worklist.app, name="worklist")
app.add_typer(reports.app, name="reports")


@app.callback(invoke_without_command=True)
def top(show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """A DICOM node that runs the Prima model on brain MRI studies."""
    if show_version:
        typer.echo(version("prima-node"))
        raise typer.Exit


def main() -> None:
    """Run a command; errors become one line on standard error and an exit code."""
    try:
        app()
    except ConfigurationError as error:
        _complain(error, WRONG_USAGE)
    except PeerUnreachable as error:
        _complain(error, UNREACHABLE)
    except (NodeError, PrimaError, TrainingError) as error:
        _complain(error, FAILED)
    except SQLAlchemyError as error:
        _complain(f"the registry's database cannot be used ({type(error).__name__}); see node.database", FAILED)
    except OSError as error:
        _complain(f"{error.strerror or type(error).__name__}: {error.filename or ''}", FAILED)


def _complain(error: object, code: int) -> NoReturn:
    notes.print(f"dicom-node: {error}", soft_wrap=True)
    sys.exit(code)
