"""Simpler forms of an object: valid, the same content, the same UIDs at each try, predecessors in the same class."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import BasicTextSRStorage, EnhancedSRStorage, SecondaryCaptureImageStorage

from dicom_node.base.config import ReportSection
from dicom_node.base.types import Evidence, ImageReference, Score
from dicom_node.reporting.codes import diagnosis
from dicom_node.reporting.document import SOP_CLASSES, build_report
from dicom_node.reporting.fallback import simpler
from dicom_node.reporting.pages import Reader, summary_page
from dicom_node.reporting.secondary_capture import multi_frame
from dicom_node.reporting.source import read_source
from dicom_node.reporting.wording import Wording
from dicom_node.reporting.write import write_report
from support.reports import STUDY, dump, errors_of, make_result, write_study

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
VENTRICLES = "ventricular_ventriculomegaly"
EARLIER = ("1.2.3.1", "1.2.3", SOP_CLASSES["enhanced"])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    (tmp_path / "images").mkdir()
    return write_study(tmp_path / "images", {}, {})


@pytest.mark.parametrize("explained", [False, True])
def test_a_report_becomes_the_variant_that_would_have_been_made(
    tmp_path: Path, images: list[Path], explained: bool
) -> None:
    evidence = (Evidence(VENTRICLES, (ImageReference(f"{STUDY}.1.1"),), "LIME, 256 samples, seed 0"),)
    result = make_result(images, evidence=evidence if explained else ())
    report = write_report(build_report(result, images, ReportSection(), NOW), tmp_path)
    [path] = simpler(report)
    assert errors_of(path) == []
    made, variant = dcmread(path), build_report(result, images, ReportSection(), NOW, "comprehensive")
    assert made.SOPInstanceUID == variant.SOPInstanceUID
    assert made == dcmread(write_report(variant, tmp_path / "variant"))
    [again] = simpler(report)
    assert again == path
    [last] = simpler(path)
    assert errors_of(last) == []
    assert dcmread(last).SOPClassUID == EnhancedSRStorage
    [basic] = simpler(last)
    assert errors_of(basic) == []
    assert simpler(basic) == []


@pytest.mark.parametrize("language", ["en", "de", "fr"])
@pytest.mark.parametrize("negatives", ["summary", "all"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_the_last_resort_is_basic_text_with_all_that_the_report_says(
    tmp_path: Path, images: list[Path], language: Any, negatives: Any, calibrated: bool
) -> None:
    evidence = (Evidence(VENTRICLES, (ImageReference(f"{STUDY}.1.1"),), "LIME, 256 samples, seed 0"),)
    settings = ReportSection(language=language, negatives=negatives, sop_class="enhanced")
    diagnoses = (Score(VENTRICLES, 1.25, 0.5, 0.8125 if calibrated else None), Score("tumor_adult_glioma", -1.0, 0.0))
    result = make_result(images, evidence=evidence, diagnoses=diagnoses, predecessors=(EARLIER,))
    report = write_report(build_report(result, images, settings, NOW), tmp_path)
    [path] = simpler(report)
    assert errors_of(path) == []
    shown = dump(path)
    made, whole = dcmread(path), dcmread(report)
    wanted = build_report(result, images, settings, NOW, "basic_text")
    assert (made.SOPClassUID, made.SOPInstanceUID) == (BasicTextSRStorage, wanted.SOPInstanceUID)
    assert made.SeriesInstanceUID == whole.SeriesInstanceUID
    assert made.PredecessorDocumentsSequence == wanted.PredecessorDocumentsSequence
    kinds = {item.ValueType for item in every(made)}
    assert kinds <= {"CONTAINER", "TEXT", "CODE", "UIDREF", "IMAGE"}
    assert codes_of(made) == codes_of(wanted), "the same codes as in a report that is Basic Text from the start"
    assert cited_in(made) == cited_in(wanted) == [f"{STUDY}.1.1"]
    number = "0.8125" if calibrated else "1.25"
    [line] = [text for text in texts_of(made) if number in text and "LIME" in text]
    assert Wording(language).name(diagnosis(VENTRICLES)) in line
    assert (": probability 0.8125." in line) == calibrated
    assert ("uncalibrated score" in line) != calibrated
    assert set(texts_of(wanted)) - set(texts_of(made)) <= {
        text for text in texts_of(wanted) if "LIME" in text or "-1" in text
    }
    assert number in shown


def every(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from every(item)


def codes_of(document: Dataset) -> list[tuple[str, str]]:
    """Name and value of every code item of the document, in order."""
    return [
        (item.ConceptNameCodeSequence[0].CodeValue, item.ConceptCodeSequence[0].CodeValue)
        for item in every(document)
        if item.ValueType == "CODE"
    ]


def texts_of(document: Dataset) -> list[str]:
    return [item.TextValue for item in every(document) if item.ValueType == "TEXT"]


def cited_in(document: Dataset) -> list[str]:
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in every(document) if item.ValueType == "IMAGE"
    ]


def test_a_single_page_is_valid_in_both_forms(tmp_path: Path, images: list[Path]) -> None:
    result, source = make_result(images), read_source(images)
    page = summary_page(result, [], Reader(Wording("en")))
    path = write_report(multi_frame([page], [], result, "2.25.9", source, ReportSection(), NOW), tmp_path)
    assert errors_of(path) == []
    assert [errors_of(one) for one in simpler(path)] == [[]]


def test_pages_become_an_object_each(tmp_path: Path, images: list[Path]) -> None:
    result, source = make_result(images), read_source(images)
    page = summary_page(result, [], Reader(Wording("en")))
    pages = [page, page[::-1]]
    path = write_report(multi_frame(pages, [], result, "2.25.9", source, ReportSection(), NOW), tmp_path)
    assert errors_of(path) == []
    single = [dcmread(one) for one in simpler(path)]
    assert [errors_of(one) for one in simpler(path)] == [[], []]
    assert [one.SOPClassUID for one in single] == [SecondaryCaptureImageStorage] * 2
    assert len({one.SOPInstanceUID for one in single}) == 2
    for number, (one, wanted) in enumerate(zip(single, pages, strict=True), 1):
        assert one.InstanceNumber == number
        np.testing.assert_array_equal(one.pixel_array, wanted)
