"""Two objects under one SOP Instance UID: duplicate, correction or quarantine, in whatever transfer syntax."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSNearLossless, RLELossless

from dicom_node.base.types import Verdict
from dicom_node.intake.content import compare
from support.dicom_factory import (
    LOSSLESS_SYNTAXES,
    StudyFacts,
    enhanced_image,
    head_phantom,
    mr_slices,
    write,
)

Edit = Callable[[Dataset], None]


def classic() -> Dataset:
    return mr_slices(head_phantom(1, 32, 32), StudyFacts())[0]


def enhanced() -> Dataset:
    return enhanced_image(head_phantom(4, 32, 32), StudyFacts())


def verdict(folder: Path, first: Dataset, edit: Edit, syntax: str = ExplicitVRLittleEndian) -> Verdict:
    second = copy.deepcopy(first)
    edit(second)
    paths = write(first, folder / "first.dcm"), write(second, folder / "second.dcm", syntax)
    assert compare(*reversed(paths)) is compare(*paths)
    return compare(*paths)


def unchanged(_dataset: Dataset) -> None:
    return None


@pytest.mark.parametrize("make", [classic, enhanced])
@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES, ids=lambda uid: uid.name)
def test_the_same_image_in_any_lossless_syntax_is_a_duplicate(
    tmp_path: Path, make: Callable[[], Dataset], syntax: str
) -> None:
    assert verdict(tmp_path, make(), unchanged, syntax) is Verdict.DUPLICATE


def changed(**attributes: object) -> Edit:
    def edit(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return edit


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientName": "TEST^PATIENT^"},
        {"InstitutionName": "Elsewhere"},
        {"ContentDate": "20260101"},
        {"RescaleSlope": None},
        {"SpecificCharacterSet": "ISO_IR 100"},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_what_neither_identifies_nor_enters_the_computation_makes_no_difference(
    tmp_path: Path, attributes: dict[str, object]
) -> None:
    assert verdict(tmp_path, classic(), changed(**attributes)) is Verdict.DUPLICATE


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientID": "OTHER"},
        {"PatientName": "Other^Person"},
        {"PatientBirthDate": "19500101"},
        {"AccessionNumber": "ACC2"},
        {"StudyInstanceUID": "1.2.3"},
        {"SeriesInstanceUID": "1.2.3"},
        {"StudyDescription": "MRI KNEE"},
        {"SeriesDescription": "SAG T1"},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_equal_pixels_under_other_identifiers_are_a_correction(
    tmp_path: Path, attributes: dict[str, object], syntax: str
) -> None:
    assert verdict(tmp_path, classic(), changed(**attributes), syntax) is Verdict.CORRECTION


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImagePositionPatient": [0, 0, 1]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        {"PixelSpacing": [2, 2]},
        {"SliceThickness": 9},
        {"RescaleSlope": 2},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"EchoTime": 99},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_equal_pixels_with_another_meaning_are_quarantined(tmp_path: Path, attributes: dict[str, object]) -> None:
    assert verdict(tmp_path, classic(), changed(**attributes)) is Verdict.QUARANTINED


def test_one_other_pixel_is_quarantined_whatever_the_identifiers(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData[:-2] + b"\1\2"

    assert verdict(tmp_path, classic(), edit) is Verdict.QUARANTINED
    assert verdict(tmp_path, classic(), edit, RLELossless) is Verdict.QUARANTINED

    def both(dataset: Dataset) -> None:
        edit(dataset)
        dataset.PatientID = "OTHER"

    assert verdict(tmp_path, classic(), both) is Verdict.QUARANTINED


def test_a_change_in_one_frame_only_is_seen(tmp_path: Path) -> None:
    def position(dataset: Dataset) -> None:
        dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient = [1, 2, 3]

    def pixel(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData[:-2] + b"\1\2"

    def fewer(dataset: Dataset) -> None:
        dataset.NumberOfFrames = 3
        dataset.PixelData = dataset.PixelData[: 3 * 32 * 32 * 2]

    for edit in (position, pixel, fewer):
        assert verdict(tmp_path, enhanced(), edit) is Verdict.QUARANTINED


def test_lossy_compression_that_changes_pixels_is_quarantined(tmp_path: Path) -> None:
    first = classic()
    second = copy.deepcopy(first)
    second.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
    assert not np.array_equal(first.pixel_array, second.pixel_array)
    paths = write(first, tmp_path / "first.dcm"), write(second, tmp_path / "second.dcm", JPEGLSNearLossless)
    assert compare(*paths) is Verdict.QUARANTINED


def broken_stream(dataset: Dataset) -> None:
    dataset.PixelData = encapsulate([b"\xff\xd8 no image \xff\xd9"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def no_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


@pytest.mark.parametrize(
    "edit",
    [no_pixels, changed(Rows=60_000, Columns=60_000), changed(NumberOfFrames=2_000_000_000), changed(Rows=0)],
    ids=["no pixels", "enormous", "endless", "empty"],
)
def test_an_image_that_cannot_be_decoded_is_quarantined(tmp_path: Path, edit: Edit) -> None:
    assert verdict(tmp_path, classic(), edit) is Verdict.QUARANTINED


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
def test_a_broken_compressed_stream_is_quarantined(tmp_path: Path, syntax: str) -> None:
    first, second = classic(), classic()
    broken_stream(second)
    second.file_meta.TransferSyntaxUID = syntax
    second.save_as(tmp_path / "second.dcm", enforce_file_format=True)
    assert compare(write(first, tmp_path / "first.dcm"), tmp_path / "second.dcm") is Verdict.QUARANTINED


def test_a_file_that_is_not_dicom_is_quarantined_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    first = write(classic(), tmp_path / "first.dcm")
    (tmp_path / "text.dcm").write_text("not an image")
    assert compare(first, tmp_path / "text.dcm") is Verdict.QUARANTINED
    with pytest.raises(OSError, match="No such file"):
        compare(first, tmp_path / "missing.dcm")


def test_objects_without_pixels_are_compared_as_a_whole(tmp_path: Path) -> None:
    def document() -> Dataset:
        dataset = classic()
        for keyword in ("Rows", "Columns", "PixelData"):
            delattr(dataset, keyword)
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
        dataset.ContentLabel = "FIRST"
        return dataset

    assert verdict(tmp_path, document(), unchanged, "1.2.840.10008.1.2") is Verdict.DUPLICATE
    assert verdict(tmp_path, document(), changed(PatientID="OTHER")) is Verdict.CORRECTION
    assert verdict(tmp_path, document(), changed(ContentLabel="SECOND")) is Verdict.QUARANTINED
