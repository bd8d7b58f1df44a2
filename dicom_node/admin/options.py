"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.base.config import Configuration, load_configuration
from dicom_node.base.errors import ConfigurationError
from dicom_node.jobs.database import check_schema
from dicom_node.jobs.registry import Registry

ConfigFile = Annotated[
    Path,
    typer.Option("--config", envvar="DICOM_NODE_CONFIG", help="The node's TOML configuration.", show_default=True),
]
OptionalConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="DICOM_NODE_CONFIG", help="The node's TOML configuration, if any.")
]
DEFAULT_CONFIG = Path("node.toml")


def open_registry(config_file: Path) -> tuple[Configuration, Registry]:
    """The configuration and its registry, as they are: only `serve` makes or changes the schema.

    Raises ConfigurationError when there is no such node yet, PermanentError when its registry is another version's.
    """
    configuration = load_configuration(config_file)
    os.umask(0o077)  # what a command writes into the node's folder is as private as the rest of it
    if configuration.node.database is None and not configuration.node.storage.is_dir():
        raise ConfigurationError(
            f"node.storage: nothing at {configuration.node.storage}; start the node first with `dicom-node serve`"
        )
    check_schema(configuration.node.database_url)
    return configuration, Registry(configuration.node.database_url)
