"""The main job as its users see it: a real sender, the node, a report whose numbers are the reference's.

Covers C-STORE from DCMTK's storescu to the report at an archive, with the golden model and study, and `demo`'s JSON.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.demo.archive import AE_TITLE, Archive
from prima_core.bundle import read_manifest
from support.golden import import_golden
from support.node import Node, destination, dicom_node
from support.peers import store
from support.reports import errors_of

pytestmark = [pytest.mark.slow, pytest.mark.peers]

LOGIT_BAR = 1e-5


@pytest.fixture(scope="module")
def bundle(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_golden(shared_data, tmp_path_factory.mktemp("golden") / "bundle").directory


def scores(report: Dataset) -> dict[str, float]:
    """Finding code → number, of every measurement group (125007, DCM) of a report, read without our own code."""
    found = {}
    for group in items_named(report, "125007"):
        [finding] = items_named(group, "121071")
        [number] = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        found[finding.ConceptCodeSequence[0].CodeValue] = float(number.MeasuredValueSequence[0].NumericValue)
    return found


def items_named(item: Dataset, code: str) -> list[Dataset]:
    """Content items at any depth whose concept name has this code."""
    children = list(item.get("ContentSequence", []))
    own = [child for child in children if child.ConceptNameCodeSequence[0].CodeValue == code]
    return own + [deeper for child in children for deeper in items_named(child, code)]


def test_a_study_sent_by_dcmtk_comes_back_with_the_references_numbers(
    shared_data: Path, bundle: Path, tmp_path: Path
) -> None:
    golden = shared_data / "prima_golden"
    expected = json.loads((golden / "GOLD0001.json").read_text())
    with Archive(tmp_path / "archive") as archive:
        sites = [destination("pacs", AE_TITLE, archive.port)]
        with Node(tmp_path / "site", bundle, destinations=sites) as node:
            sent = store(node.port, [golden / "GOLD0001.study"], "+sd", "+r")
            assert sent.returncode == 0, sent.stdout
            uid = dcmread(next((golden / "GOLD0001.study").rglob("*.dcm"))).StudyInstanceUID
            study = node.wait_for_state(uid, "delivered")
        [path] = archive.reports
    assert errors_of(path) == []
    report = dcmread(path)
    assert report.StudyInstanceUID == uid
    assert (report.PatientID, report.AccessionNumber) == ("GOLD0001", "ACC0001")
    positive = {name: logit for name, logit in expected["diagnosis"].items() if logit > 0}
    assert {finding["name"] for finding in study.findings} == positive.keys()
    for finding in study.findings:
        assert finding["score"] == pytest.approx(positive[finding["name"]], abs=LOGIT_BAR)
        assert scores(report)[finding["code"]] == pytest.approx(finding["score"], rel=1e-3)
    assert study.level == "urgent"


def test_infer_gives_the_references_numbers(shared_data: Path, bundle: Path) -> None:
    golden = shared_data / "prima_golden"
    expected = json.loads((golden / "GOLD0001.json").read_text())
    ran = dicom_node(
        "infer", str(golden / "GOLD0001.study"), "--bundle", str(bundle), "--precision", "fp32", "--embedding", "--json"
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    for task in ("diagnosis", "referral", "priority"):
        assert said[task] == pytest.approx(expected[task], abs=LOGIT_BAR)
    assert len(said["study_embedding"]) == 96
    assert said["bundle"]["id"] == read_manifest(bundle).id


def test_the_demo_runs_from_nothing(tmp_path: Path) -> None:
    ran = dicom_node("demo", "--folder", str(tmp_path / "demo"), "--json")
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["state"] == "delivered"
    assert said["training_state"] == "untrained"
    assert said["seconds_to_report"] > 0
    assert set(said["priority"]) == {"level", "rule"}
    report = dcmread(said["sr_path"])
    assert report.SOPInstanceUID == said["sr_sop_instance_uid"]
    assert report.StudyInstanceUID == said["study_instance_uid"]
    assert "NOT FOR CLINICAL USE" in report.SeriesDescription
    for finding in said["findings"]:
        assert set(finding) == {"name", "code", "scheme", "meaning", "score", "calibrated"}
        assert finding["calibrated"] is False


def test_the_demo_ends_out_of_scope_for_a_knee(shared_data: Path, tmp_path: Path) -> None:
    ran = dicom_node("demo", "--study", str(shared_data / "knee"), "--folder", str(tmp_path / "demo"), "--json")
    assert ran.returncode == 3, ran.stderr
    said = json.loads(ran.stdout)
    assert said["state"] == "out_of_scope"
    assert "knee" in said["reason"]
    assert said["sr_path"] is None
