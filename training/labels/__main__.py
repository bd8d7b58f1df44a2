"""Labels of studies from lists or reports, and how far two sets agree.

    python -m training.labels lists site.csv glioma.txt --out labels.csv
    python -m training.labels rules reports.jsonl --out rules.csv
    python -m training.labels language-model reports.jsonl --folder /models/m --out model.csv
    python -m training.labels language-model reports.jsonl --url https://models.hospital --model m --out model.csv
    python -m training.labels agreement rules.csv model.csv --out agreement.json

Reports are a reports.jsonl (`dicom-node reports export` makes one), a reports.csv, or a token store. Labels name
studies as the reports or lists do, or by a run's pseudonyms where lists come with its --key: then only Study Instance
UIDs are understood. A model's key is taken from LANGUAGE_MODEL_KEY.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.base.cohort import StudyLabels, StudyReport, read_labels, write_labels
from training.base.errors import BadTrainingData, TrainingError
from training.base.pseudonyms import load_or_create_key
from training.labels.agreement import compare_labels, table
from training.labels.chat_server import ChatServer
from training.labels.language_model import LanguageModel, label_by_model
from training.labels.lists import NAMED, read_lists
from training.labels.local_model import LocalModel
from training.labels.rules import RuleSettings, label_reports
from training.labels.terms import TERMS
from training.prepare.known import read_known
from training.prepare.store import TokenStore

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


class Uncertain(StrEnum):
    """What "possible" counts as."""

    UNKNOWN = "unknown"
    POSITIVE = "positive"
    NEGATIVE = "negative"


class Unnamed(StrEnum):
    """What a finding counts as that is not named."""

    ABSENT = "absent"
    UNKNOWN = "unknown"


Reports = Annotated[Path, typer.Argument(help="reports.jsonl, reports.csv, or a token store", exists=True)]
Out = Annotated[Path, typer.Option(help="labels.csv to write")]


@app.command()
def lists(
    files: Annotated[list[Path], typer.Argument(help="tables (CSV), and lists such as glioma.txt", exists=True)],
    out: Out,
    key: Annotated[Path | None, typer.Option(help="a run's pseudonym key", exists=True)] = None,
    store: Annotated[Path | None, typer.Option(help="a token store: its studies are ours, others unknown")] = None,
    unlisted: Annotated[Unnamed, typer.Option(help="what empty cells and unlisted studies count as")] = Unnamed.UNKNOWN,
) -> None:
    """Labels that a site has in files of its own."""
    with _explained():
        read = read_lists(files, _Names(key, store).resolve, unlisted.value)
        _write(out, read.labels)
        _tell(read.labels)
        if read.unknown:
            more = "" if len(read.unknown) <= NAMED else ", …"
            typer.echo(
                f"{len(read.unknown)} line(s) name a study that is not ours: {', '.join(read.unknown[:NAMED])}{more}"
            )
        if read.ignored_columns:
            typer.echo(f"columns that are no finding's: {', '.join(read.ignored_columns)}")
        if read.without_positives:
            typer.echo(f"no study has: {', '.join(read.without_positives)}")


@app.command()
def rules(
    reports: Reports,
    out: Out,
    uncertain: Annotated[Uncertain, typer.Option(help='what "possible" counts as')] = Uncertain.UNKNOWN,
    unmentioned: Annotated[
        Unnamed, typer.Option(help="what a finding counts as that a report does not name")
    ] = Unnamed.ABSENT,
) -> None:
    """Labels from report text by rules."""
    with _explained():
        labels = label_reports(_reports(reports), RuleSettings(uncertain.value, unmentioned.value))
        _write(out, labels)
        _tell(labels)


@app.command()
def language_model(
    reports: Reports,
    out: Out,
    url: Annotated[str, typer.Option(help="what /v1/chat/completions is below")] = "",
    model: Annotated[str, typer.Option(help="with --url: the model's name there")] = "",
    folder: Annotated[Path | None, typer.Option(help="a Hugging Face folder of safetensors")] = None,
    device: Annotated[str, typer.Option(help="with --folder: cpu or cuda")] = "cpu",
    cache: Annotated[Path | None, typer.Option(help="kept answers; OUT with .answers.jsonl if left out")] = None,
    finding: Annotated[list[str] | None, typer.Option(help="a diagnosis key; all if left out")] = None,
    allow_plain_http: Annotated[bool, typer.Option(help="send reports to another machine unencrypted")] = False,
) -> None:
    """Labels from report text by a language model; what it does not answer as asked is listed, never guessed."""
    with _explained():
        chosen = _model(url, model, folder, device, allow_plain_http)
        kept = cache or out.with_suffix(".answers.jsonl")
        done = label_by_model(_reports(reports), chosen, kept, finding or TERMS)
        _write(out, done.labels)
        _tell(done.labels)
        typer.echo(f"{done.cached} answers were kept from before")
        if done.failed:
            failures = out.with_suffix(".failed.csv")
            _write_failures(failures, done.failed)
            typer.echo(f"{len(done.failed)} studies have no usable answer and no labels, see {failures}", err=True)
        if done.failed and not done.labels:
            raise BadTrainingData("the model gave no usable answer at all")


@app.command()
def agreement(
    first: Annotated[Path, typer.Argument(help="labels.csv", exists=True)],
    second: Annotated[Path, typer.Argument(help="labels.csv of the same studies", exists=True)],
    out: Annotated[Path | None, typer.Option(help="a JSON document, with the studies that differ")] = None,
) -> None:
    """How far two sets of labels agree, finding by finding."""
    with _explained():
        compared = compare_labels(read_labels(first), read_labels(second))
        Console(width=None if Console().is_terminal else 200).print(table(compared, first.stem, second.stem))
        typer.echo(f"{compared.shared} studies in both, {compared.first_alone} and {compared.second_alone} in one only")
        if out is not None:
            out.write_text(json.dumps(compared.as_json(), indent=1) + "\n", "utf-8")


class _Names:
    """A site's names of studies → a run's."""

    def __init__(self, key: Path | None, store: Path | None) -> None:
        self._pseudonyms = load_or_create_key(key) if key else None
        self._known = {record.study for record in TokenStore(store).records} if store else None

    def resolve(self, name: str) -> str | None:
        """A pseudonym where there is a key, else the name; None for what is no UID, or not in the store."""
        if self._pseudonyms is not None:
            if not _UID.fullmatch(name):
                return None
            name = self._pseudonyms.study(name)
        return name if self._known is None or name in self._known else None


def _reports(path: Path) -> Mapping[str, StudyReport]:
    if path.is_dir():
        return TokenStore(path).reports()
    return read_known(reports=path).reports


def _model(url: str, model: str, folder: Path | None, device: str, plain_http: bool) -> LanguageModel:
    if bool(url) == bool(folder):
        raise BadTrainingData("name the model by --url and --model, or by --folder")
    if folder is not None:
        return LocalModel(folder, device=device)
    if not model:
        raise BadTrainingData("--url needs --model, the model's name there")
    server = ChatServer(url, model, key=os.environ.get("LANGUAGE_MODEL_KEY", ""), plain_http=plain_http)
    if not server.is_local:
        typer.echo("warning: report texts, which are patient data, leave this machine for the model's server", err=True)
    return server


def _write(out: Path, labels: Mapping[str, StudyLabels]) -> None:
    scratch = out.with_name(f".{out.name}.new")
    write_labels(scratch, labels)
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(out)


def _write_failures(path: Path, failed: Mapping[str, str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("study", "reason"), *failed.items()])


def _tell(labels: Mapping[str, StudyLabels]) -> None:
    found = Counter(name for one in labels.values() for name, present in one.diagnosis.items() if present)
    nothing = sum(one == StudyLabels() for one in labels.values())
    typer.echo(f"{len(labels)} studies, {nothing} of which nothing is known; studies with each finding:")
    for name, count in found.most_common():
        typer.echo(f"  {count:6d}  {name}")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except TrainingError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"error: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
