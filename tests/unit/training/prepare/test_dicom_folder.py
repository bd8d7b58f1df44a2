"""DICOM folders → a store in which nothing of the headers can be found again but what describes the images."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, config
from pydicom.datadict import DicomDictionary

from prima_core.base.errors import OutOfScope, TwoPatients
from prima_core.prepare import prepare_study
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, write_series, write_study
from training.base.cohort import StudyLabels, StudyReport
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.base.statements import statements
from training.prepare.dicom_folder import DicomFolder
from training.prepare.dicom_study import sex_of, tesla, vendor_of
from training.prepare.known import Known, read_known
from training.prepare.run import fill_store
from training.prepare.store import TokenStore

KEY = Pseudonyms(b"s" * 32)


def test_a_study_is_read_as_the_node_reads_it(tmp_path: Path) -> None:
    study = StudyFacts(age="094Y", study_date="20240117")
    files = write_study(tmp_path / "any" / "layout", study)
    (tmp_path / "any" / "notes.txt").write_text("no DICOM")
    source = DicomFolder([tmp_path], KEY)
    assert source.references() == [study.study_uid]
    assert source.skipped == 1
    found = source.fetch(study.study_uid, tmp_path)
    expected = prepare_study(files)
    assert found.prepared.description == expected.description
    for one, other in zip(found.prepared.series, expected.series, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.patches, other.patches)
        np.testing.assert_array_equal(one.token_ids, other.token_ids)
    record = found.record
    assert record.study == source.study(study.study_uid) == KEY.study(study.study_uid)
    assert (record.age_years, record.sex, record.vendor, record.site) == (89.0, "O", "other", "")
    assert record.day == KEY.day(date(2024, 1, 17))


def test_studies_of_one_patient_share_the_pseudonym_whoever_issued_the_id(tmp_path: Path) -> None:
    uids = []
    for number, issuer in enumerate(("", "HOSPITAL")):
        study = StudyFacts(patient_id="p17" if number else "P17 ")
        uids.append(study.study_uid)
        write_series(tmp_path / str(number) / "a", head_phantom(), study)
        facts = SeriesFacts(number=2, description="AX T1", extra={"IssuerOfPatientID": issuer})
        write_series(tmp_path / str(number) / "b", head_phantom(), study, facts)
    source = DicomFolder([tmp_path], KEY)
    source.references()
    first, second = (source.fetch(uid, tmp_path).record for uid in uids)
    assert first.patient == second.patient
    assert first.study != second.study


def test_what_is_known_is_found_by_uid_or_accession_number(tmp_path: Path) -> None:
    study, other = StudyFacts(accession_number="ACC7"), StudyFacts(accession_number="ACC8")
    write_study(tmp_path / "dicom" / "a", study)
    write_study(tmp_path / "dicom" / "b", other)
    (tmp_path / "labels.csv").write_text(f"study,diagnosis.glioma\n{study.study_uid},1\nACC8,0\n")
    (tmp_path / "reports.csv").write_text(
        'study,findings,impression\nACC7,"Left frontal mass. Patient Test has\n- no infarct.",1) Glioma.\nACC8,,\n'
    )
    known = read_known(tmp_path / "labels.csv", tmp_path / "reports.csv")
    source = DicomFolder([tmp_path / "dicom"], KEY, known)
    source.references()
    found = source.fetch(study.study_uid, tmp_path)
    assert found.labels == StudyLabels({"glioma": True})
    assert found.report == StudyReport(("Left frontal mass.", "has", "no infarct.", "Glioma."))
    missing = source.fetch(other.study_uid, tmp_path)
    assert (missing.labels, missing.report) == (StudyLabels({"glioma": False}), None)


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "good")
    write_study(tmp_path / "in" / "knee", StudyFacts(description="MRI KNEE"))
    shared = StudyFacts()
    write_study(tmp_path / "in" / "one", shared)
    write_study(tmp_path / "in" / "two", StudyFacts(study_uid=shared.study_uid, patient_id="X9", patient_name="No^One"))
    write_series(tmp_path / "in" / "single", head_phantom(), StudyFacts())
    source = DicomFolder([tmp_path / "in"], KEY)
    result = fill_store(source, tmp_path / "store", workers=0, quiet=True)
    assert result.stored == 1
    assert sum(result.refused.values()) == 3
    assert any("two patients" in reason for reason in result.refused)
    with pytest.raises(TwoPatients):
        source.fetch(shared.study_uid, tmp_path)


def test_a_study_of_nothing_readable_is_out_of_scope(tmp_path: Path) -> None:
    study = StudyFacts()
    for path in write_series(tmp_path, head_phantom(), study):
        path.write_bytes(path.read_bytes()[:900])
    source = DicomFolder([tmp_path], KEY)
    for reference in source.references():
        with pytest.raises(OutOfScope):
            source.fetch(reference, tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingData, match="nowhere: not a folder"):
        DicomFolder([tmp_path / "nowhere"], KEY).references()


# What the preparation reads as numbers, codes or UIDs; a planted text there would make the files unreadable.
NEEDED = {
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("SpecificCharacterSet", "ImageType", "PhotometricInterpretation", "BodyPartExamined", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SeriesNumber", "InstanceNumber", "PatientSex", "PatientAge", "MagneticFieldStrength", "StackID"),
    *("StudyDescription", "SeriesDescription", "ProtocolName"),  # planted with words of the patient instead
    *("RequestedProcedureDescription", "PerformedProcedureStepDescription", "AcquisitionNumber", "SequenceName"),
    *("TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "FlipAngle", "InversionTime", "TriggerTime"),
    *("VolumeBasedCalculationTechnique", "ComplexImageComponent", "DiffusionBValue", "DiffusionDirectionality"),
}
TEXTS = {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE", "UR"}
PLANTED = {
    "PN": "Quimby^Zebulon",
    "AE": "QUIMBYAE",
    "UR": "http://quimby",
    "DA": "19571213",
    "DT": "19571213111213",
    "UI": "1.2.3.4.5.77777",
}


def plant(image: Dataset, _index: int) -> None:
    """The patient in every standard attribute outside the pixels and sequences that takes text, a date or a UID."""
    for tag, (vr, _vm, _name, _retired, keyword) in DicomDictionary.items():
        if keyword and keyword not in NEEDED and 0x0008_0000 <= tag < 0x7000_0000 and (tag >> 16) != 0x0028:
            if vr in TEXTS:
                setattr(image, keyword, PLANTED.get(vr, "QUIMBY 884422"))
            elif vr in PLANTED:
                setattr(image, keyword, PLANTED[vr])
    image.PatientID = "QX-884422"
    image.StudyDescription = "MRI BRAIN Quimby 884422"
    image.SeriesDescription = f"AX T2 zebulon_QX-884422_{image.SeriesNumber}"
    image.ProtocolName = "Quimby's brain 13.12.1957"


def bytes_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    return ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def test_nothing_of_the_patient_is_in_the_store(tmp_path: Path) -> None:
    study = StudyFacts()
    planted: list[Dataset] = []

    def edit(image: Dataset, index: int) -> None:
        plant(image, index)
        planted.append(image)

    with config.disable_value_validation():
        for number in (1, 2):
            write_series(tmp_path / "in" / str(number), head_phantom(), study, SeriesFacts(number=number), edit=edit)
    assert len(planted[0]) > 900
    (tmp_path / "reports.jsonl").write_text(
        f'{{"study": "{study.study_uid}", "items": ["Mr. Quimby (884422, 13.12.1957) has a glioma."]}}\n'
    )
    known: Any = read_known(reports=tmp_path / "reports.jsonl")
    source = DicomFolder([tmp_path / "in"], KEY, known)
    fill_store(source, tmp_path / "store", workers=0, quiet=True)
    store = TokenStore(tmp_path / "store")
    assert len(store) == 1
    found = source.fetch(study.study_uid, tmp_path).prepared
    assert found.description == "MRI BRAIN"
    assert [series.name for series in found.series] == [f"AX_T2___{n}-_s_brain_-Protocol" for n in (1, 2)]
    assert next(iter(store.reports().values())).items == ("Mr.  (, ) has a glioma.",)
    identifying = {
        b"quimby",
        b"zebulon",
        b"884422",
        b"19571213",
        b"1957-12-13",
        b"13.12.1957",
        b"77777",
        study.study_uid.encode(),
    }
    identifying |= {str(image.SeriesInstanceUID).encode() for image in planted} | {KEY.key}
    for path, content in bytes_of(tmp_path / "store"):
        found_words = [word for word in identifying if word in content.lower() or word in path.name.lower().encode()]
        assert not found_words, path


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [("SIEMENS Healthineers", "SIEMENS"), ("GE MEDICAL SYSTEMS", "GE"), ("GE", "GE"), ("", ""), ("Dr Smith", "other")],
)
def test_a_vendor_is_one_of_a_list(manufacturer: str, vendor: str) -> None:
    assert vendor_of(manufacturer) == vendor


def test_odd_attributes_are_put_right() -> None:
    assert [sex_of(text) for text in ("female", " M ", "O", "?", "")] == ["F", "M", "O", "", ""]
    assert [tesla(value) for value in (15000, 1.5, None)] == [1.5, 1.5, None]


def test_a_report_is_cut_into_statements() -> None:
    text = "FINDINGS: No. 3 of Dr. Who is normal. The 4.5 mm lesion, e.g. T2, is stable!\n\n1. Glioma\n- vs. Lymphoma ."
    assert statements(text) == (
        "FINDINGS: No. 3 of Dr. Who is normal.",
        "The 4.5 mm lesion, e.g. T2, is stable!",
        "Glioma",
        "vs. Lymphoma .",
    )


def test_a_wrapped_line_keeps_its_negation(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_text('study,findings,impression\na,"There is no\nacute infarct. The ventricles are\nnormal.",Atrophy\n')
    items = read_known(reports=path).reports["a"].items
    assert items == ("There is no acute infarct.", "The ventricles are normal.", "Atrophy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid,report\n", "names no column 'study'"),
        ("study,text\na,b\n", "none of the columns findings"),
        ("study,report\na,No.\na,No.\n", "row 2: the study is missing or named twice"),
        ("study,report\na,b,c\n", "line 2: more cells than columns"),
    ],
)
def test_faulty_reports_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "reports.csv").write_text(text)
    with pytest.raises(BadTrainingData, match=message):
        read_known(reports=tmp_path / "reports.csv")


def test_nothing_known_is_nothing() -> None:
    assert Known().labels_of("a") is Known().report_of("a") is None
