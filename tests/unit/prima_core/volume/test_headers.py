"""Reading headers: what is no usable instance, mixtures of studies and patients, repeats, and hostile values."""

from __future__ import annotations

import errno
import io
import re
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)

from prima_core.base.errors import OutOfScope, TwoPatients
from prima_core.volume.headers import ImageHeader, StudyFiles, read_headers, read_image_header
from prima_core.volume.pixels import LARGEST_PARSED, MOST_FRAMES
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, mr_slices, write, write_enhanced, write_series

STUDY = StudyFacts(description="IRM cérébrale")


def series(folder: Path, study: StudyFacts = STUDY, number: int = 1) -> list[Path]:
    return write_series(folder, head_phantom(6, 32, 32), study, SeriesFacts(number=number))


def reasons(files: StudyFiles) -> list[str]:
    return [entry.reason for entry in files.unreadable]


def test_a_study_is_identified_and_described(tmp_path: Path) -> None:
    files = read_headers(series(tmp_path))
    assert files.study_instance_uid == STUDY.study_uid
    assert files.study_description == "IRM cérébrale"
    assert len(files.images) == 6
    assert all(len(image.frames) == 1 and not image.problem for image in files.images)


@pytest.mark.parametrize("junk", [b"", b"junk", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + bytes(range(256)) * 9])
def test_what_is_not_dicom_is_listed_and_does_no_harm(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "junk").write_bytes(junk)
    files = read_headers([tmp_path / "junk", *series(tmp_path)])
    assert len(files.images) == 6
    assert len(reasons(files)) == 1


def test_nothing_readable_is_out_of_scope(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(OutOfScope, match="no readable DICOM image") as error:
        read_headers([tmp_path / "junk", tmp_path / "empty"])
    assert error.value.set_aside[0].reason == "2 file(s): not a readable DICOM file"


def test_a_study_without_any_image_says_so() -> None:
    with pytest.raises(OutOfScope, match="no MR image was received"):
        read_headers([])


def test_a_file_that_is_gone_is_no_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_headers([*series(tmp_path), tmp_path / "missing"])


def failing(trouble: Exception) -> Callable[..., io.BufferedReader]:
    """`Path.open` of a disk that gives nothing behind byte 600, which is in the data set."""

    class File(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 600:
                raise trouble
            return super().read(size)

    return lambda path, _mode: File(io.FileIO(path))


@pytest.mark.parametrize("trouble", [OSError(errno.EIO, "I/O error"), MemoryError()], ids=["disk", "memory"])
@pytest.mark.parametrize("sequence", [False, True], ids=["element", "sequence"])
def test_the_machines_trouble_is_no_verdict_about_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception, sequence: bool
) -> None:
    ds = mr_slices(head_phantom(1, 32, 32), STUDY)[0]
    if sequence:  # whose errors pydicom hides behind its own
        item = Dataset()
        item.CodeMeaning = "x"
        ds.add_new(0x00080001, "SQ", [item] * 40)
        ds[0x00080001].is_undefined_length = True
    path = write(ds, tmp_path / "a.dcm")
    monkeypatch.setattr(Path, "open", failing(trouble))
    with pytest.raises(type(trouble)) as raised:
        read_headers([path])
    assert raised.value is trouble


def filled(path: Path, element: bytes) -> Path:
    """A good image with this element, the first of its data set."""
    good = write(mr_slices(head_phantom(1, 32, 32), STUDY)[0], path).read_bytes()
    start = 132 + 12 + int.from_bytes(good[140:144], "little")
    path.write_bytes(good[:start] + element + good[start:])
    return path


def sequence_of(tag: int, items: bytes, undefined: bool) -> bytes:
    head = struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, 0xFFFFFFFF if undefined else len(items))
    return head + items + (struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if undefined else b"")


@pytest.mark.parametrize("item", [struct.pack("<HHL", 0xFFFE, 0xE000, 0), bytes(8)], ids=["items", "zeros"])
@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
def test_a_header_that_would_cost_too_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: bytes, undefined: bool
) -> None:
    monkeypatch.setattr("prima_core.volume.headers.LARGEST_PARSED", 4 << 20)
    requests = 0x00400275  # read for what the order says
    path = filled(tmp_path / "a.dcm", sequence_of(requests, item * 50_000, undefined))
    tracemalloc.start()
    try:
        with pytest.raises(OutOfScope) as error:
            read_headers([path])
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert [entry.reason for entry in error.value.set_aside] == [
        "1 file(s): a header of more elements and sequence items than that of any image"
    ]


