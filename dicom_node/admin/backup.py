"""`backup`: the registry, copied while the node runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, open_registry
from dicom_node.admin.output import Json, print_json, result
from dicom_node.jobs.backup import back_up

app = typer.Typer()

Target = Annotated[Path, typer.Argument(help="A file that is not there yet; or a folder, to be named by the time.")]


@app.command()
def backup(target: Target, config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Copy the registry (SQLite) while the node runs; patient data, readable by its owner alone."""
    configuration, registry = open_registry(config)
    registry.close()
    if target.is_dir():
        target /= time.strftime("registry-%Y%m%dT%H%M%SZ.sqlite", time.gmtime())
    size = back_up(configuration.node.database_url, target)
    if json:
        print_json({"backup": str(target), "bytes": size})
    else:
        result.print(f"{target}: {size} bytes")
