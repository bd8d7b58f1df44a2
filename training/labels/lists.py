"""Labels that a site has as files of its own: our CSV, a table with a column a finding, or a list of studies a finding.

    labels.csv      as `training.base.cohort.read_labels` takes it
    any other CSV   a study column (`STUDY_COLUMNS`), and columns named as findings go by (`finding_named`); other
                    columns are left alone and reported
    glioma.txt      a study a line, all of which have the finding that the file is named after; `#` begins a comment

A study that is named twice must be said to be the same; what contradicts itself is nobody's to guess. Messages name
files and lines, never a study.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from training.base.cohort import PREFIXES, StudyLabels, read_labels
from training.base.errors import BadTrainingData
from training.labels.rules import plain
from training.labels.terms import DESCRIPTIONS, TERMS
from training.prepare.known import read_table

STUDY_COLUMNS = frozenset(
    {"study", "studyinstanceuid", "studyuid", "uid", "accessionnumber", "accession", "accessionno"}
)
PRESENT = frozenset({"1", "1.0", "yes", "y", "true", "x", "+", "pos", "positive", "present"})
ABSENT = frozenset({"0", "0.0", "no", "n", "false", "-", "neg", "negative", "absent"})
NAMED = 5  # places that a message names of many

_GROUP = re.compile(
    "^(cyst|developmental|infectious|inflammatory|sellar|spine|structural|surgical|trauma|tumor_(adult|pediatric)"
    "|vascular_(hemorrhagic|ischemic|malformation)|ventricular)_"
)

Resolve = Callable[[str], str | None]


@dataclass(frozen=True)
class ReadLists:
    """What the files say, by the names that `resolve` gave.

    unknown: the places (file and line) that name a study which is none of ours. ignored_columns: of tables, that are no
    finding's. without_positives: findings that are named and that no known study has.
    """

    labels: Mapping[str, StudyLabels]
    unknown: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = ()
    without_positives: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Statement:
    """One cell. column: as in our CSV. value: True or False of a finding, else priority or number; None: empty."""

    study: str
    column: str
    value: bool | str | float | None
    where: str


def read_lists(
    paths: Sequence[Path], resolve: Resolve = str, unlisted: Literal["unknown", "absent"] = "unknown"
) -> ReadLists:
    """Read all files together.

    resolve: a study as the site names it → as the run does, None where it is not ours. unlisted: what an empty cell,
    and a study that a text file does not list, count as among the studies that these files name. Raises BadTrainingData
    with the file and line at fault.
    """
    statements = [statement for path in paths for statement in _statements(path)]
    names = {statement.study: resolve(statement.study) for statement in statements}
    known: dict[str, dict[str, _Statement]] = {name: {} for name in names.values() if name is not None}
    unknown: dict[str, None] = {}
    for statement in statements:
        name = names[statement.study]
        if name is None:
            unknown[statement.where] = None
        elif statement.value is not None:
            _add(known[name], statement)
    columns = {statement.column for statement in statements} - {""}
    findings = sorted(column for column in columns if column.startswith(("diagnosis.", "referral.")))
    if unlisted == "absent":
        for said in known.values():
            for column in findings:
                said.setdefault(column, _Statement("", column, False, ""))
    positive = {one.column for said in known.values() for one in said.values() if one.value is True}
    return ReadLists(
        labels={study: _labels(said) for study, said in known.items()},
        unknown=tuple(unknown),
        ignored_columns=tuple(dict.fromkeys(column for path in paths for column in _ignored(path))),
        without_positives=tuple(column for column in findings if column not in positive),
    )


def finding_named(name: str) -> str | None:
    """The diagnosis key that a site means: the key, with its groups or without, or a term of it."""
    simple = _simple(name)
    by_name = _keys_by_name()
    if simple in by_name:
        return by_name[simple]
    described = [key for key, patterns in DESCRIPTIONS.items() if re.fullmatch("|".join(patterns), simple)]
    return described[0] if len(described) == 1 else None


def _statements(path: Path) -> Iterator[_Statement]:
    if path.suffix.lower() == ".txt":
        return _listed(path)
    return _ours(path) if _is_ours(path) else _table(path)


def _listed(path: Path) -> Iterator[_Statement]:
    key = finding_named(path.stem)
    if key is None:
        raise BadTrainingData(f"{path}: is named after no finding; name it such as glioma.txt")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadTrainingData(f"{path}: cannot be read ({type(error).__name__})") from error
    for number, line in enumerate(lines, 1):
        if study := line.partition("#")[0].strip():
            yield _Statement(study, f"diagnosis.{key}", True, f"{path.name}, line {number}")


def _ours(path: Path) -> Iterator[_Statement]:
    for number, (study, labels) in enumerate(read_labels(path).items(), 2):
        where = f"{path.name}, line {number}"
        yield _Statement(study, "", None, where)
        yield from (_Statement(study, f"diagnosis.{name}", value, where) for name, value in labels.diagnosis.items())
        yield from (_Statement(study, f"referral.{name}", value, where) for name, value in labels.referral.items())
        yield from (_Statement(study, f"value.{name}", value, where) for name, value in labels.value.items())
        if labels.priority:
            yield _Statement(study, "priority", labels.priority, where)


def _table(path: Path) -> Iterator[_Statement]:
    study_column, findings = _columns(path)
    for number, row in enumerate(read_table(path), 2):
        where, study = f"{path.name}, line {number}", row[study_column]
        if not study:
            raise BadTrainingData(f"{path}, line {number}: no study in column {study_column!r}")
        for column, key in findings.items():
            cell = row[column].lower()
            if cell and cell not in PRESENT | ABSENT:
                raise BadTrainingData(f"{path}, line {number}: {column!r} is neither yes nor no")
            yield _Statement(study, f"diagnosis.{key}", cell in PRESENT if cell else None, where)


def _columns(path: Path) -> tuple[str, dict[str, str]]:
    """The study column, and the diagnosis key of each column that is a finding's."""
    header = _header(path)
    studies = [column for column in header if _simple(column).replace(" ", "") in STUDY_COLUMNS]
    if not studies:
        raise BadTrainingData(f"{path}: no column names the study; call one StudyInstanceUID or AccessionNumber")
    keys = {column: key for column in header if column not in studies and (key := finding_named(column))}
    if len(set(keys.values())) < len(keys):
        raise BadTrainingData(f"{path}: two columns are of the same finding")
    if not keys:
        raise BadTrainingData(f"{path}: no column is named as a finding")
    return studies[0], keys


