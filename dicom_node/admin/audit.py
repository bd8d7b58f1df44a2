"""`audit verify`, `audit show`: whether the audit trail is whole, and what is in it. Both are recorded in it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile
from dicom_node.admin.output import Json, print_json, result
from dicom_node.audit import message as audit
from dicom_node.audit.chain import Record, read_record
from dicom_node.audit.message import Happening, Participant, Subject
from dicom_node.audit.recorder import trail_of, user_name
from dicom_node.audit.trail import Trail
from dicom_node.base.config import Configuration, load_configuration
from dicom_node.base.errors import ConfigurationError, PermanentError

app = typer.Typer(help="The audit trail: who did what with whose data.", no_args_is_help=True)


@app.command()
def verify(
    config: ConfigFile = DEFAULT_CONFIG,
    first: Annotated[int, typer.Option(min=1, help="The oldest record that should still be here.")] = 1,
    json: Json = False,
) -> None:
    """Check the chain over all files; exit code 1, and where it is broken, when a record was touched or is missing."""
    configuration, trail = _open(config)
    verdict = trail.verify(first)
    _note_use(configuration, trail)
    if json:
        print_json(
            {
                "ok": not verdict.faults,
                "records": verdict.records,
                "files": verdict.files,
                "keyed": verdict.keyed,
                "faults": [{"record": fault.number, "reason": fault.words} for fault in verdict.faults],
            }
        )
    else:
        for fault in verdict.faults:
            result.print(f"record {fault.number} {fault.words}")
        result.print(
            f"{verdict.records} records in {verdict.files} files" + ("" if verdict.keyed else ", without a key")
        )
    if verdict.faults:
        raise PermanentError(f"the audit trail was touched: {len(verdict.faults)} faults")


@app.command()
def show(
    config: ConfigFile = DEFAULT_CONFIG,
    last: Annotated[int, typer.Option(min=1, help="So many of the newest records.")] = 20,
    json: Json = False,
) -> None:
    """Print the newest records as XML, oldest first."""
    configuration, trail = _open(config)
    records: list[Record] = []
    for file in reversed(trail.files()):
        found = [read_record(line) for line in file.read_bytes().splitlines()]
        records = [record for record in found if record is not None] + records
        if len(records) >= last:
            break
    _note_use(configuration, trail)
    shown = [(record.number, record.message.decode()) for record in records[-last:]]
    if json:
        print_json([{"record": number, "message": message} for number, message in shown])
    else:
        for number, message in shown:
            result.print(f"{number} {message}")


def _open(config: ConfigFile) -> tuple[Configuration, Trail]:
    configuration = load_configuration(config)
    trail = trail_of(configuration)
    if not trail.folder.is_dir():
        raise ConfigurationError(f"audit: there is no audit trail at {trail.folder}")
    return configuration, trail


def _note_use(configuration: Configuration, trail: Trail) -> None:
    title = configuration.node.ae_title
    log = Subject(
        trail.folder.as_uri(), audit.URI, audit.SYSTEM_OBJECT, audit.SECURITY_RESOURCE, "Security Audit Log"
    )  # fmt: skip
    reader = Participant(user_name(), True)
    used = Happening(audit.AUDIT_LOG_USED, "R", time.time(), [reader], [log])
    trail.append([audit.as_xml(used, title, configuration.audit.site)])
