"""Siemens mosaic: one image that holds all slices of a volume as tiles, row by row in a square grid.

The grid is the smallest square that holds the slices. Image Position is that of the whole sheet as if it were one slice
around the same centre, so the first slice lies half the surplus further in. Tiles follow the slice normal of the CSA
header, which may point against the cross product of rows and columns: without it the order of the slices is a guess,
and the image is refused. (Layout of the CSA header: https://nipy.org/nibabel/dicom/siemens_csa.html)
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from prima_core.volume.attributes import Attributes
from prima_core.volume.faults import MALFORMED

_MOST_ELEMENTS = 1000


@dataclass(frozen=True)
class Mosaic:
    """Tiles a side, number of slices, and the slice normal in patient coordinates."""

    grid: int
    slices: int
    normal: tuple[float, float, float]


def read_mosaic(attributes: Attributes) -> Mosaic | str:
    """The mosaic's layout, or the reason why it cannot be unpacked exactly."""
    csa_tag = attributes.private(0x0029, "SIEMENS CSA HEADER", 0x10)
    elements = csa_elements(attributes.raw(csa_tag)) if csa_tag else {}
    count_tag = attributes.private(0x0019, "SIEMENS MR HEADER", 0x0A)
    count = attributes.integer(count_tag) if count_tag else None
    if count is None and elements.get("NumberOfImagesInMosaic"):
        count = int(elements["NumberOfImagesInMosaic"][0])
    if count is None or not 1 <= count <= 4096:
        return "Siemens mosaic without the number of its slices"
    normal = elements.get("SliceNormalVector", ())
    if len(normal) != 3 or not math.isclose(np.linalg.norm(normal), 1, abs_tol=1e-2):
        return "Siemens mosaic without a slice normal: the order of its slices is not known"
    return Mosaic(math.ceil(math.sqrt(count)), count, (normal[0], normal[1], normal[2]))


def csa_elements(header: bytes) -> dict[str, tuple[float, ...]]:
    """Numeric elements of a CSA header ("SV10" and the older form); empty when it is malformed."""
    try:
        return _parse_csa(header)
    except MALFORMED:
        return {}


def _parse_csa(header: bytes) -> dict[str, tuple[float, ...]]:
    at = 8 if header.startswith(b"SV10") else 0
    (count,) = struct.unpack_from("<I", header, at)
    at += 8
    elements: dict[str, tuple[float, ...]] = {}
    first_items = None
    for _ in range(min(count, _MOST_ELEMENTS)):
        name, items = struct.unpack_from("<64s12xI4x", header, at)
        first_items = items if first_items is None else first_items
        at += 84
        values = []
        for _ in range(min(items, _MOST_ELEMENTS)):
            first, second = struct.unpack_from("<II8x", header, at)
            length = second if header.startswith(b"SV10") else max(first - first_items, 0)
            at += 16
            values.append(header[at : at + length].split(b"\0")[0].strip())
            at += (length + 3) // 4 * 4
        elements[name.split(b"\0")[0].decode("ascii", "replace")] = _numbers(values)
    return elements


def _numbers(values: list[bytes]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values if value)
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