def _header(path: Path) -> Sequence[str]:
    first = next(iter(read_table(path)), None)
    if first is None:
        raise BadTrainingData(f"{path}: has no lines below the first")
    return tuple(first)


def _is_ours(path: Path) -> bool:
    """Whether every column is one of `read_labels`."""
    return all(
        column in ("study", "priority") or ("." in column and column.partition(".")[0] in PREFIXES)
        for column in _header(path)
    )


def _ignored(path: Path) -> Iterator[str]:
    if path.suffix.lower() != ".txt" and not _is_ours(path):
        study_column, findings = _columns(path)
        yield from (column for column in _header(path) if column != study_column and column not in findings)


def _add(said: dict[str, _Statement], statement: _Statement) -> None:
    before = said.setdefault(statement.column, statement)
    if before.value != statement.value:
        raise BadTrainingData(f"{before.where}, and {statement.where}: contradict each other in {statement.column}")


def _labels(said: Mapping[str, _Statement]) -> StudyLabels:
    by_kind: dict[str, dict[str, Any]] = {"diagnosis": {}, "referral": {}, "value": {}}
    for column, statement in said.items():
        kind, _, name = column.partition(".")
        if name:
            by_kind[kind][name] = statement.value
    return StudyLabels(
        diagnosis={name: value is True for name, value in by_kind["diagnosis"].items()},
        referral={name: value is True for name, value in by_kind["referral"].items()},
        priority=str(said["priority"].value) if "priority" in said else None,
        value={name: float(value) for name, value in by_kind["value"].items()},
    )


def _simple(name: str) -> str:
    """A name in plain words, without what display names add: "Lymphoma of brain", "Syrinx (syringomyelia)"."""
    words = plain(re.sub(r"\(.*?\)", "", re.sub(r"[_.]", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))))
    return re.sub(r"^(diagnosis|cerebral|post) | of (the )?brain$", "", words).strip()


@cache
def _keys_by_name() -> dict[str, str]:
    """Keys by what they are called in plain words. What several are called is the one's whose plainest term it is."""
    names: dict[str, list[str]] = {}
    for key, terms in TERMS.items():
        for name in {_simple(key), _simple(_GROUP.sub("", key)), *map(_simple, terms)}:
            names.setdefault(name, []).append(key)
    first = {_simple(terms[0]): key for key, terms in TERMS.items()}
    return {name: keys[0] for name, keys in names.items() if len(keys) == 1} | first
