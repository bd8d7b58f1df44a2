"""Headers of a study's files: everything the scope check and the volume need, read once, checked, without pixels.

A file that cannot be used is no error: it is listed with its reason. Two studies or two patients in one folder are one,
because nothing that is computed from such a mixture may be reported.
"""

from __future__ import annotations

import filecmp
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
from pydicom import config
from pydicom.datadict import tag_for_keyword

from prima_core.base.bounded import Allowance
from prima_core.base.errors import OutOfScope, TwoPatients, UnusableSeries
from prima_core.base.mr_images import ENHANCED
from prima_core.base.patient import contradiction, patient_key
from prima_core.base.types import SetAside
from prima_core.volume.attributes import Attributes
from prima_core.volume.faults import MALFORMED, raise_trouble, unexpected
from prima_core.volume.frames import Frame, classic_frame, enhanced_frames, mosaic_frames
from prima_core.volume.pixels import (
    LARGEST_PARSED,
    LARGEST_SIDE,
    MOST_FRAMES,
    PixelElement,
    PixelValue,
    decode_frames,
    read_header,
)
from prima_core.volume.siemens_mosaic import read_mosaic

_UID = re.compile(r"[0-9.]{1,64}")
_TOO_MUCH = "a header of more elements and sequence items than that of any image"
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_NOT_DECOMPOSED = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ı": "i"})
_AGE_UNITS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}

