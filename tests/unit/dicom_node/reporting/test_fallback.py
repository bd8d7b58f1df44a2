"""Simpler forms of an object: valid, the same content, the same UIDs at each try, predecessors in the same class."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import EnhancedSRStorage, SecondaryCaptureImageStorage

from dicom_node.base.config import ReportSection
from dicom_node.base.types import Evidence, ImageReference
from dicom_node.reporting.document import build_report
from dicom_node.reporting.fallback import simpler
from dicom_node.reporting.pages import Reader, summary_page
from dicom_node.reporting.secondary_capture import multi_frame
from dicom_node.reporting.source import read_source
from dicom_node.reporting.wording import Wording
from dicom_node.reporting.write import write_report
from support.reports import STUDY, errors_of, make_result, write_study

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
VENTRICLES = "ventricular_ventriculomegaly"


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
    assert simpler(last) == []


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
