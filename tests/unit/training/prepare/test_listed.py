"""Studies by lists of files: read as a folder of them is, under the patients that the list gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from support.dicom_factory import StudyFacts, write_study
from training.base.pseudonyms import Pseudonyms
from training.prepare.dicom_folder import DicomFolder
from training.prepare.listed import ListedStudies

KEY = Pseudonyms(b"s" * 32)


def test_only_listed_files_are_read_and_the_patient_is_the_lists(tmp_path: Path) -> None:
    study = StudyFacts()
    files = write_study(tmp_path / "counts", study)
    (tmp_path / "superseded").mkdir()
    (tmp_path / "superseded" / "1.dcm").write_bytes(files[0].read_bytes())
    source = ListedStudies({study.study_uid: files}, {study.study_uid: "a" * 16}, KEY)
    assert [source.study(uid) for uid in source.references()] == [KEY.study(study.study_uid)]
    found = source.fetch(study.study_uid, tmp_path)
    folder = DicomFolder([tmp_path / "counts"], KEY)
    folder.references()
    expected = folder.fetch(study.study_uid, tmp_path)
    assert found.record == replace(expected.record, patient="a" * 16)
    for one, other in zip(found.prepared.series, expected.prepared.series, strict=True):
        np.testing.assert_array_equal(one.patches, other.patches)