_KEYWORDS = [
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "ProcedureCodeSequence",
    "RequestedProcedureCodeSequence",
    "RequestedProcedureDescription",
    "RequestAttributesSequence",
    "PerformedProcedureStepDescription",
    "VolumeBasedCalculationTechnique",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientAge",
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "StackID",
    "TriggerTime",
    "SequenceName",
    "EchoNumbers",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "ComplexImageComponent",
    "DiffusionBValue",
    "DiffusionDirectionality",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_PRIVATE = {0x0019: (0x0A, 0x0C), 0x0029: (0x10,), 0x0043: (0x2F, 0x39), 0x2001: (0x03,)}
_TAGS = [int(tag) for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None] + [
    (group << 16) | element
    for group, elements in _PRIVATE.items()
    for block in range(0x10, 0x14)
    for element in (block, *((block << 8) | e for e in elements))
]


@dataclass(frozen=True)
class ImageHeader:
    """One DICOM instance. `problem` says why its pixels cannot be used, or is empty.

    study_texts, region_texts: the study's names and codes, and those of the body part. age_years: None when unknown.
    patient: see `base.patient.patient_key`.
    """

    path: Path
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str
    image_type: tuple[str, ...]
    calculation: str
    study_description: str
    study_texts: tuple[str, ...]
    region_texts: tuple[str, ...]
    series_description: str
    protocol_name: str
    series_number: int | None
    instance_number: int | None
    colour: bool
    photometric: str
    patient: str
    age_years: float | None = field(repr=False)
    pixels: PixelElement | None
    frames: tuple[Frame, ...]
    problem: str


@dataclass(frozen=True)
class StudyFiles:
    """The instances of one study, each once, and what had to be left out.

    conflicts: series in which one SOP Instance UID stands for different images.
    """

    study_instance_uid: str
    study_description: str
    images: tuple[ImageHeader, ...]
    unreadable: tuple[SetAside, ...] = ()
    conflicts: tuple[SetAside, ...] = ()


class _Unreadable(Exception):
    """A file that is no usable DICOM instance; the message is the reason."""


def read_headers(files: Iterable[Path], on_file: Callable[[], None] = lambda: None) -> StudyFiles:
    """Read the headers of one study's files; `on_file` hears of each.

    Raises OutOfScope when the files belong to two studies or none of them is readable, TwoPatients, and the machine's
    own trouble (MemoryError, an OSError with an errno): a file that cannot be read now is not a damaged one.
    """
    images: list[ImageHeader] = []
    reasons: dict[str, int] = {}
    for path in files:
        on_file()
        try:
            images.append(read_image_header(path))
        except _Unreadable as error:
            reasons[str(error)] = reasons.get(str(error), 0) + 1
        except Exception as error:  # noqa: BLE001 - one file that nobody thought of must not end the study
            reason = unexpected(error)
            reasons[reason] = reasons.get(reason, 0) + 1
    unreadable = tuple(SetAside("", f"{count} file(s): {reason}") for reason, count in reasons.items())
    if not images:
        found = "no readable DICOM image in the study" if reasons else "no MR image was received"
        raise OutOfScope(found, unreadable)
    studies = {image.study_instance_uid for image in images}
    if len(studies) > 1:
        raise OutOfScope("the files carry more than one Study Instance UID", unreadable)
    if keyword := contradiction(image.patient for image in images):
        raise TwoPatients(
            f"the images under one Study Instance UID name two patients ({keyword}): correct it at the source"
        )
    distinct, conflicts = _each_once(images)
    described = [image.study_description for image in distinct if image.study_description]
    return StudyFiles(
        study_instance_uid=images[0].study_instance_uid,
        study_description=described[0] if described else "",
        images=distinct,
        unreadable=unreadable,
        conflicts=conflicts,
    )


def read_image_header(path: Path) -> ImageHeader:
    """One file's header. Raises an error with the reason when it is no DICOM instance with proper UIDs."""
    # pydicom's own validation would print the offending values, and here every value is checked anyway.
    with config.disable_value_validation():
        allowance = Allowance(LARGEST_PARSED)
        try:
            dataset, transfer_syntax, value = read_header(path, _TAGS, allowance)
            patient = patient_key(dataset)
        except MALFORMED as error:
            raise_trouble(error)
            raise _Unreadable(_TOO_MUCH if allowance.exhausted else "not a readable DICOM file") from error
        header = _image_header(path, Attributes(dataset, allowance), patient, transfer_syntax, value)
        if allowance.exhausted:  # a sequence was not read to its end
            raise _Unreadable(_TOO_MUCH)
        return header


def _image_header(
    path: Path, image: Attributes, patient: str, transfer_syntax: str, value: PixelValue | str
) -> ImageHeader:
    study, series, instance = (
        _uid(image, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    )
    photometric = image.text("PhotometricInterpretation").upper()
    samples = image.integer("SamplesPerPixel") or 1
    pixels = value if isinstance(value, str) else _pixel_element(image, path, transfer_syntax, value)
    frames = _frames(image, pixels) if isinstance(pixels, PixelElement) else pixels
    return ImageHeader(
        path=path,
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=instance,
        sop_class_uid=image.text("SOPClassUID"),
        modality=image.text("Modality").upper(),
        image_type=tuple(value.upper() for value in image.texts("ImageType")),
        calculation=image.text("VolumeBasedCalculationTechnique").upper(),
        study_description=image.text("StudyDescription"),
        study_texts=_study_texts(image),
        region_texts=_region_texts(image),
        series_description=image.text("SeriesDescription"),
        protocol_name=image.text("ProtocolName"),
        series_number=image.integer("SeriesNumber"),
        instance_number=image.integer("InstanceNumber"),
        colour=samples != 1 or not photometric.startswith("MONOCHROME"),
        photometric=photometric,
        patient=patient,
        age_years=_age(image),
        pixels=pixels if isinstance(pixels, PixelElement) else None,
        frames=frames if isinstance(frames, tuple) else (),
        problem=frames if isinstance(frames, str) else "",
    )


def fold(text: str) -> str:
    """Lower case, without accents, every run of other characters one space: "IRM cérébrale_2" → "irm cerebrale 2"."""
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_NOT_DECOMPOSED))
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", " ", plain).strip()


def _uid(image: Attributes, keyword: str) -> str:
    value = image.text(keyword)
    if not _UID.fullmatch(value):
        raise _Unreadable(f"missing or malformed {keyword}")
    return value


def _pixel_element(image: Attributes, path: Path, transfer_syntax: str, value: PixelValue) -> PixelElement | str:
    """The pixel data's layout, or why it cannot be a greyscale plane. Bounds keep hostile headers from large memory."""
    numbers = [
        image.integer(keyword) for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    ]
    rows, columns, allocated, stored, representation = (-1 if number is None else number for number in numbers)
    number = image.number("NumberOfFrames", missing=1.0)
    frames = int(number) if number is not None and number.is_integer() else 0
    if not (1 <= rows <= LARGEST_SIDE and 1 <= columns <= LARGEST_SIDE and 1 <= frames <= MOST_FRAMES):
        return "image size or number of frames missing or beyond all reason"
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or representation not in (0, 1):
        return "malformed description of the pixel values"
    # The undefined length of encapsulated pixels, FFFFFFFF, is longer than any native value.
    if value.length < frames * rows * columns * allocated // 8:
        return "pixel data shorter than its description"
    return PixelElement(
        path, transfer_syntax, value.offset, rows, columns, frames, allocated, stored, representation == 1
    )


