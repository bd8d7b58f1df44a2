"""What one plane of pixels is: where it lies, how its values scale, and which contrast it shows.

Classic images hold one plane, enhanced multi-frame images one a frame (per-frame functional groups before shared ones,
PS3.3 C.7.6.16), Siemens mosaics one a tile. All three end as `Frame`s, so that nothing further on needs to know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from prima_core.volume.attributes import Attributes
from prima_core.volume.siemens_mosaic import Mosaic

Triple = tuple[float, float, float]

_COMPONENT = re.compile(r"^(M|P|R|I)(?:_.*)?$")
_COMPONENTS = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}
_COMPONENT_WORDS = {"MAGNITUDE": "magnitude", "PHASE": "phase", "REAL": "real", "IMAGINARY": "imaginary"}
_COMPONENT_WORDS |= {"PHASE MAP": "phase"}
_GE_COMPONENTS = {0: "magnitude", 1: "phase", 2: "real", 3: "imaginary"}
_SEQUENCE_NAME_B_VALUE = re.compile(r"ep_b(\d+)(t?)", re.IGNORECASE)  # Siemens: *ep_b1000t, t for trace
_VENDOR_B_VALUES = (
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x2001, "Philips Imaging DD 001", 0x03),
    (0x0043, "GEMS_PARM_01", 0x39),
)
_ISOTROPIC = frozenset({"TRACEW", "TRACE", "ISO", "ISOTROPIC"})
_COSINE_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Frame:
    """One plane. Lengths in mm, times in ms; None where the file does not say or says nonsense.

    index: frame within the image's pixel data; tile: tile within a mosaic of `grid` × `grid` tiles.
    orientation: direction cosines of a row, then of a column. spacing: between rows, between columns.
    b_value in s/mm². time: acquisition date and time as text, only for ordering.
    """

    index: int
    rows: int
    columns: int
    position: Triple | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    slope: float | None
    intercept: float | None
    image_type: tuple[str, ...]
    component: str
    echo_number: int | None
    echo_time: float | None
    inversion_time: float | None
    flip_angle: float | None
    b_value: float | None
    isotropic: bool
    temporal_position: int | None
    stack: str
    acquisition: int | None
    frame_of_reference: str
    time: str
    trigger_time: float | None
    tile: int = 0
    grid: int = 1


def classic_frame(image: Attributes) -> Frame:
    """The only frame of a single-frame image, whose attributes lie flat."""
    image_type = _image_type(image, "ImageType")
    b_value, isotropic = _diffusion(image, image_type)
    return Frame(
        index=0,
        rows=image.integer("Rows") or 0,
        columns=image.integer("Columns") or 0,
        position=_position(image),
        orientation=_orientation(image),
        spacing=_spacing(image),
        slope=image.number("RescaleSlope", missing=1.0),
        intercept=image.number("RescaleIntercept", missing=0.0),
        image_type=image_type,
        component=_component(image, image_type) or _ge_component(image) or "magnitude",
        echo_number=image.integer("EchoNumbers"),
        echo_time=image.number("EchoTime"),
        inversion_time=image.number("InversionTime"),
        flip_angle=image.number("FlipAngle"),
        b_value=_vendor_b_value(image) if b_value is None else b_value,
        isotropic=isotropic,
        temporal_position=image.integer("TemporalPositionIdentifier"),
        stack=image.text("StackID"),
        acquisition=image.integer("AcquisitionNumber"),
        frame_of_reference=image.text("FrameOfReferenceUID"),
        time=image.text("AcquisitionDateTime") or image.text("AcquisitionDate") + image.text("AcquisitionTime"),
        trigger_time=image.number("TriggerTime"),
    )


def enhanced_frames(image: Attributes) -> tuple[Frame, ...]:
    """The frames of an enhanced multi-frame image, in pixel-data order."""
    whole = classic_frame(image)
    shared = image.item("SharedFunctionalGroupsSequence")
    of_all: dict[str, Attributes] = {}

    def macro(own: Attributes, keyword: str) -> Attributes:
        """A functional group macro of the frame itself, else the shared one, which is looked up once."""
        if found := own.item(keyword):
            return found
        if keyword not in of_all:
            of_all[keyword] = shared.item(keyword)
        return of_all[keyword]

    frames = image.items("PerFrameFunctionalGroupsSequence")
    return tuple(_enhanced_frame(index, whole, partial(macro, own)) for index, own in enumerate(frames))


def _enhanced_frame(index: int, whole: Frame, macro: Callable[[str], Attributes]) -> Frame:
    """One frame of an enhanced image; `whole` is what the image says of all its frames outside functional groups."""
    frame_type, content = macro("MRImageFrameTypeSequence"), macro("FrameContentSequence")
    scaling, diffusion = macro("PixelValueTransformationSequence"), macro("MRDiffusionSequence")
    image_type = _image_type(frame_type, "FrameType") or whole.image_type
    b_value, isotropic = _diffusion(diffusion, image_type)
    return replace(
        whole,
        index=index,
        position=_position(macro("PlanePositionSequence")),
        orientation=_orientation(macro("PlaneOrientationSequence")),
        spacing=_spacing(macro("PixelMeasuresSequence")),
        slope=scaling.number("RescaleSlope", missing=1.0),
        intercept=scaling.number("RescaleIntercept", missing=0.0),
        image_type=image_type,
        component=_component(frame_type, image_type) or whole.component,
        echo_time=macro("MREchoSequence").number("EffectiveEchoTime"),
        inversion_time=macro("MRModifierSequence").number("InversionTimes"),
        flip_angle=macro("MRTimingAndRelatedParametersSequence").number("FlipAngle"),
        b_value=whole.b_value if b_value is None else b_value,
        isotropic=isotropic,
        temporal_position=content.integer("TemporalPositionIndex"),
        stack=content.text("StackID"),
        acquisition=content.integer("FrameAcquisitionNumber"),
        time=content.text("FrameAcquisitionDateTime"),
        trigger_time=macro("CardiacSynchronizationSequence").number("NominalCardiacTriggerDelayTime"),
    )


def mosaic_frames(sheet: Frame, mosaic: Mosaic, gap: float | None) -> tuple[Frame, ...] | str:
    """The tiles of a mosaic as frames, or why they cannot be placed. `gap` is Spacing Between Slices in mm."""
    if sheet.rows % mosaic.grid or sheet.columns % mosaic.grid:
        return "Siemens mosaic whose size is no multiple of its grid"
    if sheet.position is None or sheet.orientation is None or sheet.spacing is None or not gap or gap <= 0:
        return "Siemens mosaic without position, orientation or slice spacing"
    row, column = np.reshape(sheet.orientation, (2, 3))
    cross, normal = np.cross(row, column), np.asarray(mosaic.normal)
    if abs(cross @ normal) < 1 - _COSINE_TOLERANCE:
        return "Siemens mosaic whose slice normal contradicts its orientation"
    step = gap * np.sign(cross @ normal) * cross
    rows, columns = sheet.rows // mosaic.grid, sheet.columns // mosaic.grid
    first = (
        np.asarray(sheet.position)
        + row * sheet.spacing[1] * (sheet.columns - columns) / 2
        + column * sheet.spacing[0] * (sheet.rows - rows) / 2
    )
    return tuple(
        replace(sheet, rows=rows, columns=columns, position=_triple(first + k * step), tile=k, grid=mosaic.grid)
        for k in range(mosaic.slices)
    )


def _position(plane: Attributes) -> Triple | None:
    values = plane.numbers("ImagePositionPatient", 3)
    return None if values is None or max(map(abs, values)) > 1e5 else (values[0], values[1], values[2])


def _orientation(plane: Attributes) -> tuple[float, ...] | None:
    values = plane.numbers("ImageOrientationPatient", 6)
    if values is None:
        return None
    row, column = np.reshape(values, (2, 3))
    flaws = abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)
    return values if max(flaws) < _COSINE_TOLERANCE else None


def _spacing(measures: Attributes) -> tuple[float, float] | None:
    values = measures.numbers("PixelSpacing", 2)
    return None if values is None or min(values) <= 0 or max(values) > 1e3 else (values[0], values[1])


def _image_type(attributes: Attributes, keyword: str) -> tuple[str, ...]:
    return tuple(value.upper() for value in attributes.texts(keyword))


def _component(attributes: Attributes, image_type: tuple[str, ...]) -> str | None:
    """Magnitude, phase, real or imaginary: as declared, else by the later values of Image Type."""
    declared = attributes.text("ComplexImageComponent").upper()
    for value in (declared, *image_type[2:]):
        if value in _COMPONENT_WORDS:
            return _COMPONENT_WORDS[value]
        if match := _COMPONENT.match(value):
            return _COMPONENTS[match[1]]
    return None


def _ge_component(image: Attributes) -> str | None:
    tag = image.private(0x0043, "GEMS_PARM_01", 0x2F)
    number = image.integer(tag) if tag else None
    return None if number is None else _GE_COMPONENTS.get(number)


def _diffusion(attributes: Attributes, image_type: tuple[str, ...]) -> tuple[float | None, bool]:
    """b-value, and whether the image is free of direction (trace), from standard attributes and the sequence's name."""
    b_value = attributes.number("DiffusionBValue")
    isotropic = attributes.text("DiffusionDirectionality").upper() == "ISOTROPIC"
    isotropic = isotropic or not _ISOTROPIC.isdisjoint(image_type)
    if match := _SEQUENCE_NAME_B_VALUE.search(attributes.text("SequenceName")):
        b_value = float(match[1]) if b_value is None else b_value
        isotropic = isotropic or bool(match[2])
    return b_value, isotropic


def _vendor_b_value(image: Attributes) -> float | None:
    for group, creator, element in _VENDOR_B_VALUES:
        if tag := image.private(group, creator, element):
            value = image.number(tag)
            # GE adds a multiple of 10⁹ as a flag.
            return None if value is None else value % 1e5
    return None


def _triple(vector: npt.NDArray[np.float64]) -> Triple:
    return float(vector[0]), float(vector[1]), float(vector[2])
