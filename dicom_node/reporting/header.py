"""What every object beside the report has in common with it: patient, study, device, times, character set."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.base.config import ReportSection
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.base.types import StudyResult
from dicom_node.reporting.codes import long_string
from dicom_node.reporting.document import (
    date_object,
    device_of,
    series_description,
    set_character_set,
    software_versions,
)
from dicom_node.reporting.source import Source
from dicom_node.reporting.wording import Wording


def complete(
    document: Dataset, result: StudyResult, source: Source, settings: ReportSection, created_at: datetime
) -> None:
    """Give an object its patient, study, device and times, and the character set that holds all its texts.

    Whatever it had of these before, such as what a library copied from the images, is replaced.
    """
    model = result.model
    for keyword, value in (
        ("StudyInstanceUID", source.study_instance_uid),
        ("Manufacturer", long_string(settings.manufacturer)),
        ("ManufacturerModelName", long_string(model.name)),
        ("DeviceSerialNumber", long_string(model.bundle_id)),
        ("SoftwareVersions", software_versions(model)),
        ("DeviceUID", model.device_uid),
        ("ContributingEquipmentSequence", [device_of(result, settings, Wording(settings.language))]),
    ):
        setattr(document, keyword, value)
    if settings.institution:
        document.InstitutionName = long_string(settings.institution)
    # A copy: writing a name keeps its bytes, which are wrong in the next object if that is in another character set.
    document.update(deepcopy(source.attributes))
    date_object(document, created_at)
    set_character_set(document, source.character_set)


def new_object(sop_class: UID, sop_instance_uid: str) -> Dataset:
    """An object with its file meta information, and nothing in it yet but what it is."""
    document = Dataset()
    document.file_meta = FileMetaDataset()
    document.file_meta.MediaStorageSOPClassUID = document.SOPClassUID = sop_class
    document.file_meta.MediaStorageSOPInstanceUID = document.SOPInstanceUID = UID(sop_instance_uid)
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    document.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return document


def description(settings: ReportSection, result: StudyResult, words: str) -> str:
    """Series Description of an object beside the report: what it is, and of which revision."""
    revised = f" r{result.revision}" if result.revision > 1 else ""
    return series_description(f"{settings.series_description} {words}{revised}", result.model)