def _frames(image: Attributes, pixels: PixelElement) -> tuple[Frame, ...] | str:
    """The planes of an image, or why there are none."""
    if image.text("SOPClassUID") in ENHANCED:
        frames = enhanced_frames(image)
        return frames if len(frames) == pixels.frames else "per-frame functional groups do not fit the number of frames"
    if pixels.frames != 1:
        return "several frames without a description of each"
    frame = classic_frame(image)
    if "MOSAIC" not in frame.image_type:
        return (frame,)
    mosaic = read_mosaic(image)
    return mosaic if isinstance(mosaic, str) else mosaic_frames(frame, mosaic, image.number("SpacingBetweenSlices"))


def _study_texts(image: Attributes) -> tuple[str, ...]:
    requests = image.items("RequestAttributesSequence")
    codes = [*image.items("ProcedureCodeSequence"), *image.items("RequestedProcedureCodeSequence")]
    keywords = ("RequestedProcedureDescription", "ScheduledProcedureStepDescription")
    texts = [image.text(k) for k in ("StudyDescription", keywords[0], "PerformedProcedureStepDescription")]
    texts += [request.text(keyword) for request in requests for keyword in keywords]
    texts += [code.text("CodeMeaning") for code in codes]
    return tuple(dict.fromkeys(text for text in texts if text))


def _region_texts(image: Attributes) -> tuple[str, ...]:
    anatomy = image.item("SharedFunctionalGroupsSequence").item("FrameAnatomySequence")
    regions = [*image.items("AnatomicRegionSequence"), *anatomy.items("AnatomicRegionSequence")]
    texts = [image.text("BodyPartExamined"), *(region.text("CodeMeaning") for region in regions)]
    return tuple(dict.fromkeys(text for text in texts if text))


def _age(image: Attributes) -> float | None:
    """Years, from Patient's Age or else from birth and study date (PS3.5 section 6.2, AS and DA)."""
    if match := _AGE.fullmatch(image.text("PatientAge").upper()):
        return int(match[1]) * _AGE_UNITS[match[2]]
    born = _date(image.text("PatientBirthDate"))
    examined = _date(image.text("StudyDate")) or _date(image.text("SeriesDate"))
    if born is None or examined is None or examined < born:
        return None
    return examined.year - born.year - ((examined.month, examined.day) < (born.month, born.day))


def _date(text: str) -> date | None:
    digits = re.sub(r"\D", "", text)
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) if len(digits) == 8 else None
    except ValueError:
        return None


def _each_once(images: Sequence[ImageHeader]) -> tuple[tuple[ImageHeader, ...], tuple[SetAside, ...]]:
    """Instances without repeats, and the series in which two different images share one SOP Instance UID."""
    first: dict[str, ImageHeader] = {}
    conflicts: dict[str, SetAside] = {}
    for image in images:
        known = first.setdefault(image.sop_instance_uid, image)
        if known is not image and not _same_content(known, image):
            for series in (known.series_instance_uid, image.series_instance_uid):
                conflicts[series] = SetAside(series, "two different images carry the same SOP Instance UID")
    return tuple(first.values()), tuple(conflicts.values())


def _same_content(one: ImageHeader, other: ImageHeader) -> bool:
    """Whether two files hold the same instance, possibly in different transfer syntaxes."""
    if filecmp.cmp(one.path, other.path, shallow=False):
        return True
    if replace(one, path=other.path, pixels=None) != replace(other, pixels=None):
        return False
    if one.pixels is None or other.pixels is None:
        return one.pixels is other.pixels
    if one.pixels.frames != other.pixels.frames:
        return False
    indices = range(one.pixels.frames)
    try:
        pairs = zip(decode_frames(one.pixels, indices), decode_frames(other.pixels, indices), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)
    except UnusableSeries:
        return False
