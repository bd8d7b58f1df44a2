"""What the demo sends of a folder, and what it leaves out with a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from dicom_node.base.errors import PermanentError
from dicom_node.demo.study_files import study_in
from support.reports import STUDY, write_study


def dicomdir(path: Path) -> Path:
    """A DICOM file that is no instance (PS3.10 section 8)."""
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.FileSetID = "DEMO"
    directory.save_as(path, enforce_file_format=True)
    return path


def test_what_is_no_instance_is_left_out_and_named(tmp_path: Path) -> None:
    images = write_study(tmp_path, {}, {})
    note, empty, cut = tmp_path / "README.txt", tmp_path / "empty", tmp_path / "cut.dcm"
    note.write_text("not an image")
    empty.write_bytes(b"")
    cut.write_bytes(images[0].read_bytes()[:200])
    others = [note, empty, cut, dicomdir(tmp_path / "DICOMDIR")]
    skipped: list[Path] = []
    study = study_in([*others, *images], skipped.append)
    assert (study.study_instance_uid, study.files) == (STUDY, tuple(images))
    assert skipped == others


def test_a_folder_without_instances_or_with_two_studies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no DICOM"):
        study_in([dicomdir(tmp_path / "DICOMDIR")], lambda _: None)
    images = write_study(tmp_path, {}, {"StudyInstanceUID": b"1.2.3"})
    with pytest.raises(PermanentError, match="2 studies"):
        study_in(images, lambda _: None)
