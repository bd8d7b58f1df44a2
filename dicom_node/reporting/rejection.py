"""A rejection note: the Key Object Selection that takes a withdrawn result back in an archive (IHE RAD IOCM).

It names exactly the objects that the archive has or may have, under the patient and study under which they were sent,
as the registry noted it when they left, else as the very files say that were sent. Its UIDs follow from its title and
those objects: work repeated after a crash writes the same note.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CodedConcept, DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.sr.codedict import codes as standard

from dicom_node.base.errors import ReportError, RetriableError
from dicom_node.base.sent import NotedObject, header_of
from dicom_node.base.types import Withdrawal
from dicom_node.reporting.codes import long_string
from dicom_node.reporting.content import derived_uid
from dicom_node.reporting.source import UNREADABLE

OF_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
OF_STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyInstanceUID")
OPTIONAL = ("SpecificCharacterSet", "IssuerOfPatientID", "StudyDescription", "TimezoneOffsetFromUTC")
SERIES_NUMBER_ABOVE = 1  # beside the series that it rejects


def build_rejection(withdrawal: Withdrawal, files: Sequence[Path], noted: Mapping[str, NotedObject]) -> Dataset:
    """The note for one destination.

    files: the objects that it has or may have, as they were sent; noted: what the registry noted of them, by name. An
    object of which neither is left is not named, see `named_in`. Raises ReportError when nothing is left of any or they
    are not of one patient and study, RetriableError when the disk does not give them now.
    """
    with disable_value_validation(), warnings.catch_warnings(action="ignore"):
        sent = _sent(withdrawal, files, noted)
        first = sent[0]
        for keyword in (*OF_PATIENT, *OF_STUDY, "IssuerOfPatientID"):
            if any(one.get(keyword) != first.get(keyword) for one in sent):
                raise ReportError(
                    f"{keyword} differs between the objects that were sent: no rejection note is possible"
                )
        uids = sorted(str(one.SOPInstanceUID) for one in sent)
        parts = ("rejection", withdrawal.rejection.value, *uids)
        note: Dataset = KeyObjectSelectionDocument(
            evidence=sent,
            content=_content(withdrawal, sent),
            series_instance_uid=derived_uid("rejection series", *parts),
            series_number=int(first.get("SeriesNumber") or 0) + SERIES_NUMBER_ABOVE,
            sop_instance_uid=derived_uid(*parts),
            instance_number=1,
            manufacturer=str(first.get("Manufacturer") or ""),
            institution_name=str(first.get("InstitutionName") or "") or None,
        )
        for keyword in (*OF_PATIENT, *OF_STUDY, *OPTIONAL):
            if keyword in first:
                note[keyword] = first[keyword]
        # The library's own says when, so that no two notes would be equal; the equipment is what made the result.
        del note.ContributingEquipmentSequence
        if "ContributingEquipmentSequence" in first:
            note.ContributingEquipmentSequence = first.ContributingEquipmentSequence
        note.SeriesDescription = long_string(withdrawal.rejection.meaning)
        note.ManufacturerModelName = str(first.get("ManufacturerModelName") or "")
        note.SoftwareVersions = [f"prima-node {version('prima-node')}"]
        _date(note, withdrawal.at)
    return note


def named_in(note: Dataset) -> int:
    """How many objects a note names."""
    return sum(
        len(series.ReferencedSOPSequence)
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
    )


def _sent(withdrawal: Withdrawal, files: Sequence[Path], noted: Mapping[str, NotedObject]) -> list[Dataset]:
    """The headers of all objects of which something is left."""
    found = [header_of(noted[path.name]) if path.name in noted else _read(path) for path in files]
    sent = [header for header in found if header is not None]
    if not sent:
        raise ReportError("nothing is left of the objects that were sent: they are no longer in the outgoing folder")
    report, *uids = withdrawal.report
    if report in {path.name for path, header in zip(files, found, strict=True) if header is None}:
        sent.append(_of_registry(uids, sent[0]))
    return sent


def _of_registry(uids: Sequence[str], other: Dataset) -> Dataset:
    """The report as the registry knows it. uids: SOP Class, Series and SOP Instance; other: an object of the result."""
    header = Dataset()
    for keyword in (*OF_PATIENT, *OF_STUDY, *OPTIONAL):
        if keyword in other:
            header.add(other[keyword])
    header.SOPClassUID, header.SeriesInstanceUID, header.SOPInstanceUID = uids
    return header


def _read(path: Path) -> Dataset | None:
    """The header of a file; None where there is none that can be read. Raises RetriableError."""
    try:
        return dcmread(path, stop_before_pixels=True)
    except FileNotFoundError:
        return None
    except (OSError, InvalidDicomError, BytesLengthException, *UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise RetriableError(f"an object that was sent cannot be read now ({error.strerror})") from error
        return None


def _content(withdrawal: Withdrawal, sent: Sequence[Dataset]) -> KeyObjectSelection:
    rejection = withdrawal.rejection
    device = DeviceObserverIdentifyingAttributes(uid=_device(sent[0]), name="prima-node")
    return KeyObjectSelection(
        document_title=CodedConcept(rejection.value, "DCM", rejection.meaning),
        referenced_objects=list(sent),
        observer_device_context=ObserverContext(standard.DCM.Device, device),
        description=f"AI result withdrawn: {rejection.meaning}",
    )


def _device(first: Dataset) -> str:
    return str(first.get("DeviceUID") or derived_uid("device"))


def _date(note: Dataset, at: float) -> None:
    local = datetime.fromtimestamp(at, UTC)
    offset = str(note.get("TimezoneOffsetFromUTC") or "")
    if offset:
        local = local.astimezone(datetime.strptime(offset, "%z").tzinfo)
    for prefix in ("InstanceCreation", "Content", "Series"):
        setattr(note, f"{prefix}Date", local.strftime("%Y%m%d"))
        setattr(note, f"{prefix}Time", local.strftime("%H%M%S"))
