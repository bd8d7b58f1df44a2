"""`doctor`: looks at everything that the node needs, and says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile
from dicom_node.admin.output import Json, print_json, result
from dicom_node.base.config import Configuration, load_configuration
from dicom_node.doctor.bundle import check_bundle
from dicom_node.doctor.certificates import check_certificates
from dicom_node.doctor.database import check_database, has_registry
from dicom_node.doctor.finding import Finding, State
from dicom_node.doctor.peers import check_peers
from dicom_node.doctor.running import check_limits, check_ports, check_processes, check_titles, is_running
from dicom_node.doctor.storage import check_storage
from dicom_node.intake.serving import silence_libraries
from dicom_node.jobs.registry import Registry

app = typer.Typer()


@app.command()
def doctor(
    config: ConfigFile = DEFAULT_CONFIG,
    peers: Annotated[bool, typer.Option(help="Ask every destination whether it answers.")] = True,
    json: Json = False,
) -> None:
    """Check disk, database, peers, certificates, clock, model, ports and limits; exit code 1 when one has failed."""
    silence_libraries()
    findings = list(examine(load_configuration(config), peers=peers))
    has_failed = any(finding.state is State.FAILED for finding in findings)
    if json:
        print_json({"ok": not has_failed, "checks": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    if has_failed:
        raise typer.Exit(1)


def examine(configuration: Configuration, *, peers: bool) -> Iterator[Finding]:
    """Everything, whether the node runs or not."""
    running = is_running(configuration)
    yield from check_storage(configuration)
    yield from check_database(configuration)
    registry = Registry(configuration.node.database_url) if has_registry(configuration) else None
    try:
        yield from check_processes(configuration, registry, running=running)
        yield from check_ports(configuration, running=running)
        yield from check_titles(configuration)
        yield from check_limits(configuration, registry, running=running)
        yield from check_certificates(configuration)
        # A node that runs has the model in memory, and `node` says so: its memory is not taken twice.
        yield from check_bundle(configuration, registry, load=not running)
    finally:
        if registry is not None:
            registry.close()
    if peers:
        yield from check_peers(configuration)


def _show(findings: list[Finding]) -> None:
    table = Table("", "what", "found", "to do", box=None)
    for finding in findings:
        table.add_row(finding.state, finding.what, finding.said, finding.todo)
    result.print(table)
