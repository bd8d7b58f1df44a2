"""Make phantom studies as DICOM files.

    python -m training.phantom --out DIR --studies 20 --first-seed 0 --domain home

DIR gets a folder a study, labels.csv, reports.jsonl and truth.jsonl; all three name studies by Study Instance UID.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from training.base.cohort import write_labels, write_reports
from training.base.errors import TrainingError
from training.phantom.study import make_study, truth_json


def main(
    out: Annotated[Path, typer.Option(help="folder to write to")],
    studies: Annotated[int, typer.Option(min=1, help="how many")],
    first_seed: Annotated[int, typer.Option(min=0, help="the studies have this seed and the following ones")] = 0,
    domain: Annotated[str, typer.Option(help="home; teaching: with more findings; away: other scanners")] = "home",
) -> None:
    """Make phantom studies of the head, with labels, reports and truth. They are simulated: no patient's."""
    try:
        made = {
            truth.study_instance_uid: truth
            for seed in track(range(first_seed, first_seed + studies), "Phantoms")
            for truth in [make_study(seed, domain, out / f"{domain}-{seed:07}")]
        }
    except TrainingError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    write_labels(out / "labels.csv", {uid: truth.labels for uid, truth in made.items()})
    write_reports(out / "reports.jsonl", {uid: truth.report for uid, truth in made.items()})
    with (out / "truth.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"study": uid, **json.loads(truth_json(made[uid]))}) + "\n" for uid in made)


if __name__ == "__main__":
    typer.run(main)
