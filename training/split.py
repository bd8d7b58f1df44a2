"""Say which studies of a run train, validate and test; without this, stages split by patient.

    python -m training.split --run RUN --by-day 2026-03-01 2026-06-01   # earlier trains, later validates, last tests
    python -m training.split --run RUN --list parts.csv                 # columns study and part

Say it as soon as there are patches, before anything is trained, and again when there are tokens of more studies: a
split that would test on patients whom a stage has seen is refused. Days and Study Instance UIDs are the real ones where
the run's key is there: records hold them only in disguise. Nobody is ever on two sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from training.base.command import command, explained
from training.base.pseudonyms import Pseudonyms, load_or_create_key
from training.base.splits import PARTS, Split, refuse_empty, split_by_day, split_by_list
from training.base.trained_on import refuse_seen
from training.run_folder import TRAINED, RunFolder, read_split, write_split

Day = datetime


def split_run_by_day(run: RunFolder, validation_from: date, test_from: date, key: Pseudonyms | None) -> Split:
    """A prospective split, written to split.csv.

    Raises BadTrainingData when a part would be empty, or a stage has been trained on a patient who would test.
    """
    days = [key.day(day) if key else day for day in (validation_from, test_from)]
    return _written(run, split_by_day(run.records(), *days))


def split_run_by_list(run: RunFolder, part_of: Mapping[str, str], key: Pseudonyms | None) -> tuple[Split, int]:
    """The parts that a site chose, written to split.csv, and how many of its names mean no study here.

    part_of: by the run's own names or, with the key, by Study Instance UID. Raises BadTrainingData when a patient would
    be in two parts, a part empty, or a stage has been trained on a patient who would test.
    """
    records = run.records()
    known = {record.study for record in records}
    named = {study if study in known or key is None else key.study(study): part for study, part in part_of.items()}
    return _written(run, split_by_list(records, named)), len(named.keys() - known)


def _written(run: RunFolder, split: Split) -> Split:
    refuse_empty(split)
    refuse_seen((run / stage for stage in TRAINED), run.records(), split.test)
    write_split(run / "split.csv", split)
    return split


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    by_day: Annotated[
        tuple[Day, Day] | None,
        typer.Option(formats=["%Y-%m-%d"], help="First day of the validation part and of the test part."),
    ] = None,
    list_: Annotated[Path | None, typer.Option("--list", help="CSV: study, part (train, validation, test).")] = None,
    key: Annotated[Path | None, typer.Option(help="The pseudonym key; the run's own by default.")] = None,
) -> None:
    """Write a run's split.csv."""
    if (by_day is None) == (list_ is None):
        raise typer.BadParameter("give --by-day or --list")
    opened = RunFolder(run)
    with explained():
        found = key or run / "key"
        pseudonyms = load_or_create_key(found) if found.exists() else None
        unknown = 0
        if by_day is not None:
            split = split_run_by_day(opened, by_day[0].date(), by_day[1].date(), pseudonyms)
        elif list_ is not None:
            split, unknown = split_run_by_list(opened, read_split(list_), pseudonyms)
    typer.echo(", ".join(f"{part} {len(getattr(split, part))}" for part in PARTS))
    if unknown:
        typer.echo(f"{unknown} named studies are not in this run")


if __name__ == "__main__":
    app()
