"""`python -m training.labels`: what the commands write and say, from reports to the agreement of two sets of labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.base.cohort import StudyReport, read_labels, write_reports
from training.base.pseudonyms import load_or_create_key
from training.labels import __main__ as commands
from training.labels.terms import TERMS

MENINGIOMA, ANEURYSM = "tumor_adult_meningioma", "vascular_malformation_cerebral_aneurysm"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(commands.app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    said = {"s1": ("There is a meningioma.", "Possible aneurysm."), "s2": ("No aneurysm.",), "s3": ()}
    write_reports(tmp_path / "reports.jsonl", {study: StudyReport(items) for study, items in said.items()})
    return tmp_path / "reports.jsonl"


def test_rules_write_labels_as_the_settings_say(reports: Path, tmp_path: Path) -> None:
    code, text = run("rules", reports, "--out", tmp_path / "rules.csv")
    assert code == 0, text
    assert "3 studies, 1 of which nothing is known" in text
    assert f"1  {MENINGIOMA}" in text
    labels = read_labels(tmp_path / "rules.csv")
    assert labels["s1"].diagnosis[MENINGIOMA]
    assert ANEURYSM not in labels["s1"].diagnosis
    assert labels["s2"].diagnosis == dict.fromkeys(TERMS, False)
    run("rules", reports, "--out", tmp_path / "rules.csv", "--uncertain", "positive", "--unmentioned", "unknown")
    assert read_labels(tmp_path / "rules.csv")["s1"].diagnosis == {MENINGIOMA: True, ANEURYSM: True}


def test_agreement_of_two_files(reports: Path, tmp_path: Path) -> None:
    run("rules", reports, "--out", tmp_path / "rules.csv", "--uncertain", "positive")
    run("rules", reports, "--out", tmp_path / "strict.csv", "--uncertain", "negative")
    code, text = run("agreement", tmp_path / "rules.csv", tmp_path / "strict.csv", "--out", tmp_path / "agreement.json")
    assert code == 0, text
    assert "rules only" in text
    assert "3 studies in both" in text
    document = json.loads((tmp_path / "agreement.json").read_text())
    differing = {one["finding"]: one["differing"] for one in document["findings"] if one["differing"]}
    assert differing == {f"diagnosis.{ANEURYSM}": ["s1"]}


def test_lists_become_a_runs_labels(tmp_path: Path) -> None:
    (tmp_path / "site.csv").write_text("StudyInstanceUID,Reader,Meningioma,glioma\n1.2.3,BK,yes,no\nA7,BK,yes,no\n")
    key = load_or_create_key(tmp_path / "key")
    code, text = run("lists", tmp_path / "site.csv", "--key", tmp_path / "key", "--out", tmp_path / "labels.csv")
    assert code == 0, text
    assert "1 line(s) name a study that is not ours: site.csv, line 3" in text
    assert "columns that are no finding's: Reader" in text
    assert "no study has: diagnosis.tumor_adult_glioma" in text
    assert list(read_labels(tmp_path / "labels.csv")) == [key.study("1.2.3")]


class Model:
    """Knows of the first study only."""

    name = "made up"

    def complete(self, prompt: str) -> str:
        return json.dumps({MENINGIOMA: "present"}) if "meningioma." in prompt else "no idea"


def test_a_language_models_failures_are_listed(reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LocalModel", lambda folder, device: Model())
    arguments = ("language-model", reports, "--out", tmp_path / "model.csv", "--folder", tmp_path)
    code, text = run(*arguments, "--finding", MENINGIOMA)
    assert code == 0, text
    assert read_labels(tmp_path / "model.csv")["s1"].diagnosis == {MENINGIOMA: True}
    assert "2 studies have no usable answer" in text
    failed = (tmp_path / "model.failed.csv").read_text()
    assert "s2,it is not one JSON object" in failed
    assert "s3,the report is empty" in failed
    assert "1 answers were kept from before" in run(*arguments, "--finding", MENINGIOMA)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the model by --url and --model, or by --folder"),
        (["--url", "https://models.hospital"], "--url needs --model"),
        (["--url", "http://models.hospital", "--model", "m"], "plain http"),
    ],
)
def test_a_model_must_be_named_safely(reports: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, text = run("language-model", reports, "--out", tmp_path / "model.csv", *arguments)
    assert (code, message in text) == (1, True)
    assert not (tmp_path / "model.csv").exists()


def test_another_machine_is_warned_of(reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.ChatServer, "complete", lambda self, prompt: "")
    common = ("language-model", reports, "--out", tmp_path / "model.csv", "--model", "m")
    assert "leave this machine" in run(*common, "--url", "https://models.hospital")[1]
    assert "leave this machine" not in run(*common, "--url", "http://127.0.0.1:1")[1]