def test_sequences_nested_without_end_make_a_file_unreadable(tmp_path: Path) -> None:
    opening = sequence_of(0x00081140, b"", True)[:12] + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(OutOfScope) as error:
        read_headers([filled(tmp_path / "a.dcm", opening * 10_000)])
    assert [entry.reason for entry in error.value.set_aside] == ["1 file(s): not a readable DICOM file"]


def test_the_longest_multi_frame_header_is_within_the_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled down: a frame with ten functional groups in sequences and items of undefined length."""
    frames = 20
    monkeypatch.setattr("prima_core.volume.headers.LARGEST_PARSED", LARGEST_PARSED * (frames + 2) // MOST_FRAMES)

    def ten_groups(ds: Dataset) -> None:
        for frame in ds.PerFrameFunctionalGroupsSequence:
            for number in range(10 - len(frame)):
                group = Dataset()
                group.EffectiveEchoTime, group.FlipAngle, group.StackID = 1.0, 2.0, "1"
                group.is_undefined_length_sequence_item = True
                frame.add_new(0x00189000 + number, "SQ", [group])
            for element in frame:
                element.is_undefined_length = True
            frame.is_undefined_length_sequence_item = True
        ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = True

    path = write_enhanced(tmp_path, head_phantom(frames, 32, 32), STUDY, edit=ten_groups)
    assert len(read_headers([path]).images[0].frames) == frames


def test_a_length_of_four_gigabytes_that_are_not_there_costs_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.dcm", struct.pack("<HH2sHL", 0x0010, 0x0020, b"UT", 0, 0xFFFFFFFE))
    tracemalloc.start()
    try:
        with pytest.raises(OutOfScope):
            read_headers([path])
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_value_of_many_numbers_is_not_made_into_objects(tmp_path: Path) -> None:
    ds = mr_slices(head_phantom(1, 32, 32), STUDY)[0]
    path = write(ds, tmp_path / "a.dcm", ImplicitVRLittleEndian)
    one, many = b"\x28\0\x30\0", b"1\\" * 50_000  # Pixel Spacing
    at = path.read_bytes().index(one)
    data = path.read_bytes()
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    path.write_bytes(data[: at + 4] + struct.pack("<L", len(many)) + many + data[at + 8 + length :])
    read_headers([path])
    tracemalloc.start()
    try:
        assert read_headers([path]).images[0].frames[0].spacing is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "../../etc/passwd", "1.2.x", "1" * 65])
def test_missing_or_malformed_uids_make_a_file_unreadable(tmp_path: Path, keyword: str, value: str | None) -> None:
    paths = series(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = dcmread(paths[0])
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
        ds.save_as(paths[0], enforce_file_format=False)
    files = read_headers(paths)
    assert reasons(files) == [f"1 file(s): missing or malformed {keyword}"]
    assert len(files.images) == 5


def test_an_object_without_pixels_says_so(tmp_path: Path) -> None:
    ds = mr_slices(head_phantom(1, 32, 32), STUDY)[0]
    del ds.PixelData
    image = read_headers([write(ds, tmp_path / "a.dcm")]).images[0]
    assert image.pixels is None
    assert image.problem == "no pixel data"


def test_two_studies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutOfScope, match="more than one Study Instance UID"):
        read_headers(series(tmp_path / "a") + series(tmp_path / "b", replace(STUDY, study_uid=generate_uid())))


@pytest.mark.parametrize("other", [{"patient_id": "X2"}, {"patient_name": "Other^Person"}, {"birth_date": "19990101"}])
def test_two_patients_under_one_study_are_refused_without_naming_them(tmp_path: Path, other: dict[str, str]) -> None:
    paths = series(tmp_path / "a") + series(tmp_path / "b", replace(STUDY, **other), number=2)
    with pytest.raises(TwoPatients, match="two patients") as error:
        read_headers(paths)
    assert not any(fact in str(error.value) for fact in (STUDY.patient_id, "Test", "Other", "1970", "1999"))


@pytest.mark.parametrize(
    "same",
    [
        {"patient_name": "TEST^PATIENT^^^"},
        {"patient_name": "Test^Patient^Middle^Dr"},
        {"patient_name": "Test, Patient"},
        {"patient_name": "Tést^Pàtient"},
        {"patient_name": ""},
        {"birth_date": ""},
        {"patient_id": " test0001"},
    ],
)
def test_other_spelling_and_missing_facts_are_no_second_patient(tmp_path: Path, same: dict[str, str]) -> None:
    paths = series(tmp_path / "a") + series(tmp_path / "b", replace(STUDY, **same), number=2)
    assert len(read_headers(paths).images) == 12


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, DeflatedExplicitVRLittleEndian])
def test_the_same_instance_twice_counts_once_in_whatever_coding(tmp_path: Path, syntax: str) -> None:
    paths = series(tmp_path)
    again = write(dcmread(paths[0]), tmp_path / "again.dcm", syntax)
    files = read_headers([*paths, again])
    assert len(files.images) == 6
    assert files.conflicts == ()


def test_one_uid_for_two_images_is_a_conflict_of_the_series(tmp_path: Path) -> None:
    paths = series(tmp_path)
    other = dcmread(paths[0])
    other.PixelData = np.zeros((32, 32), np.uint16).tobytes()
    files = read_headers([*paths, write(other, tmp_path / "other.dcm")])
    assert [conflict.series_instance_uid for conflict in files.conflicts] == [other.SeriesInstanceUID]
    assert "same SOP Instance UID" in files.conflicts[0].reason


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"Rows": 0}, "image size"),
        ({"NumberOfFrames": 10**9}, "image size"),
        ({"NumberOfFrames": 3}, "shorter"),
        ({"NumberOfFrames": 4, "Rows": 16, "Columns": 16}, "several frames"),
        ({"BitsAllocated": 64}, "pixel values"),
        ({"BitsStored": 40}, "pixel values"),
        ({"PixelRepresentation": 7}, "pixel values"),
    ],
)
def test_unreasonable_pixel_descriptions_are_a_problem(
    tmp_path: Path, attributes: dict[str, Any], problem: str
) -> None:
    ds = mr_slices(head_phantom(1, 32, 32), STUDY)[0]
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    assert problem in read_headers([write(ds, tmp_path / "a.dcm")]).images[0].problem


def test_a_number_of_frames_that_is_not_whole_is_a_problem(tmp_path: Path) -> None:
    ds = mr_slices(head_phantom(1, 32, 32), STUDY)[0]
    ds.NumberOfFrames = 123
    path = write(ds, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"IS\x04\x00123 ", b"IS\x04\x001.5 "))
    assert "number of frames" in read_headers([path]).images[0].problem


def test_a_malformed_rescale_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    ds = mr_slices(head_phantom(1, 32, 32), STUDY)[0]
    ds.RescaleSlope = "1234"
    path = write(ds, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"DS\x04\x001234", b"DS\x04\x00abcd"))
    assert read_headers([path]).images[0].frames[0].slope is None


def test_an_error_nobody_thought_of_costs_one_file_and_tells_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = series(tmp_path)

    def read(path: Path) -> ImageHeader:
        if path == paths[0]:
            raise ZeroDivisionError("Test^Patient")
        return read_image_header(path)

    monkeypatch.setattr("prima_core.volume.headers.read_image_header", read)
    (reason,) = reasons(read_headers(paths))
    assert re.fullmatch(r"1 file\(s\): could not be read \(ZeroDivisionError at test_headers.py:\d+\)", reason)


@pytest.mark.parametrize(
    ("age", "birth_date", "years"),
    [
        ("054Y", "", 54),
        ("018M", "", 1.5),
        ("", "20060103", 17),
        ("", "20060102", 18),
        ("", "", None),
        ("old", "x", None),
    ],
)
def test_age_comes_from_patient_age_or_birth_date(
    tmp_path: Path, age: str, birth_date: str, years: float | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = series(tmp_path, replace(STUDY, age=age, birth_date=birth_date, study_date="20240102"))
    assert read_headers(paths).images[0].age_years == years


def test_a_deflated_file_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_series(tmp_path, head_phantom(6, 64, 64), STUDY, transfer_syntax=DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr("prima_core.volume.pixels._LARGEST_INFLATED", 4096)
    with pytest.raises(OutOfScope):
        read_headers(paths)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_headers_never_raise_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of a good header overwritten at random: the file is read, or listed, or the folder is out of scope."""
    good = tmp_path / "good.dcm"
    if not good.exists():
        write(mr_slices(head_phantom(1, 32, 32), STUDY)[0], good)
    damaged = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(128, len(damaged) - 2049))
        damaged[at] = data.draw(st.integers(0, 255))
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(damaged[: data.draw(st.integers(200, len(damaged)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            files = read_headers([bad])
        except OutOfScope:
            return
    assert all(re.fullmatch(r"[0-9.]{1,64}", image.sop_instance_uid) for image in files.images)
