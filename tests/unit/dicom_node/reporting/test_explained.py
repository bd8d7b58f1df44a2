"""The explained report: which images speak for which finding, and how it stands beside the plain one.

Every document goes through `dciodvfy -new` and `dsrdump`.
Not covered: whether a viewer opens the cited slice.
"""

from __future__ import annotations

import dataclasses
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage

from dicom_node.base.config import ReportSection, SopClass
from dicom_node.base.errors import ReportError
from dicom_node.base.types import Evidence, ImageReference, StudyResult
from dicom_node.reporting.document import SOP_CLASSES, build_report, explained_uid, report_uids, variant_uid
from support.reports import STUDY, make_result, validate, write_study

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
VENTRICLES, BLEEDING = "ventricular_ventriculomegaly", "vascular_hemorrhagic_intracranial_hemorrhage"
METHOD = "LIME, 256 samples, seed 0"
PLACED = {
    "Rows": struct.pack("<H", 256),
    "Columns": struct.pack("<H", 320),
    "FrameOfReferenceUID": b"1.2.3.4",
    "PixelSpacing": b"0.5\\0.75",
    "SliceThickness": b"5",
    "SpacingBetweenSlices": b"6",
    "ImagePositionPatient": b"-100\\-90.5\\30",
    "ImageOrientationPatient": b"1\\0\\0\\0\\1\\0",
    "SeriesNumber": b"4",
}
ENHANCED = {
    "SOPClassUID": EnhancedMRImageStorage.encode(),
    "NumberOfFrames": b"30",
    "Rows": PLACED["Rows"],
    "Columns": PLACED["Columns"],
    "SeriesInstanceUID": f"{STUDY}.2".encode(),
    "SeriesNumber": b"5",
    "InstanceNumber": b"1",
}
SOP_UIDS = [f"{STUDY}.1.{number}" for number in range(1, 7)]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five slices of series 4 and one multi-frame image of series 5."""
    slices = [{**PLACED, "InstanceNumber": str(number).encode()} for number in range(11, 16)]
    return write_study(tmp_path, *slices, ENHANCED)


def cited(*references: tuple[int, tuple[int, ...]]) -> tuple[ImageReference, ...]:
    """References to the images at these places of the study, each with its frames."""
    return tuple(ImageReference(SOP_UIDS[at], frames) for at, frames in references)


def explained(paths: list[Path], *evidence: Evidence, **changes: Any) -> StudyResult:
    """A result with this evidence; by default four images for one finding and none, with the reason, for the other."""
    default = (
        Evidence(VENTRICLES, cited((0, ()), (1, ()), (2, ()), (4, ())), METHOD),
        Evidence(BLEEDING, note="the explanation ended at its time limit"),
    )
    return make_result(paths, evidence=evidence or default, **changes)


def report(result: StudyResult, paths: list[Path], folder: Path, chosen: SopClass, **settings: Any) -> Dataset:
    document = build_report(result, paths, ReportSection(**settings), NOW, chosen)
    return dcmread(validate(document, folder))


def walk(item: Dataset) -> list[Dataset]:
    found = []
    for child in item.get("ContentSequence", []):
        found += [child, *walk(child)]
    return found


def concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def named(item: Dataset, name: str) -> list[Dataset]:
    return [one for one in walk(item) if concept(one) == name]


def references(item: Dataset) -> list[tuple[str, list[int]]]:
    """SOP Instance UID and frames of every image below this item."""
    found = []
    for image in walk(item):
        if image.ValueType == "IMAGE":
            reference = image.ReferencedSOPSequence[0]
            frames = reference.get("ReferencedFrameNumber") or []
            found.append((str(reference.ReferencedSOPInstanceUID), [int(n) for n in frames] if frames else []))
    return found


def summary_of(document: Dataset) -> list[str]:
    (text,) = (item.TextValue for item in named(document, "Summary") if item.ValueType == "TEXT")
    return str(text).split("\r\n")


GROUPED = ("comprehensive_3d", "comprehensive", "enhanced")


@pytest.mark.parametrize("sop_class", GROUPED)
def test_a_group_cites_the_images_that_speak_for_its_finding(
    sop_class: SopClass, paths: list[Path], tmp_path: Path
) -> None:
    document = report(explained(paths), paths, tmp_path, sop_class)
    ventricles, bleeding = named(document, "Measurement Group")
    assert references(ventricles) == [(SOP_UIDS[at], []) for at in (0, 1, 2, 4)]
    assert {concept(item) for item in walk(ventricles) if item.ValueType == "IMAGE"} == {"Source of Measurement"}
    assert references(bleeding) == []
    parameters = [item.TextValue for item in named(ventricles, "Algorithm Parameters")]
    assert f"explanation: {METHOD}" in parameters
    assert [item.TextValue for item in named(bleeding, "Comment")] == [
        "No images: the explanation ended at its time limit"
    ]


@pytest.mark.parametrize("sop_class", GROUPED)
def test_the_library_describes_the_cited_images_once_and_the_evidence_lists_all(
    sop_class: SopClass, paths: list[Path], tmp_path: Path
) -> None:
    both = (Evidence(VENTRICLES, cited((0, ()), (1, ()))), Evidence(BLEEDING, cited((1, ()))))
    document = report(explained(paths, *both), paths, tmp_path, sop_class)
    (library,) = named(document, "Image Library")
    assert references(library) == [(SOP_UIDS[0], []), (SOP_UIDS[1], [])]
    first = next(item for item in walk(library) if item.ValueType == "IMAGE")
    assert {item.RelationshipType for item in walk(first)} == {"HAS ACQ CONTEXT"}
    numbers = {concept(i): float(i.MeasuredValueSequence[0].NumericValue) for i in walk(first) if i.ValueType == "NUM"}
    assert (numbers["Pixel Data Rows"], numbers["Pixel Data Columns"]) == (256, 320)
    assert (numbers["Vertical Pixel Spacing"], numbers["Horizontal Pixel Spacing"]) == (0.5, 0.75)
    assert numbers["Image Position (Patient) Y"] == -90.5
    assert numbers["Spacing between slices"] == 6
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    listed = [image for series in study.ReferencedSeriesSequence for image in series.ReferencedSOPSequence]
    assert len(listed) == 6


def test_the_library_stands_behind_what_people_read_and_before_the_measurements(
    paths: list[Path], tmp_path: Path
) -> None:
    document = report(explained(paths), paths, tmp_path, "comprehensive_3d")
    order = [concept(item) for item in document.ContentSequence]
    assert order.index("Summary") < order.index("Image Library") < order.index("Imaging Measurements")


@pytest.mark.parametrize("sop_class", SOP_CLASSES)
def test_frames_of_a_multi_frame_image_are_cited(sop_class: SopClass, paths: list[Path], tmp_path: Path) -> None:
    evidence = Evidence(VENTRICLES, cited((5, (14, 12, 13, 13))), METHOD)
    document = report(explained(paths, evidence), paths, tmp_path, sop_class)
    assert (SOP_UIDS[5], [12, 13, 14]) in references(document)
    assert "  Images: series 5, frames 12-14" in summary_of(document)


@pytest.mark.parametrize(("at", "frames"), [(5, ()), (5, tuple(range(1, 31))), (0, (1,))])
def test_a_whole_image_is_cited_without_frames(
    at: int, frames: tuple[int, ...], paths: list[Path], tmp_path: Path
) -> None:
    document = report(explained(paths, Evidence(VENTRICLES, cited((at, frames)))), paths, tmp_path, "enhanced")
    (group, _) = named(document, "Measurement Group")
    assert references(group) == [(SOP_UIDS[at], [])]


def test_basic_text_cites_the_images_under_the_text_of_the_finding(paths: list[Path], tmp_path: Path) -> None:
    document = report(explained(paths), paths, tmp_path, "basic_text")
    findings = [item for item in named(document, "Finding") if item.ValueType == "TEXT"]
    assert references(findings[0]) == [(SOP_UIDS[at], []) for at in (0, 1, 2, 4)]
    assert {item.RelationshipType for item in walk(findings[0])} == {"INFERRED FROM"}
    assert f"Explanation: {METHOD}." in findings[0].TextValue
    assert findings[1].TextValue.endswith("No images: the explanation ended at its time limit")
    assert references(findings[1]) == []
    assert not named(document, "Image Library")


def test_the_summary_says_where_a_reader_finds_the_images(paths: list[Path], tmp_path: Path) -> None:
    lines = summary_of(report(explained(paths), paths, tmp_path, "comprehensive_3d"))
    at = lines.index("- Ventriculomegaly: uncalibrated score 1.22")
    assert lines[at + 1] == "  Images: series 4, images 11-13, 15"
    assert lines[at + 3] == "  No images: the explanation ended at its time limit"
    assert any("replaces the AI report of the same result" in line for line in lines)


def test_images_without_numbers_are_counted(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {}, {}, {"SeriesNumber": b"4"})
    result = explained(paths, Evidence(VENTRICLES, cited((0, ()), (1, ()), (2, ()))))
    document = report(result, paths, tmp_path, "comprehensive_3d")
    assert "  Images: 3 images (by reference)" in summary_of(document)
    assert not named(document, "Image Library"), "nothing is known to describe them by"
    (group, _) = named(document, "Measurement Group")
    assert len(references(group)) == 3


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", b"a\\b"),
        ("PixelSpacing", b"0.5"),
        ("ImagePositionPatient", b"nan\\0\\0"),
        ("ImageOrientationPatient", None),
        ("SliceThickness", b"1e999"),
        ("FrameOfReferenceUID", b"not a UID"),
        ("SpacingBetweenSlices", b"x"),
        ("SeriesNumber", b"4.5"),
        ("InstanceNumber", b"twelve"),
    ],
)
def test_an_illegal_value_of_a_cited_image_is_left_out(keyword: str, value: bytes | None, tmp_path: Path) -> None:
    paths = write_study(tmp_path, {**PLACED, "InstanceNumber": b"1", keyword: value})
    result = explained(paths, Evidence(VENTRICLES, cited((0, ()))))
    document = report(result, paths, tmp_path, "comprehensive_3d")
    (library,) = named(document, "Image Library")
    placed = keyword in ("FrameOfReferenceUID", "SpacingBetweenSlices", "SeriesNumber", "InstanceNumber")
    assert bool(named(library, "Image Position (Patient) X")) == placed
    assert not [item for item in walk(library) if concept(item) == "Frame of Reference UID"] or (
        keyword != "FrameOfReferenceUID"
    )
    if keyword in ("SeriesNumber", "InstanceNumber"):
        assert "  Images: 1 image (by reference)" in summary_of(document)


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ([Evidence("a_head_that_is_not_there", note="x")], "not have above its threshold"),
        ([Evidence("tumor_adult_glioma", note="below its threshold")], "not have above its threshold"),
        ([Evidence(VENTRICLES, note="x"), Evidence(VENTRICLES, note="y")], "twice"),
        ([Evidence(VENTRICLES, (ImageReference("1.2.3"),))], "not made from"),
        ([Evidence(VENTRICLES, cited((5, (31,))))], "frame"),
        ([Evidence(VENTRICLES, cited((5, (0,))))], "frame"),
        ([Evidence(VENTRICLES, cited((0, (2,))))], "frame"),
    ],
)
def test_evidence_that_does_not_fit_the_result_makes_no_report(
    evidence: list[Evidence], reason: str, paths: list[Path]
) -> None:
    with pytest.raises(ReportError, match=reason):
        build_report(explained(paths, *evidence), paths, ReportSection(), NOW)


def predecessor(document: Dataset) -> tuple[str, str, str]:
    """SOP Instance, Series Instance and SOP Class UID of the one predecessor."""
    (study,) = document.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (item,) = series.ReferencedSOPSequence
    return str(item.ReferencedSOPInstanceUID), str(series.SeriesInstanceUID), str(item.ReferencedSOPClassUID)


@pytest.mark.parametrize("site", ["comprehensive_3d", "enhanced"])
@pytest.mark.parametrize("sop_class", SOP_CLASSES)
def test_the_explained_report_follows_the_plain_one_of_its_class_in_the_same_series(
    sop_class: SopClass, site: SopClass, paths: list[Path], tmp_path: Path
) -> None:
    earlier = ("1.2.3", "1.2.4", SOP_CLASSES["comprehensive_3d"])
    result = explained(paths, revision=2, predecessors=(earlier,))
    plain = report(dataclasses.replace(result, evidence=()), paths, tmp_path, sop_class, sop_class=site)
    document = report(result, paths, tmp_path, sop_class, sop_class=site)
    assert predecessor(document) == (plain.SOPInstanceUID, plain.SeriesInstanceUID, plain.SOPClassUID)
    assert document.SeriesInstanceUID == plain.SeriesInstanceUID
    assert document.InstanceNumber == plain.InstanceNumber + len(SOP_CLASSES)
    of_site = explained_uid(report_uids(result, site)[0])
    assert document.SOPInstanceUID == (of_site if sop_class == site else variant_uid(of_site, sop_class))
    for keyword in ("SeriesDescription", "SeriesNumber", "Modality", "Manufacturer"):
        assert document[keyword].value == plain[keyword].value
    assert "SeriesDate" not in document, "that of the series is in the plain report"


def test_all_reports_of_a_result_are_objects_of_their_own(paths: list[Path]) -> None:
    documents = [
        build_report(result, paths, ReportSection(), NOW, sop_class)
        for result in (explained(paths), make_result(paths))
        for sop_class in SOP_CLASSES
    ]
    assert len({document.SOPInstanceUID for document in documents}) == 8
    assert len({document.InstanceNumber for document in documents}) == 8
    assert len({document.SeriesInstanceUID for document in documents}) == 1


def test_the_explained_report_says_all_that_the_plain_one_says(paths: list[Path]) -> None:
    plain = build_report(make_result(paths), paths, ReportSection(), NOW)
    document = build_report(explained(paths), paths, ReportSection(), NOW)
    said = [line for line in summary_of(document) if line in summary_of(plain)]
    assert said == summary_of(plain)
    for name in ("Finding", "Presence of finding", "Priority", "Recommendation", "Tracking Unique Identifier"):
        assert [str(item) for item in named(document, name)] == [str(item) for item in named(plain, name)]


def test_the_same_work_done_again_writes_the_same_document(paths: list[Path]) -> None:
    first, again = (build_report(explained(paths), paths, ReportSection(), NOW) for _ in range(2))
    assert first == again


def test_hostile_words_of_an_explanation_stay_valid(paths: list[Path], tmp_path: Path) -> None:
    hostile = "a\\b\x00\x1b[2J\r\n\u202e" + "w" * 200
    evidence = (Evidence(VENTRICLES, cited((0, ())), hostile, hostile), Evidence(BLEEDING, note=hostile))
    for sop_class in SOP_CLASSES:
        report(explained(paths, *evidence), paths, tmp_path, sop_class)


def test_an_explanation_that_named_no_image_says_why_and_names_none(paths: list[Path], tmp_path: Path) -> None:
    result = explained(paths, Evidence(VENTRICLES, note="memory"), Evidence(BLEEDING, note="memory"))
    document = report(result, paths, tmp_path, "comprehensive_3d", language="fr")
    assert references(document) == []
    lines = summary_of(document)
    assert lines.count("  Pas d'images : mémoire") == 2
    assert any("pourquoi aucune image n'est citée" in line for line in lines)
