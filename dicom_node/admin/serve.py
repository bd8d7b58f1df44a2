"""`serve`: the node. `run`: one of its processes, as `serve` starts it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dicom_node import service
from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile
from dicom_node.base.config import load_configuration
from dicom_node.base.events import configure_logging

app = typer.Typer()


class Role(StrEnum):
    """The node's processes."""

    RECEIVER = "receiver"
    SCHEDULER = "scheduler"
    WORKER = "worker"


@app.command()
def serve(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the node until it is told to stop (SIGTERM or Ctrl-C)."""
    configuration = load_configuration(config)
    configure_logging(configuration.node.log_level)
    service.serve(configuration)


@app.command(hidden=True)
def run(role: Annotated[Role, typer.Argument()], config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run one of the node's processes; `serve` starts them, on one configuration for as long as it runs.

    The configuration is a TOML file, or what `Configuration.to_json` gave in a `.json` file.
    """
    configuration = load_configuration(config)
    configure_logging(configuration.node.log_level)
    service.run_process(role.value, configuration)
