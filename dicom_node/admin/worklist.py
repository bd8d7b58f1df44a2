"""`worklist simulate`: what the flag would do to a reading room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.admin import simulate as simulation
from dicom_node.admin.output import Json

app = typer.Typer(help="Reading priorities and what they do.", no_args_is_help=True)


@app.command()
def simulate(
    scenario: Annotated[Path | None, typer.Option(help="The room, as TOML; an illustration if left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plots (SVG) and the JSON document.")] = None,
    json: Json = False,
) -> None:
    """Simulate a reading room with the flag and without it: who waits less, who waits longer."""
    simulation.run(scenario, out, json)
