"""What stays known of an object that left the node: enough to reject it once its bytes are gone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.errors import BytesLengthException, InvalidDicomError

UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
KEPT = (
    *UIDS,
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
    *("Modality", "SeriesNumber", "Rows", "Columns", "NumberOfFrames"),
    *("Manufacturer", "ManufacturerModelName", "InstitutionName", "DeviceUID", "ContributingEquipmentSequence"),
)
UNREADABLE = (
    *(InvalidDicomError, BytesLengthException, AttributeError, EOFError, LookupError, NotImplementedError),
    *(OSError, RecursionError, TypeError, ValueError, struct.error),
)


@dataclass(frozen=True)
class NotedObject:
    """An object as it left the node. header: `KEPT` of its attributes, as a PS3.10 file without anything else."""

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    header: bytes


def sent_object(folder: Path, path: str) -> NotedObject | None:
    """The object at `path` in the outgoing folder; None where it cannot be read now, or is none."""
    try:
        whole = dcmread(folder / path, stop_before_pixels=True, specific_tags=list(KEPT))
        if not all(whole.get(keyword) for keyword in UIDS):
            return None
        buffer = BytesIO()
        dcmwrite(buffer, whole, enforce_file_format=True)
    except UNREADABLE:
        return None
    sop_class, instance, series = (str(whole[keyword].value) for keyword in UIDS[:3])
    return NotedObject(path, sop_class, instance, series, buffer.getvalue())


def header_of(sent: NotedObject) -> Dataset:
    """What was kept of the object."""
    return dcmread(BytesIO(sent.header))
