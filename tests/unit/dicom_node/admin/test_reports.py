"""`reports export`: from HL7 bytes to the file that training reads. The registry is SQLite."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node.admin.reports import app
from dicom_node.base.hl7_settings import Hl7Listener
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.hl7.inbound import read_events
from support.orders import receive, tell
from support.studies import new_registry
from training.base.cohort import read_reports
from training.labels.rules import label_reports

FINAL_AT = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
LINES = (
    "OBX|1|TX|18782-3^Report^LN||INDICATION: ?metastasis||||||F",
    "OBX|2|FT|18782-3^Report^LN||FINDINGS:\\.sp2\\\\.in+4\\No evidence of hemorrhage,\\.br\\infarct \\T\\ edema||||||F",
    "OBX|3|TX|18782-3^Report^LN||Left meningioma, T1 \\R\\ T2.~No hydrocephalus.||||||F",
)


def message() -> bytes:
    segments = (
        "MSH|^~\\&|RIS|H|NODE|H|20260301120000+0000||ORU^R01|M1|P|2.5.1",
        "PID|||P1||Doe^Jane||19700101|F",
        "ORC|RE|PL1|FI1",
        "OBR|1|PL1|FI1|MRHEAD^MR head^L||||||||||||||A1||||20260301120000+0000||MR|F",
        *LINES,
    )
    return "\r".join([*segments, ""]).encode()


@pytest.fixture
def node(tmp_path: Path) -> tuple[Registry, Path]:
    registry = new_registry(tmp_path)
    (tmp_path / "node.toml").write_text(
        f'[node]\nstorage = "{tmp_path}"\ndatabase = "{registry._engine.url.render_as_string(False)}"\n'
    )
    return registry, tmp_path


def export(folder: Path, *arguments: str) -> tuple[int, str]:
    out = ["--out", str(folder / "reports.jsonl"), "--config", str(folder / "node.toml")]
    result = CliRunner().invoke(app, ["export", *out, *arguments])
    return result.exit_code, result.stdout


def test_a_report_by_hl7_becomes_statements_that_training_reads(node: tuple[Registry, Path]) -> None:
    registry, folder = node
    receive(registry, at=FINAL_AT - 3600)
    tell(registry, *read_events(message(), Hl7Listener(port=1)), at=FINAL_AT + 1)
    code, text = export(folder)
    assert (code, text) == (0, f"1 reports in {folder / 'reports.jsonl'}\n")
    reports = read_reports(folder / "reports.jsonl")
    assert reports["1.2.3"].items == (
        "INDICATION: ?metastasis",
        "FINDINGS:",
        "No evidence of hemorrhage, infarct & edema",
        "Left meningioma, T1 ~ T2.",
        "No hydrocephalus.",
    )
    assert (folder / "reports.jsonl").stat().st_mode & 0o777 == 0o600
    present = {name for name, there in label_reports(reports)["1.2.3"].diagnosis.items() if there}
    assert present == {"tumor_adult_meningioma"}


def test_since_and_json(node: tuple[Registry, Path]) -> None:
    registry, folder = node
    receive(registry, at=FINAL_AT - 3600)
    tell(registry, *read_events(message(), Hl7Listener(port=1)), at=FINAL_AT + 1)
    answers = [json.loads(export(folder, "--json", "--since", day)[1]) for day in ("2026-03-01", "2026-03-02")]
    assert [answer["reports"] for answer in answers] == [1, 0]
    assert answers[0]["of_no_study"] == 0
    assert read_reports(folder / "reports.jsonl") == {}


def test_a_file_that_others_could_read_is_replaced(node: tuple[Registry, Path]) -> None:
    _, folder = node
    (folder / "reports.jsonl").write_text("old")
    (folder / "reports.jsonl").chmod(0o644)
    assert export(folder)[0] == 0
    assert (folder / "reports.jsonl").read_text() == ""
    assert (folder / "reports.jsonl").stat().st_mode & 0o777 == 0o600
