"""A study in, a report out: DCMTK's storescu sends, the report's numbers are the model's, and `demo` does it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.base.types import Level
from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.reporting.codes import Concept, diagnosis, priority, referral, report_code
from prima_core.import_prima import import_prima
from support.command_line import Cli
from support.node import Node, destination, dicom_node, evidence
from support.peers import store

pytestmark = [pytest.mark.peers, pytest.mark.slow]

TOLERANCE = 1e-5
TRACKING_IDENTIFIER = "112039"  # DCM, names the finding in words
DEMO_KEYS = {
    *("study_instance_uid", "state", "sr_sop_instance_uid", "sr_path", "findings", "priority"),
    *("seconds_to_report", "training_state"),
}


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Path:
    """The small model in the released checkpoint's form, and the reference's answers."""
    return shared_data / "prima_golden"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    """The golden checkpoint, imported as the released one would be."""
    folder = tmp_path_factory.mktemp("golden") / "bundle"
    checkpoint = (golden / "primafullmodel.pt", golden / "vqvae.pth", golden / "tokenizer_config.json")
    import_prima(*checkpoint, folder, training_state="clinical")
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, golden: Path, bundle: Path) -> Iterator[tuple[Dataset, Path]]:
    """What an archive received for the golden study, and the study's folder."""
    folder = tmp_path_factory.mktemp("house")
    study = golden / "GOLD0001.study"
    files = sorted(path for path in study.rglob("*") if path.is_file())
    with Archive(folder / "archive") as archive:
        goals = [destination("pacs", AE_TITLE, archive.port)]
        everything = {"negatives": "all"}
        with Node(folder, bundle, destinations=goals, report=everything, model={"allow_nonclinical": False}) as node:
            sent = store(node.port, files)
            assert sent.returncode == 0, sent.stdout
            uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
            node.wait_for_state(uid, "delivered")
        [path] = archive.reports
        yield dcmread(path), study


def items(document: Dataset) -> Iterator[Dataset]:
    """Every content item of a Structured Report."""
    for item in document.get("ContentSequence", []):
        yield item
        yield from items(item)


def scores(document: Dataset) -> dict[str, float]:
    """Finding (by its tracking identifier) → the number reported for it."""
    found = {}
    for group in items(document):
        inside = list(group.get("ContentSequence", []))
        names = [i.TextValue for i in inside if i.ValueType == "TEXT" and code_of(i) == TRACKING_IDENTIFIER]
        numbers = [i.MeasuredValueSequence[0].FloatingPointValue for i in inside if i.ValueType == "NUM"]
        if names:
            [found[names[0]]] = numbers
    return found


def code_of(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def by_display(logits: dict[str, float]) -> dict[str, float]:
    return {diagnosis(name).display: logit for name, logit in logits.items()}


def test_the_reports_numbers_are_the_references(report: tuple[Dataset, Path], golden: Path) -> None:
    document, _ = report
    reference = json.loads((golden / "GOLD0001.json").read_text())
    assert scores(document) == pytest.approx(by_display(reference["diagnosis"]), abs=TOLERANCE)


def test_infer_says_the_same_as_the_report_and_the_reference(
    report: tuple[Dataset, Path], golden: Path, bundle: Path, cli: Cli
) -> None:
    document, study = report
    done = cli("infer", study, "--bundle", bundle, "--precision", "fp32", "--json")
    assert done.code == 0, done.err
    answer = done.json
    assert scores(document) == pytest.approx(by_display(answer["diagnosis"]), abs=TOLERANCE)
    reference = json.loads((golden / "GOLD0001.json").read_text())
    for task in ("diagnosis", "referral", "priority"):
        assert answer[task] == pytest.approx(reference[task], abs=TOLERANCE), task


def test_referral_and_reading_priority_are_reported_as_the_reference_says(
    report: tuple[Dataset, Path], golden: Path
) -> None:
    document, _ = report
    reference = json.loads((golden / "GOLD0001.json").read_text())
    positive = [referral(name).code for name, logit in reference["referral"].items() if logit > 0]
    assert coded(document, report_code("recommendation")) == positive == [referral("neurosurgery").code]
    strongest = max(reference["priority"], key=reference["priority"].get)
    assert (strongest, coded(document, report_code("priority_concept"))) == ("high", [priority(Level.URGENT).code])


def coded(document: Dataset, name: Concept) -> list[str]:
    """Values of every code item of this concept name."""
    codes = [item for item in items(document) if item.ValueType == "CODE" and code_of(item) == name.code]
    return [str(item.ConceptCodeSequence[0].CodeValue) for item in codes]


def test_the_report_names_every_image_it_was_made_from_and_is_no_final_word(report: tuple[Dataset, Path]) -> None:
    document, study = report
    images = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in study.rglob("*") if path.is_file()}
    assert evidence(document) == images
    assert (document.VerificationFlag, document.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


def test_the_demo_does_the_main_job_and_prints_the_contract(tmp_path: Path) -> None:
    done = dicom_node("demo", "--folder", str(tmp_path / "demo"), "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer.keys() >= DEMO_KEYS
    assert (answer["state"], answer["training_state"]) == ("delivered", "phantom")
    assert answer["priority"].keys() == {"level", "rule"}
    assert answer["seconds_to_report"] > 0
    document = dcmread(answer["sr_path"])
    assert (document.StudyInstanceUID, document.SOPInstanceUID) == (
        answer["study_instance_uid"],
        answer["sr_sop_instance_uid"],
    )
    assert "NOT FOR CLINICAL USE" in document.SeriesDescription
    assert answer["findings"]
    reported = scores(document)
    for finding in answer["findings"]:
        assert finding.keys() == {"name", "code", "scheme", "meaning", "score", "calibrated"}
        assert reported[diagnosis(finding["name"]).display] == pytest.approx(finding["score"], abs=TOLERANCE)
    assert len(reported) == len(answer["findings"]), "what is below its threshold is no finding"
