"""The images that speak for findings: checked against the study, and described as an Image Library (TID 1600).

Only the cited images are described, at 4 kB each; the evidence sequence lists all. A value of theirs that is not usable
leaves its descriptors out: what is cited stays cited.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from highdicom.sr import ImageLibrary
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

from dicom_node.base.errors import ReportError
from dicom_node.base.types import ImageReference, StudyResult
from dicom_node.reporting.source import UNREADABLE, Image, Source, legal_uid
from dicom_node.reporting.wording import Wording
from prima_core.base.mr_images import ENHANCED

LARGEST_SIDE = 65535  # Rows and Columns are US
PLACED = {"PixelSpacing": 2, "SliceThickness": 1, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}
WANTED = ("SeriesNumber", "InstanceNumber", "NumberOfFrames", "Rows", "Columns", "FrameOfReferenceUID")


@dataclass(frozen=True)
class CitedImage:
    """One image that speaks for findings.

    frame_count: None for a single-frame image. described: what highdicom wants for the library entry; None where not
    even the size is known.
    """

    image: Image
    series_number: int | None
    instance_number: int | None
    frame_count: int | None
    described: Dataset | None = field(repr=False)

    def frames(self, reference: ImageReference) -> list[int] | None:
        """The frames that a reference names; None where it is to the whole image (PS3.3 section 10.3)."""
        named = sorted(set(reference.frame_numbers))
        return named if self.frame_count is not None and 0 < len(named) < self.frame_count else None


def cited_images(result: StudyResult, source: Source) -> dict[str, CitedImage]:
    """By SOP Instance UID the images that the result's evidence names, in the order of the source.

    Raises ReportError where the evidence does not fit the result or its images.
    """
    _check_findings(result)
    references = [reference for evidence in result.evidence for reference in evidence.images]
    wanted = {reference.sop_instance_uid for reference in references}
    cited = {
        image.sop_instance_uid: _read(image, source.files[image.sop_instance_uid])
        for image in source.images
        if image.sop_instance_uid in wanted
    }
    for reference in references:
        _check_reference(reference, cited.get(reference.sop_instance_uid))
    return cited


def image_library(cited: Mapping[str, CitedImage]) -> ImageLibrary | None:
    """TID 1600 with the cited images that can be described; None when there are none."""
    described = [image.described for image in cited.values() if image.described is not None]
    if not described:
        return None
    library = ImageLibrary(described)
    for container in (library[0], *library[0].ContentSequence):
        container.ContinuityOfContent = "SEPARATE"
    return library


def places(references: Sequence[ImageReference], cited: Mapping[str, CitedImage], wording: Wording) -> str:
    """Where a reader finds the images: series and image numbers, or how many there are where they have none."""
    told: list[str] = []
    numbered: list[tuple[int, str, int]] = []
    unnumbered = 0
    for reference in references:
        image = cited[reference.sop_instance_uid]
        frames = image.frames(reference)
        numbers = frames or ([] if image.instance_number is None else [image.instance_number])
        if image.series_number is None or not numbers:
            unnumbered += 1
            continue
        numbered += [(image.series_number, "frame" if frames else "image", number) for number in numbers]
    for (series, kind), entries in groupby(sorted(set(numbered)), key=lambda entry: entry[:2]):
        numbers = [number for *_, number in entries]
        told.append(wording.count(f"series_{kind}", len(numbers), series=series, numbers=_ranges(numbers)))
    if unnumbered:
        told.append(wording.count("cited", unnumbered))
    return wording.join(told)


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, runs of three and more as first-last: 3, 5-8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _check_findings(result: StudyResult) -> None:
    named = [evidence.finding for evidence in result.evidence]
    if len(set(named)) < len(named):
        raise ReportError("the evidence names a finding twice")
    if not set(named) <= {score.name for score in result.positive}:
        raise ReportError("the evidence names a finding that the result does not have above its threshold")


def _check_reference(reference: ImageReference, cited: CitedImage | None) -> None:
    if cited is None:
        raise ReportError("SOPInstanceUID: the evidence names an image that the result was not made from")
    if any(not 1 <= number <= (cited.frame_count or 1) for number in reference.frame_numbers):
        raise ReportError("ReferencedFrameNumber: the evidence names a frame that its image does not have")


def _read(image: Image, path: Path) -> CitedImage:
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=[*WANTED, *PLACED, "SpacingBetweenSlices"])
    except (InvalidDicomError, BytesLengthException, *UNREADABLE) as error:
        raise ReportError("a cited image can no longer be read as DICOM: compare the spool with the archive") from error
    enhanced = image.sop_class_uid in ENHANCED
    return CitedImage(
        image,
        _whole(header, "SeriesNumber"),
        _whole(header, "InstanceNumber"),
        max(1, _whole(header, "NumberOfFrames") or 1) if enhanced else None,
        _described(image, header, enhanced=enhanced),
    )


def _described(image: Image, header: Dataset, *, enhanced: bool) -> Dataset | None:
    """Legal values only (TID 1602 and, of an image whose place is known as a whole, TID 1604)."""
    sides = [_whole(header, keyword) for keyword in ("Rows", "Columns")]
    if not all(side is not None and 0 < side <= LARGEST_SIDE for side in sides):
        return None
    described = Dataset()
    described.SOPClassUID, described.SOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    described.Rows, described.Columns = sides
    frame_of_reference = header.get("FrameOfReferenceUID")
    if isinstance(frame_of_reference, str) and legal_uid(frame_of_reference):
        described.FrameOfReferenceUID = frame_of_reference
    place = {keyword: _numbers(header, keyword, count) for keyword, count in PLACED.items()}
    placed = not enhanced and all(place.values())
    described.Modality = "MR" if placed else ""  # highdicom asks every MR image for its place
    if placed:
        for keyword, numbers in place.items():
            setattr(described, keyword, numbers if len(numbers) > 1 else numbers[0])
        for spacing in _numbers(header, "SpacingBetweenSlices", 1):
            described.SpacingBetweenSlices = spacing
    return described


def _numbers(header: Dataset, keyword: str, count: int) -> list[float]:
    """So many finite numbers, or none."""
    try:
        value = header.get(keyword)
        numbers = [float(one) for one in (value if isinstance(value, MultiValue | list) else [value])]
    except (OverflowError, *UNREADABLE):
        return []
    return numbers if len(numbers) == count and all(math.isfinite(number) for number in numbers) else []


def _whole(header: Dataset, keyword: str) -> int | None:
    numbers = _numbers(header, keyword, 1)
    return int(numbers[0]) if numbers and numbers[0].is_integer() else None
