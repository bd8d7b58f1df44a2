"""Where the model looked, as a Segmentation in the source's frame of reference (PS3.3 A.51), for viewers that overlay.

One object for a series, a segment for each finding that was explained on it. A segment holds the patches with at least
half the strongest one's value; it shows what the model looked at, not where a lesion ends.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.content import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from highdicom.enum import CoordinateSystemNames
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicom_node.base.config import ReportSection
from dicom_node.base.types import StudyResult
from dicom_node.reporting import codes
from dicom_node.reporting.codes import long_string, report_code
from dicom_node.reporting.content import coded, derived_uid
from dicom_node.reporting.header import complete, description
from dicom_node.reporting.source import TYPE_2, Source
from prima_core.volume.series import Slice

if TYPE_CHECKING:
    from prima_core.key_slices import ExplainedSeries

SERIES = 3  # added to the report's series number
COLOUR = CIELabColor(70, 40, 70)  # orange, as the overlay's middle


def regions(
    explained: Sequence[ExplainedSeries],
    number: int,
    result: StudyResult,
    report_uid: str,
    source: Source,
    settings: ReportSection,
    created_at: datetime,
) -> Dataset:
    """The regions of one series. explained: all of the same series; number: of the object in its own series, from 1."""
    frame, distance = explained[0].slices[0].frame, _distance(explained[0].slices)
    slices, shown = [], []
    for plane in explained[0].slices:  # one at a time: of a large volume few slices show anything
        mask = np.stack([one.region(plane) for one in explained], axis=-1)
        if mask.any():
            slices.append(plane)
            shown.append(mask)
    assert frame.spacing is not None  # what has no place is not prepared
    assert frame.orientation is not None
    with disable_value_validation(), warnings.catch_warnings(action="ignore"):
        document: Dataset = Segmentation(
            source_images=[_single_frame(n, plane, source, frame.frame_of_reference) for n, plane in enumerate(slices)],
            pixel_array=np.stack(shown).astype(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=[_segment(n, one, result) for n, one in enumerate(explained, 1)],
            series_instance_uid=derived_uid("regions series", report_uid),
            series_number=settings.series_number + SERIES,
            sop_instance_uid=derived_uid("regions", report_uid, explained[0].series.series_instance_uid),
            instance_number=number,
            manufacturer=long_string(settings.manufacturer),
            manufacturer_model_name=long_string(result.model.name),
            software_versions=long_string(result.model.version),
            device_serial_number=long_string(result.model.bundle_id),
            series_description=description(settings, result, "regions"),
            content_label="AI_EXPLANATION",
            content_description="What an AI result rests on, unverified",
            pixel_measures=PixelMeasuresSequence(frame.spacing, distance),
            plane_orientation=PlaneOrientationSequence(CoordinateSystemNames.PATIENT, frame.orientation),
            plane_positions=[
                PlanePositionSequence(CoordinateSystemNames.PATIENT, plane.frame.position or ()) for plane in slices
            ],
        )
        _refer(document, slices)
        complete(document, result, source, settings, created_at)
    return document


def _segment(number: int, explained: ExplainedSeries, result: StudyResult) -> SegmentDescription:
    concept = codes.diagnosis(explained.question.output)
    return SegmentDescription(
        segment_number=number,
        segment_label=long_string(f"AI, unverified: {concept.display}"),
        segmented_property_category=coded(report_code("spatial_concept")),
        segmented_property_type=coded(report_code("visual_explanation")),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(result.model.name),
            family=coded(report_code("algorithm_family_ai")),
            version=long_string(result.model.version),
        ),
        tracking_uid=derived_uid(
            "tracking", result.study_instance_uid, result.model.device_uid, explained.question.output
        ),
        tracking_id=concept.display,
        display_color=COLOUR,
    )


def _refer(document: Dataset, slices: Sequence[Slice]) -> None:
    """Put the slices' own images, and frames where there are several, in the places of their numbers."""
    by_number = {_numbered(number): plane for number, plane in enumerate(slices)}
    for frame in document.PerFrameFunctionalGroupsSequence:
        for derivation in frame.get("DerivationImageSequence", []):
            for reference in derivation.SourceImageSequence:
                if reference.ReferencedSOPInstanceUID in by_number:  # items are shared between frames
                    _name(reference, by_number[reference.ReferencedSOPInstanceUID])
    [series] = document.ReferencedSeriesSequence
    once = {plane.image.sop_instance_uid: plane for plane in slices}
    series.ReferencedInstanceSequence = [_name(Dataset(), plane, whole=True) for plane in once.values()]


def _name(reference: Dataset, plane: Slice, *, whole: bool = False) -> Dataset:
    reference.ReferencedSOPClassUID = plane.image.sop_class_uid
    reference.ReferencedSOPInstanceUID = plane.image.sop_instance_uid
    if not whole and len({frame.index for frame in plane.image.frames}) > 1:
        reference.ReferencedFrameNumber = plane.frame.index + 1
    return reference


def _single_frame(number: int, plane: Slice, source: Source, frame_of_reference: str) -> Dataset:
    """What the library wants to know of a slice: what the node read of it, not the file's own words.

    Slices may be frames, or parts, of one image, so that each goes by its number until `_refer`.
    """
    image = Dataset()
    for keyword in ("PatientName", "PatientID", "AccessionNumber", *TYPE_2):
        setattr(image, keyword, "")
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.StudyInstanceUID = source.study_instance_uid
    image.SeriesInstanceUID = plane.image.series_instance_uid
    image.SOPInstanceUID = _numbered(number)
    image.SOPClassUID = MRImageStorage
    image.FrameOfReferenceUID = frame_of_reference
    image.Modality = "MR"
    image.Rows, image.Columns = plane.frame.rows, plane.frame.columns
    image.ImagePositionPatient = list(plane.frame.position or ())
    image.ImageOrientationPatient = list(plane.frame.orientation or ())
    image.PixelSpacing = list(plane.frame.spacing or ())
    image.SliceThickness = 1.0
    return image


def _numbered(number: int) -> str:
    return f"2.25.{number}"


def _distance(slices: Sequence[Slice]) -> float:
    first, last = (np.array(plane.frame.position) for plane in (slices[0], slices[-1]))
    return float(np.linalg.norm(last - first) / (len(slices) - 1))
