"""A run's split by days or by a list: real days and UIDs are understood, nobody is on two sides, no part is empty."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.base.cohort import StudyRecord
from training.base.pseudonyms import Pseudonyms, load_or_create_key
from training.run_folder import RunFolder
from training.split import app

FIRST = date(2026, 3, 1)


def run_with(folder: Path, patients: Sequence[int]) -> tuple[RunFolder, Pseudonyms]:
    """Study n, UID 1.2.n, of the patient given for it, n days after the first."""
    key = load_or_create_key(folder / "key")
    lines = [
        json.dumps(
            StudyRecord(key.study(f"1.2.{n}"), key.patient(str(who)), key.day(FIRST + timedelta(days=n))).as_json()
        )
        for n, who in enumerate(patients)
    ]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    return RunFolder(folder), key


def split(folder: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["--run", str(folder), *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_real_days_split_studies_whose_days_are_shifted(tmp_path: Path) -> None:
    run, key = run_with(tmp_path, [1, 2, 3, 4, 1])
    assert split(tmp_path, "--by-day", "2026-03-03", "2026-03-04").startswith("train 2, validation 1, test 1")
    found = run.split()
    assert set(found.train) == {key.study("1.2.0"), key.study("1.2.1")}
    assert found.test == (key.study("1.2.3"),), "the first patient's later study tests nothing"


def test_a_list_may_name_studies_by_uid_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    run, key = run_with(tmp_path, [1, 2, 3, 4])
    parts = tmp_path / "parts.csv"
    parts.write_text(f"study,part\n1.2.0,train\n{key.study('1.2.1')},validation\n1.2.2,test\n1.2.99,test\n")
    assert "1 named studies are not in this run" in split(tmp_path, "--list", str(parts))
    assert (run.split().train, run.split().test) == ((key.study("1.2.0"),), (key.study("1.2.2"),))


@pytest.mark.parametrize(
    ("patients", "words"), [([1, 2, 1], "is in train and in test"), ([1, 2], "no study would be in the test part")]
)
def test_a_patient_on_two_sides_and_an_empty_part_are_refused(tmp_path: Path, patients: list[int], words: str) -> None:
    run_with(tmp_path, patients)
    parts = tmp_path / "parts.csv"
    parts.write_text("study,part\n1.2.0,train\n1.2.1,validation\n1.2.2,test\n")
    assert words in split(tmp_path, "--list", str(parts), code=1)
    assert not (tmp_path / "split.csv").exists()


def test_one_of_the_two_ways_is_named(tmp_path: Path) -> None:
    run_with(tmp_path, [1])
    assert "--by-day or --list" in split(tmp_path, code=2)
