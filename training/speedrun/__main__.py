"""`python -m training.speedrun`: see the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.base.command import command, explained

app = command()


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="The run's folder; a run that was stopped goes on.")],
    profile: Annotated[
        str, typer.Option(help="full (about an hour on two cores), quick (eight minutes) or tiny.")
    ] = "full",
    workers: Annotated[int, typer.Option(help="Processes that make and read phantoms.")] = os.cpu_count() or 1,
) -> None:
    """Make phantoms, train every stage, evaluate on unseen phantoms and write a bundle."""
    with explained():
        from training.run_folder import RunFolder
        from training.speedrun.profiles import PROFILES
        from training.speedrun.steps import Speedrun
        from training.speedrun.table import table

        if profile not in PROFILES:
            raise typer.BadParameter(f"one of {', '.join(PROFILES)}", param_hint="--profile")
        out.mkdir(parents=True, exist_ok=True)
        speedrun = Speedrun(RunFolder(out), PROFILES[profile](), workers)
        bundle, record = speedrun.all()
    Console().print(table(record, speedrun.seconds))
    typer.echo(f"bundle {bundle.manifest.id} in {bundle.directory}; figures and plots in {out / 'evaluation'}")


if __name__ == "__main__":
    app()
