"""Slices of one volume → the array that the model reads: 256 × 256 in the slice plane, oriented to LPS.

The direction matrix and the slice distance are computed as ITK computes them for a DICOM series, to the last bit:
`SimpleITK.Resample` cuts interpolated integers instead of rounding them, so that an ulp in the geometry shows as a unit
in the voxels. For the same reason the arithmetic starts at the end of the stack that the scanner numbered first; in
exact arithmetic, after reorientation, the other end would give the same volume.
"""

# SimpleITK's wrapper carries no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from prima_core.base.errors import UnusableSeries
from prima_core.volume.frames import Frame
from prima_core.volume.pixels import PixelElement, decode_frames
from prima_core.volume.series import Slice, SliceStack

IN_PLANE = 256
MOST_VOXELS = 1 << 28  # 1024 × 1024 × 256
MOST_SLICES = 1024
_GREATEST_VALUE = 1 << 24  # beyond it float32, which the patches are, no longer tells whole numbers apart
_Vector = npt.NDArray[np.float64]

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings would go to the standard error, unasked


@dataclass(frozen=True)
class Volume:
    """voxels: (z, y, x) ascending to superior, posterior, left. thin_axis: 0, 1 or 2, the acquisition's slice axis.

    slices: those of the stack, in the order of the voxels along that axis; none where no DICOM file is behind them.
    affine: (4, 4), voxel (z, y, x) → patient (x, y, z) in LPS millimetres (PS3.3 C.7.6.2.1.1).
    """

    voxels: npt.NDArray[Any]
    thin_axis: int
    slices: tuple[Slice, ...]
    affine: npt.NDArray[np.float64]


def read_volume(stack: SliceStack) -> Volume:
    """Decode, rescale, resample and reorient the slices. Raises UnusableSeries when the content is no image."""
    slices = stack.slices
    if slices[0].number > slices[-1].number:
        slices = slices[::-1]
    return to_volume(_rescaled_voxels(slices), _placement(slices[0].frame, slices[-1].frame), slices)


def read_slice(plane: Slice) -> npt.NDArray[np.float64]:
    """(rows, columns) of one plane as the scanner made it: decoded, and rescaled to the series' values."""
    [stored] = decode_frames(_pixels(plane), [plane.frame.index])
    slope, intercept = plane.frame.slope or 1.0, plane.frame.intercept or 0.0
    return _tile(stored, plane).astype(np.float64) * slope + intercept


def as_image(voxels: npt.NDArray[Any], slices: Sequence[Slice]) -> sitk.Image:
    """Values (slices, rows, columns) as an image that lies where these slices do, in the order of their stack."""
    image = sitk.GetImageFromArray(voxels)
    _place(image, _placement(slices[0].frame, slices[-1].frame))
    return image


@dataclass(frozen=True)
class Placement:
    """Where a stack of slices lies, in DICOM's terms (PS3.3 C.7.6.2.1.1).

    first, last: Image Position (Patient) of the first and the last slice. spacing: of rows, then of columns, in mm.
    """

    first: Sequence[float]
    last: Sequence[float]
    orientation: Sequence[float]
    spacing: tuple[float, float]


def to_volume(voxels: npt.NDArray[Any], place: Placement, slices: tuple[Slice, ...] = ()) -> Volume:
    """A stack (slices, rows, columns) as the model reads it. slices: those that it was decoded from, if any."""
    image = sitk.GetImageFromArray(voxels)
    del voxels  # a copy was made, and callers hand over their only one: large volumes need the room
    _place(image, place)
    return resampled_to_lps(image, slices)


def resampled_to_lps(image: sitk.Image, slices: tuple[Slice, ...] = ()) -> Volume:
    """Resample in-plane and reorient an image whose third axis is the slice axis. slices: in the image's order."""
    resampled = _resampled(image)
    order, flips = _to_lps(resampled.GetDirection())
    # ITK counts axes x, y, z, the array z, y, x; the slice axis was ITK's third.
    axis = order.index(2)
    voxels = sitk.GetArrayViewFromImage(resampled).transpose([2 - of for of in order[::-1]])
    # Copied in any case: the view is of memory that goes with the image.
    voxels = np.array(voxels[tuple(slice(None, None, -1 if flip else 1) for flip in flips[::-1])], order="C")
    return Volume(voxels, 2 - axis, slices[::-1] if flips[axis] else slices, _affine(resampled, order, flips))


def _to_lps(direction: Sequence[float]) -> tuple[list[int], list[bool]]:
    """Which of an image's axes become x, y and z of LPS, and which of those are then flipped, as ITK decides it."""
    cube = sitk.Image(1, 1, 1, sitk.sitkUInt8)  # the decision is the direction's alone; numpy turns the voxels faster
    cube.SetDirection(direction)
    orient = sitk.DICOMOrientImageFilter()
    orient.SetDesiredCoordinateOrientation("LPS")
    orient.Execute(cube)
    return list(orient.GetPermuteOrder()), list(orient.GetFlipAxes())


def _affine(image: sitk.Image, order: list[int], flips: list[bool]) -> npt.NDArray[np.float64]:
    """(4, 4), voxel (z, y, x) → patient (x, y, z) in millimetres, with the axes in this order, flipped where said."""
    steps = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, order]
    corner = [0, 0, 0]
    for axis, flip in zip(order, flips, strict=True):
        corner[axis] = image.GetSize()[axis] - 1 if flip else 0
    affine = np.eye(4)
    affine[:3, :3] = (steps * np.where(flips, -1.0, 1.0))[:, ::-1]
    affine[:3, 3] = image.TransformIndexToPhysicalPoint(corner)
    return affine


