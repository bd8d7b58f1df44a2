"""The key slices as a Key Object Selection: the original images, to jump to (PS3.3 A.35.4, PS3.16 TID 2010)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard

from dicom_node.base.config import ReportSection
from dicom_node.base.types import StudyResult
from dicom_node.reporting.codes import long_string
from dicom_node.reporting.content import derived_uid, device_observer
from dicom_node.reporting.document import evidence_of
from dicom_node.reporting.header import complete, description
from dicom_node.reporting.source import Image, Source

SERIES = 2  # added to the report's series number


def key_objects(
    shown: Sequence[Image],
    words: str,
    result: StudyResult,
    report_uid: str,
    source: Source,
    settings: ReportSection,
    created_at: datetime,
) -> Dataset:
    """A selection of these source images, "Of Interest". words: what they were selected for, and by whom."""
    images = [evidence_of(source.study_instance_uid, image) for image in shown]
    for image in images:
        image.Rows = image.Columns = 1  # what makes it an image to the library: IMAGE items, not COMPOSITE ones
    with disable_value_validation(), warnings.catch_warnings(action="ignore"):
        document: Dataset = KeyObjectSelectionDocument(
            evidence=images,
            content=KeyObjectSelection(
                document_title=standard.DCM.OfInterest,
                referenced_objects=images,
                observer_device_context=device_observer(result, settings),
                description=words,
            ),
            series_instance_uid=derived_uid("key objects series", report_uid),
            series_number=settings.series_number + SERIES,
            sop_instance_uid=derived_uid("key objects", report_uid),
            instance_number=1,
            manufacturer=long_string(settings.manufacturer),
            series_description=description(settings, result, "key images"),
            requested_procedures=list(source.requests) or None,
        )
        complete(document, result, source, settings, created_at)
    return document
