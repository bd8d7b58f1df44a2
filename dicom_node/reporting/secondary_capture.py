"""Pages as Secondary Capture images: one multi-frame true colour object, or an object a page (PS3.3 A.8.1, A.8.5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage

from dicom_node.base.config import ReportSection
from dicom_node.base.types import StudyResult
from dicom_node.reporting.codes import report_code
from dicom_node.reporting.content import coded, derived_uid
from dicom_node.reporting.drawing import Picture
from dicom_node.reporting.header import complete, description, new_object
from dicom_node.reporting.source import Image, Source

SERIES = 1  # added to the report's series number


@dataclass(frozen=True)
class Shown:
    """The source image that a page shows. frame: from 1, where it has several."""

    image: Image
    frame: int | None = None


def multi_frame(
    pages: Sequence[Picture],
    shown: Sequence[Shown],
    result: StudyResult,
    report_uid: str,
    source: Source,
    settings: ReportSection,
    created_at: datetime,
) -> Dataset:
    """All pages in one object.

    shown: what each page but the first shows, in their order; report_uid: of the report they belong to.
    """
    document = new_object(
        MultiFrameTrueColorSecondaryCaptureImageStorage, derived_uid("pages", report_uid, "multi-frame")
    )
    document.InstanceNumber = 1
    document.NumberOfFrames = len(pages)
    if len(pages) > 1:
        document.FrameIncrementPointer = (0x0018, 0x2001)  # Page Number Vector
        document.PageNumberVector = list(range(1, len(pages) + 1))
    _fill(document, np.stack(pages), shown, result, report_uid, settings)
    complete(document, result, source, settings, created_at)
    return document


def single_frames(
    pages: Sequence[Picture],
    shown: Sequence[Shown],
    result: StudyResult,
    report_uid: str,
    source: Source,
    settings: ReportSection,
    created_at: datetime,
) -> list[Dataset]:
    """An object a page, for archives that take no multi-frame Secondary Capture; the same series."""
    documents = []
    for number, page in enumerate(pages, 1):
        own = [shown[number - 2]] if number > 1 else []
        document = new_object(SecondaryCaptureImageStorage, derived_uid("pages", report_uid, str(number)))
        document.InstanceNumber = number
        _fill(document, page, own, result, report_uid, settings)
        complete(document, result, source, settings, created_at)
        documents.append(document)
    return documents


def _fill(
    document: Dataset,
    pixels: Picture,
    shown: Sequence[Shown],
    result: StudyResult,
    report_uid: str,
    settings: ReportSection,
) -> None:
    document.Modality = "OT"
    document.ConversionType = "SYN"
    document.ImageType = ["DERIVED", "SECONDARY"]
    document.SeriesInstanceUID = derived_uid("pages series", report_uid)
    document.SeriesNumber = settings.series_number + SERIES
    document.SeriesDescription = description(settings, result, "images")
    document.Laterality = ""
    document.PatientOrientation = ""
    document.BurnedInAnnotation = "YES"
    document.RecognizableVisualFeatures = "NO"
    document.LossyImageCompression = "00"
    document.DerivationDescription = "Pages that explain an AI result, not verified by a physician"
    if shown:
        document.SourceImageSequence = [_reference(one) for one in shown]
    document.SamplesPerPixel = 3
    document.PhotometricInterpretation = "RGB"
    document.PlanarConfiguration = 0
    document.Rows, document.Columns = pixels.shape[-3:-1]
    document.BitsAllocated = document.BitsStored = 8
    document.HighBit = 7
    document.PixelRepresentation = 0
    document.PixelData = pixels.tobytes()


def _reference(shown: Shown) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = shown.image.sop_class_uid
    reference.ReferencedSOPInstanceUID = shown.image.sop_instance_uid
    if shown.frame is not None:
        reference.ReferencedFrameNumber = shown.frame
    reference.PurposeOfReferenceCodeSequence = [coded(report_code("source_image"))]
    return reference
