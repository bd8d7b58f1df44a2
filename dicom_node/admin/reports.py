"""`reports export`: final reports that reached the node by HL7, as a file that training reads."""

from __future__ import annotations

import json as json_format
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, open_registry
from dicom_node.admin.output import Json, notes, print_json, result
from dicom_node.base.durable import replace_file

app = typer.Typer(help="Physicians' final reports that reached the node by HL7.", no_args_is_help=True)


# Layout of FT that says how far or how often, such as `\.in+4\` (HL7 v2.5.1 chapter 2.7.6); the rest is text already.
_LINES = re.compile(r"\\\.(?:sp|br)\s*[+-]?\d*\\")
_SPACE = re.compile(r"\\\.(?:in|ti|sk)\s*[+-]?\d*\\")


@app.callback()
def reports() -> None:
    """Keeps `export` a command of its own."""


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The file to write, JSON Lines; readable by its owner alone.")],
    config: ConfigFile = DEFAULT_CONFIG,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only reports that became final on this day (UTC) or later."),
    ] = None,
    json: Json = False,
) -> None:
    """Write the newest final report of each study as `{"study": UID, "items": [statements]}`, one a line.

    The file is patient data: texts are as they were reported, and studies go by Study Instance UID.
    """
    _, registry = open_registry(config)
    begin = since.replace(tzinfo=UTC).timestamp() if since else 0.0
    lines = [
        json_format.dumps({"study": one.study_instance_uid, "items": _items(one.text)}, ensure_ascii=False) + "\n"
        for one in registry.report_texts(begin)
    ]
    replace_file(out, "".join(lines).encode())
    homeless = registry.reports_of_no_study()
    if json:
        print_json({"reports": len(lines), "of_no_study": homeless, "path": str(out)})
        return
    result.print(f"{len(lines)} reports in {out}")
    if homeless:
        notes.print(f"{homeless} reports are left out: it is not certain that they are of a study that the node has")


def _items(text: str) -> tuple[str, ...]:
    from training.base.statements import report_items

    return report_items(_SPACE.sub(" ", _LINES.sub("\n", text)))