def _rescaled_voxels(slices: tuple[Slice, ...]) -> npt.NDArray[Any]:
    """(slices, rows, columns) after rescale; integer where every slope and intercept is."""
    frame = slices[0].frame
    shape = len(slices), frame.rows, frame.columns
    if len(slices) > MOST_SLICES or len(slices) * max(frame.rows * frame.columns, IN_PLANE**2) > MOST_VOXELS:
        raise UnusableSeries("the volume is larger than any the node reads")
    dtype = _pixel_type(slices)
    voxels = np.empty(shape, dtype)
    for position, plane, stored in _decoded(slices):
        slope, intercept = plane.frame.slope or 1.0, plane.frame.intercept or 0.0
        if slope == 1 and intercept == 0:
            voxels[position] = stored
        else:
            with np.errstate(over="ignore"):  # infinite values are refused below
                voxels[position] = stored.astype(np.float64) * slope + intercept
    check_values(voxels)
    return voxels


def check_values(voxels: npt.NDArray[Any]) -> None:
    """Raises UnusableSeries when the values are those of no image."""
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise UnusableSeries("the image holds values that are no numbers")
    low, high = voxels.min(), voxels.max()
    if low < -_GREATEST_VALUE or high > _GREATEST_VALUE:
        raise UnusableSeries("the rescaled values are greater than those of any image")
    if low == high:
        raise UnusableSeries("the image is constant")


def _decoded(slices: tuple[Slice, ...]) -> Iterator[tuple[int, Slice, npt.NDArray[Any]]]:
    """Position in the stack, slice and stored values; each file is opened once and read in its own order."""
    by_image = sorted(enumerate(slices), key=lambda entry: (str(entry[1].image.path), entry[1].number))
    for _, entries in groupby(by_image, key=lambda entry: entry[1].image.path):
        of_frame = {index: list(group) for index, group in groupby(entries, key=lambda entry: entry[1].frame.index)}
        pixels = _pixels(next(iter(of_frame.values()))[0][1])
        for planes, stored in zip(of_frame.values(), decode_frames(pixels, list(of_frame)), strict=True):
            for position, plane in planes:
                yield position, plane, _tile(stored, plane)


def _tile(stored: npt.NDArray[Any], plane: Slice) -> npt.NDArray[Any]:
    """The slice's own part of a mosaic; the whole frame otherwise."""
    frame = plane.frame
    y, x = divmod(frame.tile, frame.grid)
    return stored[y * frame.rows : (y + 1) * frame.rows, x * frame.columns : (x + 1) * frame.columns]


def _pixel_type(slices: tuple[Slice, ...]) -> np.dtype[Any]:
    """The smallest signed integer that holds all values the headers allow, or float32 where rescale is fractional."""
    low, high = 0.0, 0.0
    for plane in slices:
        slope, intercept = plane.frame.slope or 1.0, plane.frame.intercept or 0.0
        if slope != int(slope) or intercept != int(intercept):
            return np.dtype(np.float32)
        ends = [slope * value + intercept for value in _pixels(plane).stored_range]
        low, high = min(low, *ends), max(high, *ends)
    for candidate in (np.int16, np.int32):
        if np.iinfo(candidate).min <= low and high <= np.iinfo(candidate).max:
            return np.dtype(candidate)
    return np.dtype(np.float32)


def _pixels(plane: Slice) -> PixelElement:
    if plane.image.pixels is None:
        raise UnusableSeries("no pixel data")
    return plane.image.pixels


def _placement(first: Frame, last: Frame) -> Placement:
    if first.position is None or last.position is None or first.orientation is None:
        raise UnusableSeries("nothing says where its slices lie")
    return Placement(first.position, last.position, first.orientation, first.spacing or (1.0, 1.0))


def _place(image: sitk.Image, place: Placement) -> None:
    """Set origin, spacing and direction of the stack in patient coordinates."""
    first, last = np.array(place.first), np.array(place.last)
    step = last - first
    row, column, normal = _orthogonal(np.array(place.orientation))
    toward = normal if step @ normal > 0 else -normal
    rows, columns = place.spacing
    image.SetOrigin(first.tolist())
    image.SetSpacing((columns, rows, _length(step) / (image.GetDepth() - 1)))
    image.SetDirection(np.stack([row, column, toward], axis=1).ravel().tolist())


def _orthogonal(orientation: _Vector) -> tuple[_Vector, _Vector, _Vector]:
    """Exactly perpendicular unit vectors of row, column and normal, in ITK's order of operations."""
    row, column = orientation[:3], orientation[3:]
    normal = _unit(np.cross(row, column))
    row = _unit(np.cross(column, normal))
    return row, np.cross(normal, row), normal


def _unit(vector: _Vector) -> _Vector:
    # Times the reciprocal, not divided: ITK's last bit.
    return vector * (1 / _length(vector))


def _length(vector: _Vector) -> float:
    # Not numpy's norm, which sums in another order.
    return math.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2])


def _resampled(image: sitk.Image) -> sitk.Image:
    """The same volume on 256 × 256 pixels a slice: origin, direction and slices stay, linear interpolation."""
    columns, rows, slices = image.GetSize()
    across, down, between = image.GetSpacing()
    return sitk.Resample(
        image,
        (IN_PLANE, IN_PLANE, slices),
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        (columns * across / IN_PLANE, rows * down / IN_PLANE, between),
        image.GetDirection(),
        0.0,
        image.GetPixelID(),
    )
