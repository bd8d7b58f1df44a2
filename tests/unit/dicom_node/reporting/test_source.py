"""What a report takes from its images: exact identifiers in any character set, illegal values emptied, else a refusal.

Every accepted study is also written as a report and validated, because a value that passes here must pass there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom import dcmread

from dicom_node.base.config import ReportSection
from dicom_node.base.errors import ReportError
from dicom_node.reporting.document import build_report
from dicom_node.reporting.source import check_source, decode, legal_uid, read_source
from support.character_sets import CHARACTER_SETS
from support.reports import make_result, validate, write_study

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def emptied(paths: list[Path]) -> set[str]:
    """The attributes that the log names as emptied."""
    with structlog.testing.capture_logs() as lines:
        read_source(paths)
    assert all(set(line) <= {"event", "log_level", "number", "study", "reason"} for line in lines)
    return {line["reason"] for line in lines}


def report_of(paths: list[Path], folder: Path) -> Any:
    document = build_report(make_result(paths), paths, ReportSection(), NOW)
    return dcmread(validate(document, folder))


@pytest.mark.parametrize("terms", CHARACTER_SETS)
def test_a_name_survives_exactly_in_every_character_set(terms: str, tmp_path: Path) -> None:
    declared, name, text = CHARACTER_SETS[terms]
    study = {"SpecificCharacterSet": declared or None, "PatientName": name}
    paths = write_study(tmp_path, study)
    assert str(read_source(paths).attributes.PatientName) == text
    document = report_of(paths, tmp_path)
    kept = document.get("SpecificCharacterSet", "")
    written = document.get_item("PatientName").value.rstrip(b" ")
    assert decode(written, [kept] if isinstance(kept, str) else list(kept)) == text


def test_the_source_character_set_is_kept_while_it_can_hold_the_report(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"SpecificCharacterSet": b"ISO_IR 100", "PatientName": b"Buc^J\xe9r\xf4me"})
    assert report_of(paths, tmp_path).SpecificCharacterSet == "ISO_IR 100"


def test_a_text_the_source_character_set_cannot_hold_makes_the_report_utf8(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"SpecificCharacterSet": b"ISO_IR 100", "PatientName": b"Buc^J\xe9r\xf4me"})
    settings = ReportSection(series_description="Prima 脳")
    document = dcmread(validate(build_report(make_result(paths), paths, settings, NOW), tmp_path))
    assert document.SpecificCharacterSet == "ISO_IR 192"
    assert str(document.PatientName) == "Buc^Jérôme"
    assert document.SeriesDescription == "Prima 脳"


def test_no_character_set_is_written_where_the_source_had_none(tmp_path: Path) -> None:
    assert "SpecificCharacterSet" not in report_of(write_study(tmp_path, {}), tmp_path)


ILLEGAL = {
    "PatientSex": b"0000",
    "PatientBirthDate": b"19701301",
    "StudyDate": b"2026.01.02",
    "StudyTime": b"10:15:00",
    "StudyID": b"a study identifier too long",
    "ReferringPhysicianName": b"A^B^C^D^E^F",
    "StudyDescription": b"x" * 65,
    "PatientAge": b"54",
    "AdmissionID": b"a\\b",
    "TypeOfPatientID": b"PAPER",
    "TimezoneOffsetFromUTC": b"CET",
}


@pytest.mark.parametrize("keyword", ILLEGAL)
def test_an_illegal_value_is_emptied_or_left_out_and_logged_by_name_only(keyword: str, tmp_path: Path) -> None:
    paths = write_study(tmp_path, {keyword: ILLEGAL[keyword]})
    assert emptied(paths) == {keyword}
    assert not report_of(paths, tmp_path).get(keyword)


@pytest.mark.parametrize("value", [b"\xff\xfe", b"a\x00b", b"a\x1bb", b"tab\there", "naïve".encode("latin-1")])
def test_undecodable_or_control_bytes_are_illegal_in_a_description(value: bytes, tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"StudyDescription": value})
    assert emptied(paths) == {"StudyDescription"}
    assert "StudyDescription" not in report_of(paths, tmp_path)


def test_the_first_legal_value_of_the_study_is_taken(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"PatientSex": b"X"}, {"PatientSex": b"F"})
    assert emptied(paths) == set()
    assert report_of(paths, tmp_path).PatientSex == "F"


def test_missing_type_2_attributes_are_written_empty(tmp_path: Path) -> None:
    type_2 = ("PatientName", "PatientID", "AccessionNumber", *list(ILLEGAL)[:6])
    document = report_of(write_study(tmp_path, dict.fromkeys((*type_2, "StudyDescription"))), tmp_path)
    assert all(keyword in document and not document[keyword].value for keyword in type_2)
    assert "StudyDescription" not in document


def test_padding_is_no_part_of_a_value(tmp_path: Path) -> None:
    study = {"AccessionNumber": b"A1\x00", "PatientID": b"P1 \x00", "PatientSex": b"M\x00", "StudyID": b"\x00\x00"}
    paths = write_study(tmp_path, study)
    assert emptied(paths) == set()
    document = report_of(paths, tmp_path)
    assert (document.AccessionNumber, document.PatientID, document.PatientSex) == ("A1", "P1", "M")


UNUSABLE = {
    "PatientName": b"x" * 65,
    "PatientID": b"y" * 65,
    "AccessionNumber": b"A\\B",
    "IssuerOfPatientID": b"issuer\x07",
    "StudyInstanceUID": b"1.2.840.01.5",
    "SeriesInstanceUID": b"1." + b"2" * 63,
    "SOPInstanceUID": b"../../etc/passwd",
}


@pytest.mark.parametrize("keyword", UNUSABLE)
def test_an_unusable_identifier_makes_no_report_and_the_reason_names_it_without_its_value(
    keyword: str, tmp_path: Path
) -> None:
    value = UNUSABLE[keyword]
    paths = write_study(tmp_path, {keyword: value})
    with pytest.raises(ReportError, match=keyword) as caught:
        read_source(paths)
    assert value.decode() not in str(caught.value)
    with pytest.raises(ReportError) as checked:
        check_source(paths)
    assert str(checked.value) == str(caught.value)


@pytest.mark.parametrize("terms", [None, b"ISO_IR 999", b"nonsense"])
def test_a_name_whose_character_set_is_not_known_makes_no_report(terms: bytes | None, tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"SpecificCharacterSet": terms, "PatientName": b"Buc^J\xe9r\xf4me"})
    with pytest.raises(ReportError, match="PatientName"):
        read_source(paths)


def test_an_unknown_character_set_is_harmless_while_every_text_is_ascii(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"SpecificCharacterSet": b"ISO_IR 999"})
    assert "SpecificCharacterSet" not in report_of(paths, tmp_path)


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID"])
def test_images_that_contradict_each_other_make_no_report(keyword: str, tmp_path: Path) -> None:
    paths = write_study(tmp_path, {keyword: b"1.2.3"}, {keyword: b"1.2.4"})
    for read in (read_source, check_source):
        with pytest.raises(ReportError, match=f"{keyword} differs"):
            read(paths)


@pytest.mark.parametrize(
    ("keyword", "one", "other"),
    [
        ("PatientName", b"Doe^John", b"DOE^JOHN^Quincy^Dr"),
        ("PatientName", b"Doe^John", b"Doe, John"),
        ("PatientID", b"a1", b"A1"),
        ("PatientBirthDate", b"19700101", b"1970.01.01"),
    ],
)
def test_another_spelling_of_one_patient_is_no_contradiction(
    keyword: str, one: bytes, other: bytes, tmp_path: Path
) -> None:
    paths = write_study(tmp_path, {keyword: one}, {keyword: other})
    assert read_source(paths).attributes[keyword].value == one.decode()


def test_two_birth_dates_make_no_report(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"PatientBirthDate": b"19700101"}, {"PatientBirthDate": b"19700102"})
    with pytest.raises(ReportError, match="PatientBirthDate differs"):
        read_source(paths)


def test_an_image_that_lacks_an_identifier_contradicts_nothing(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"PatientName": b"Doe^John^^"}, {"PatientName": b"Doe^John"}, {"PatientName": None})
    assert read_source(paths).attributes.PatientName == "Doe^John^^"


def test_code_sequences_keep_what_is_legal(tmp_path: Path) -> None:
    legal = {"CodeValue": b"MRBRAIN", "CodingSchemeDesignator": b"99LOCAL", "CodeMeaning": b"MR brain"}
    nul = {"CodeValue": b"\x00\x00", "CodingSchemeDesignator": b"\x00\x00", "CodeMeaning": b"\x00\x00"}
    long = {**legal, "CodeValue": b"a code value of more than 16"}
    paths = write_study(tmp_path, {"ProcedureCodeSequence": [{}, nul, long, legal]})
    assert emptied(paths) == {"ProcedureCodeSequence"}
    document = report_of(paths, tmp_path)
    assert [item.CodeValue for item in document.ProcedureCodeSequence] == ["MRBRAIN"]


def test_a_code_sequence_without_a_legal_item_is_left_out(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"ProcedureCodeSequence": [{}]})
    assert "ProcedureCodeSequence" not in report_of(paths, tmp_path)


@pytest.mark.parametrize(
    ("keyword", "logged"),
    [("ProcedureCodeSequence", "ProcedureCodeSequence"), ("RequestAttributesSequence", "ReferencedRequestSequence")],
)
def test_a_sequence_that_cannot_be_parsed_is_left_out(keyword: str, logged: str, tmp_path: Path) -> None:
    paths = write_study(tmp_path, {keyword: b"\xfe\xff\x00\xe0\x10"})
    assert emptied(paths) == {logged}
    assert logged not in report_of(paths, tmp_path)


def test_no_value_of_the_source_reaches_a_log_or_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    secret = dict.fromkeys(ILLEGAL, b"SECRET\x80\xff" + b"x" * 90)
    paths = write_study(tmp_path, {**secret, "PatientName": b"SECRET", "PatientID": b"SECRET"})
    assert emptied(paths) == set(ILLEGAL)
    report_of(paths, tmp_path)
    assert "SECRET" not in caplog.text
    assert not [warning for warning in recwarn if "SECRET" in str(warning.message)]


def test_the_order_is_referenced_once_and_with_its_own_accession_number(tmp_path: Path) -> None:
    order = {
        "RequestedProcedureID": b"RP1",
        "AccessionNumber": b"ACC9",
        "RequestedProcedureDescription": b"MRI head",
        "RequestedProcedureCodeSequence": [
            {"CodeValue": b"MRB", "CodingSchemeDesignator": b"99LOCAL", "CodeMeaning": b"MR brain"}
        ],
    }
    study = {"RequestAttributesSequence": [order]}
    document = report_of(write_study(tmp_path, study, study), tmp_path)
    assert len(document.ReferencedRequestSequence) == 1
    request = document.ReferencedRequestSequence[0]
    assert (request.RequestedProcedureID, request.AccessionNumber) == ("RP1", "ACC9")
    assert request.RequestedProcedureDescription == "MRI head"
    assert request.RequestedProcedureCodeSequence[0].CodeValue == "MRB"
    assert request.StudyInstanceUID == document.StudyInstanceUID


def test_an_order_without_an_identifier_or_with_an_illegal_one_is_not_referenced(tmp_path: Path) -> None:
    orders = [{"ScheduledProcedureStepID": b"S1"}, {"RequestedProcedureID": b"an identifier of more than 16"}]
    paths = write_study(tmp_path, {"RequestAttributesSequence": orders})
    assert emptied(paths) == {"ReferencedRequestSequence"}
    assert "ReferencedRequestSequence" not in report_of(paths, tmp_path)


def test_a_file_that_is_not_dicom_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(b"not a DICOM file" * 100)
    with pytest.raises(ReportError, match="no longer be read"):
        read_source([path])


@pytest.mark.parametrize("sop_class", [b"1.2.840.10008.5.1.4.1.1.4.1", b"1.2.840.10008.5.1.4.1.1.4.4"])
def test_enhanced_images_are_evidence_too(sop_class: bytes, tmp_path: Path) -> None:
    assert report_of(write_study(tmp_path, {"SOPClassUID": sop_class}), tmp_path)


@pytest.mark.parametrize("sop_class", [b"1.3.46.670589.11.0.0.12.1", b"1.2.840.10008.5.1.4.1.1.88.34"])
def test_a_used_instance_that_is_no_mr_image_makes_no_report(sop_class: bytes, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="not that of an MR image"):
        read_source(write_study(tmp_path, {"SOPClassUID": sop_class}))


@pytest.mark.parametrize("uid", ["1.2.840.10008", "2.25.329800735698586629295641978511506172918", "0.9.1", "1.39.0"])
def test_a_uid_of_numbers_under_a_root_that_can_exist_is_legal(uid: str) -> None:
    assert legal_uid(uid)


@pytest.mark.parametrize("uid", ["", "1", "1.2.", ".1.2", "1..2", "1.02", "3.1.2", "1.40.2", "1.2.a", "1.2\n", "1.٢"])
def test_any_other_uid_is_not(uid: str) -> None:
    assert not legal_uid(uid)


def test_a_check_beforehand_passes_what_can_be_reported_and_logs_nothing(tmp_path: Path) -> None:
    paths = write_study(tmp_path, ILLEGAL)
    with structlog.testing.capture_logs() as lines:
        check_source(paths)
    assert lines == []
    assert report_of(paths, tmp_path)


def test_no_image_makes_no_report() -> None:
    with pytest.raises(ReportError, match="at least one"):
        read_source([])
