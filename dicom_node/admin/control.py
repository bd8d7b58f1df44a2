"""`pause`, `resume`: hold results without holding intake."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, open_registry
from dicom_node.admin.output import Json, print_json, result
from dicom_node.base.config import Configuration
from dicom_node.jobs.registry import Registry

app = typer.Typer()

Destination = Annotated[str | None, typer.Option("--destination", help="Only this destination; all when left out.")]


@app.command()
def pause(config: ConfigFile = DEFAULT_CONFIG, destination: Destination = None, json: Json = False) -> None:
    """Hold results for one destination or all. Studies are still received and run."""
    configuration, registry = open_registry(config)
    _check(configuration, destination)
    registry.pause(destination, time.time())
    _show(registry, json)


@app.command()
def resume(config: ConfigFile = DEFAULT_CONFIG, destination: Destination = None, json: Json = False) -> None:
    """Let held results go: to one destination, or everywhere."""
    configuration, registry = open_registry(config)
    if destination not in registry.paused():  # a pause outlives its destination's place in the configuration
        _check(configuration, destination)
    registry.resume(destination)
    _show(registry, json)


def _check(configuration: Configuration, destination: str | None) -> None:
    if destination is not None:
        configuration.destination(destination)


def _show(registry: Registry, json: bool) -> None:
    paused = registry.paused()
    if json:
        print_json({"paused": paused})
    else:
        words = {"*": "all destinations"}
        result.print("paused: " + (", ".join(words.get(name, name) for name in paused) or "nothing"))
