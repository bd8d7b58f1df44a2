"""Is a second object under a known SOP Instance UID the same image, the same image re-labelled, or another image?

Senders re-send, archives change the transfer syntax, people correct demographics: all of that keeps the pixels. Another
image under a known UID is an error at the source, and neither of the two may silently replace the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.pixels.utils import iter_pixels
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from pydicom.valuerep import DSdecimal, DSfloat

from dicom_node.base.types import Verdict
from dicom_node.intake.identity import IDENTIFYING, PARSE_ERRORS, issuer_digest
from prima_core.base.patient import patient_key, same_patient

MAX_FRAME_BYTES = 1 << 28
MAX_TOTAL_BYTES = 1 << 34

#: What tells studies and series apart for people and for the model: another value with equal pixels is a correction.
LABELS = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
)

#: What the pixels mean in space and among their series. Bit depth is left out: the decoded values are compared.
MEANING = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "FrameOfReferenceUID",
    "RescaleSlope",
    "RescaleIntercept",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "EchoNumbers",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "DiffusionBValue",
    "DimensionIndexSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)

#: Differ between encodings of one object (character set, lossless compression) or between its labels.
NOT_CONTENT = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        *LABELS,
        "SpecificCharacterSet",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
    )
)


def compare(existing: Path, other: Path) -> Verdict:
    """Judge two spool files that share a SOP Instance UID.

    Duplicate: equal decoded pixels, geometry and labels, in whatever transfer syntax. Correction: equal pixels and
    geometry under another patient, study, series or description. Quarantined: anything else, what cannot be decoded
    included. Raises OSError when a file cannot be read, MemoryError.
    """
    try:
        first, second = _read(existing), _read(other)
        if not _same_content(first, second, existing, other):
            return Verdict.QUARANTINED
        same = _labels(first) == _labels(second) and _same_patient(existing, other)
    except OSError as error:
        if error.errno is not None:
            raise
        return Verdict.QUARANTINED  # pydicom's own, about what the file holds
    except PARSE_ERRORS:
        return Verdict.QUARANTINED
    return Verdict.DUPLICATE if same else Verdict.CORRECTION


def _read(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True)


def _same_patient(existing: Path, other: Path) -> bool:
    # A fresh reading: the keys are made from elements that nobody has converted yet.
    one, two = (dcmread(path, stop_before_pixels=True, specific_tags=list(IDENTIFYING)) for path in (existing, other))
    issuers = {issuer_digest(one), issuer_digest(two)} - {""}
    return len(issuers) < 2 and same_patient(patient_key(one), patient_key(two))


def _labels(dataset: Dataset) -> list[Any]:
    return [_plain_attribute(dataset, keyword) for keyword in LABELS]


def _same_content(first: Dataset, second: Dataset, existing: Path, other: Path) -> bool:
    if "Rows" not in first and "Rows" not in second:
        return _plain_item(first, lambda tag: tag not in NOT_CONTENT) == _plain_item(
            second, lambda tag: tag not in NOT_CONTENT
        )
    return _meaning(first) == _meaning(second) and _same_pixels(first, second, existing, other)


def _meaning(dataset: Dataset) -> list[Any]:
    values = [_plain_attribute(dataset, keyword) for keyword in MEANING]
    # Compression changes the colour model of colour images, never which end of a grey scale is white.
    grey = dataset.get("SamplesPerPixel", 1) == 1
    return [*values, _plain_attribute(dataset, "PhotometricInterpretation") if grey else None]


def _same_pixels(first: Dataset, second: Dataset, existing: Path, other: Path) -> bool:
    frames = zip_longest(_frames(first, existing), _frames(second, other))
    return all(a is not None and b is not None and np.array_equal(a, b) for a, b in frames)


def _frames(dataset: Dataset, path: Path) -> Iterator[npt.NDArray[Any]]:
    frame_bytes = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * max(1, dataset.BitsAllocated // 8)
    if frame_bytes > MAX_FRAME_BYTES or frame_bytes * int(dataset.get("NumberOfFrames") or 1) > MAX_TOTAL_BYTES:
        raise ValueError("image is too large to be compared")
    # From a path one frame at a time is read; pydicom cannot do that inside a deflated data set.
    deflated = dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    # pylibjpeg-rle panics on damaged streams in a way that no `except Exception` catches.
    plugin = "pydicom" if dataset.file_meta.TransferSyntaxUID == RLELossless else ""
    return iter_pixels(dcmread(path) if deflated else path, raw=True, decoding_plugin=plugin)


def _plain_attribute(dataset: Dataset, keyword: str) -> Any:
    return _plain(dataset[keyword]) if keyword in dataset else None


def _plain_item(item: Dataset, wanted: Callable[[int], bool] = lambda _tag: True) -> dict[int, Any]:
    """Public elements with a value, in a form that does not depend on the encoding."""
    tags = [int(tag) for tag in item.keys() if not tag.is_private and tag.element != 0]  # noqa: SIM118 - a Dataset
    plain = {tag: _plain(item[tag]) for tag in tags if wanted(tag) and not _ambiguous(tag)}
    return {tag: value for tag, value in plain.items() if value is not None}


def _ambiguous(tag: int) -> bool:
    # "US or SS" and the like stay undecoded in implicit VR.
    return dictionary_has_tag(tag) and " or " in dictionary_VR(tag)


def _plain(element: DataElement) -> Any:
    value = element.value
    if isinstance(value, Sequence):
        return [_plain_item(item) for item in value] or None
    values = value if element.VM > 1 else [value]
    plain = [_plain_value(single) for single in values]
    return plain if any(single not in (None, "", b"") for single in plain) else None


def _plain_value(value: Any) -> Any:
    if isinstance(value, DSfloat | DSdecimal | float):
        return float(value)
    if isinstance(value, int | bytes) or value is None:
        return value
    return str(value).strip()
