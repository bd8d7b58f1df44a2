"""The node's rejection note: valid, about the very objects, under the identity under which they were sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.base.errors import ReportError
from dicom_node.base.sent import sent_object
from dicom_node.base.types import Rejection, Withdrawal
from dicom_node.intake.key_objects import read_key_objects
from dicom_node.reporting.rejection import build_rejection, named_in
from dicom_node.reporting.write import write_report
from support.dicom_factory import StudyFacts, head_phantom, mr_slices, write
from support.rejections import named
from support.reports import errors_of
from support.sent_reports import NOW, sent_report

WITHDRAWAL = Withdrawal(1, "study", Rejection.WORKLIST, "patient was corrected", NOW.timestamp(), ())


def valid(note: Dataset, folder: Path) -> Path:
    """The note's file, in which `dciodvfy -new` finds no error."""
    path = write_report(note, folder / "outgoing")
    assert errors_of(path) == []
    return path


@pytest.mark.parametrize("rejection", [Rejection.QUALITY, Rejection.SAFETY, Rejection.WORKLIST])
def test_the_note_is_valid_and_names_the_report(tmp_path: Path, rejection: Rejection) -> None:
    report = sent_report(tmp_path / "outgoing")
    note = build_rejection(replace(WITHDRAWAL, rejection=rejection), [report], {})
    path = valid(note, tmp_path)
    document = dcmread(report)
    title = note.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning) == (rejection, "DCM", rejection.meaning)
    assert named(note) == {document.SOPInstanceUID}
    said = read_key_objects(path)
    assert said is not None
    assert (said.rejection, said.references) == (
        rejection,
        ((document.StudyInstanceUID, document.SeriesInstanceUID, document.SOPInstanceUID),),
    )


@pytest.mark.parametrize(
    "source",
    [
        {"IssuerOfPatientID": b"HOSPITAL"},
        {"SpecificCharacterSet": b"ISO_IR 100", "PatientName": "Müller^Jörg".encode("latin-1")},
        {"SpecificCharacterSet": b"ISO_IR 192", "PatientName": "山田^太郎".encode()},
        {"PatientBirthDate": b"", "PatientSex": b"", "AccessionNumber": b"", "StudyID": b""},
        {"TimezoneOffsetFromUTC": b"+0200"},
    ],
)
def test_patient_and_study_are_those_of_what_was_sent(tmp_path: Path, source: dict[str, bytes]) -> None:
    report = sent_report(tmp_path / "outgoing", **source)
    note = dcmread(valid(build_rejection(WITHDRAWAL, [report], {}), tmp_path))
    document = dcmread(report)
    for keyword in ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyInstanceUID", "StudyID"):
        assert note.get(keyword) == document.get(keyword)


def test_other_objects_of_the_result_are_named_too(tmp_path: Path) -> None:
    report = sent_report(tmp_path / "outgoing")
    document = dcmread(report)
    capture = as_capture(document)
    note = build_rejection(WITHDRAWAL, [report, write(capture, tmp_path / "capture.dcm")], {})
    valid(note, tmp_path)
    assert named(note) == {document.SOPInstanceUID, capture.SOPInstanceUID}


@pytest.mark.parametrize("encoding", [{}, {"SpecificCharacterSet": b"ISO_IR 192", "PatientName": "山田^太郎".encode()}])
def test_what_was_noted_before_an_object_left_makes_the_same_note(tmp_path: Path, encoding: dict[str, bytes]) -> None:
    report = sent_report(tmp_path / "outgoing", **encoding)
    capture = write(as_capture(dcmread(report)), tmp_path / "outgoing" / "capture.dcm")
    files = [report, capture]
    noted = {path.name: sent_object(path.parent, path.name) for path in files}
    assert all(one is not None and len(one.header) < 4096 for one in noted.values())
    first = valid(build_rejection(WITHDRAWAL, files, {}), tmp_path).read_bytes()
    for path in files:
        path.unlink()
    known = {name: one for name, one in noted.items() if one is not None}
    assert valid(build_rejection(WITHDRAWAL, files, known), tmp_path).read_bytes() == first


def test_one_lost_file_does_not_leave_the_others_standing(tmp_path: Path) -> None:
    report = sent_report(tmp_path / "outgoing")
    document = dcmread(report)
    capture = as_capture(document)
    files = [report, write(capture, tmp_path / "outgoing" / "capture.dcm")]
    registered = replace(
        WITHDRAWAL,
        report=(report.name, document.SOPClassUID, document.SeriesInstanceUID, document.SOPInstanceUID),
    )
    report.write_bytes(b"damaged")
    note = build_rejection(WITHDRAWAL, files, {})
    valid(note, tmp_path)
    assert (named(note), named_in(note)) == ({capture.SOPInstanceUID}, 1)
    report.unlink()
    note = build_rejection(registered, files, {})
    valid(note, tmp_path)
    assert (named(note), named_in(note)) == ({document.SOPInstanceUID, capture.SOPInstanceUID}, 2)
    assert note.PatientName == document.PatientName
    files[1].unlink()
    with pytest.raises(ReportError, match="nothing is left"):
        build_rejection(registered, files, {})


def as_capture(document: Dataset) -> Dataset:
    """A Secondary Capture beside the report."""
    capture = mr_slices(head_phantom(1, 16, 16), StudyFacts(study_uid=document.StudyInstanceUID))[0]
    capture.SOPClassUID = capture.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    capture.Modality = "OT"
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
        *("AccessionNumber", "ReferringPhysicianName"),
    ):
        capture[keyword] = document[keyword]
    return capture


def test_the_same_withdrawal_writes_the_same_note(tmp_path: Path) -> None:
    report = sent_report(tmp_path / "outgoing")
    first = write_report(build_rejection(WITHDRAWAL, [report], {}), tmp_path / "outgoing")
    content = first.read_bytes()
    assert write_report(build_rejection(WITHDRAWAL, [report], {}), tmp_path / "outgoing") == first
    assert first.read_bytes() == content
    other = build_rejection(replace(WITHDRAWAL, rejection=Rejection.SAFETY), [report], {})
    assert other.SOPInstanceUID != dcmread(first).SOPInstanceUID


def test_a_file_that_is_gone_or_of_another_patient_makes_no_note(tmp_path: Path) -> None:
    report = sent_report(tmp_path / "outgoing")
    with pytest.raises(ReportError, match="outgoing"):
        build_rejection(WITHDRAWAL, [tmp_path / "none.dcm"], {})
    (tmp_path / "damaged.dcm").write_bytes(b"no DICOM")
    with pytest.raises(ReportError):
        build_rejection(WITHDRAWAL, [tmp_path / "damaged.dcm"], {})
    other = sent_report(tmp_path / "other", PatientID=b"P0002")
    with pytest.raises(ReportError, match="PatientID differs"):
        build_rejection(WITHDRAWAL, [report, other], {})


def test_a_note_that_is_not_valid_is_found(tmp_path: Path) -> None:
    note = build_rejection(WITHDRAWAL, [sent_report(tmp_path / "outgoing")], {})
    del note.ContentDate
    path = tmp_path / "planted.dcm"
    note.save_as(path)
    assert errors_of(path)
