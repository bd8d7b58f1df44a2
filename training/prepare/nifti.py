"""NIfTI volumes → prepared series, by the code that prepares DICOM series.

The model's voxels depend on where an image's rows start, because resampling does. NIfTI does not keep that: converters
turn rows and slices around at will. So the volume is first laid out as scanners lay out DICOM slices (rows to the left
or, in sagittal slices, to posterior; columns to posterior or inferior), by its affine (RAS+, NIfTI-1 section "3D image
orientation and location"), and then goes the way of every DICOM series.

What comes out are the patches of the DICOM series, in the same order. Voxels may differ from those by a unit or two of
the stored values: resampling cuts integers, and the file's affine is of single precision.
"""

# SimpleITK's wrapper carries no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import zlib
from gzip import BadGzipFile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError

from prima_core.base.errors import UnusableSeries
from prima_core.base.types import PreparedSeries
from prima_core.prepare import prepare_volume
from prima_core.volume.geometry import IN_PLANE, MOST_SLICES, MOST_VOXELS, Volume, check_values, resampled_to_lps
from prima_core.volume.series import FIELD_OF_VIEW_MM, LEAST_SLICES, SLICE_DISTANCE_MM, SMALLEST_SIDE

SUFFIXES = (".nii.gz", ".nii")
# Slice axis in (right-left, posterior-anterior, superior-inferior) by the name of the plane.
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
_CLEARLY_COARSER = 1.2
_MOST_STORED = MOST_VOXELS // 4  # its values may be of eight bytes
MALFORMED = (
    ImageFileError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    ArithmeticError,
    EOFError,
    zlib.error,
    BadGzipFile,
)
_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
# (rows' axis, columns' axis, slices' axis) among the patient's x, y, z, and their directions in LPS, by slice axis.
_LAYOUT = {
    0: ((1, 2, 0), (1, -1, 1)),
    1: ((0, 2, 1), (1, -1, 1)),
    2: ((0, 1, 2), (1, 1, 1)),
}


def prepare_nifti(path: Path, identifier: str, name: str, max_kept_tokens: int, plane: str = "") -> PreparedSeries:
    """A 3-D NIfTI file as its kept patches. Raises UnusableSeries with the reason.

    identifier: stands where a Series Instance UID would. name: as `prima_core.names.series_name` gives it.
    plane: axial, sagittal or coronal where it is known; else it is read off the header.
    """
    try:
        image = load(path)
        affine = np.array(image.affine, np.float64)
        axis = slice_axis(image.header, affine, plane)
        voxels = _values(np.asanyarray(image.dataobj).reshape(image.shape[:3]))
    except MALFORMED as error:
        raise UnusableSeries(f"not a readable NIfTI volume ({type(error).__name__})") from error
    return prepare_volume(_volume(voxels, affine, axis), identifier, name, max_kept_tokens)


def load(path: Path) -> Any:
    """A NIfTI file of one volume, its values not yet read. Raises UnusableSeries, or one of MALFORMED."""
    image: Any = nibabel.load(path)
    shape = image.shape
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        raise UnusableSeries(f"a NIfTI file of {len(shape)} dimensions holds more or less than one volume")
    if math.prod(shape[:3]) > _MOST_STORED:
        raise UnusableSeries("the volume is larger than any the node reads")
    return image


def slice_axis(header: Any, affine: npt.NDArray[np.float64], plane: str = "") -> int:
    """Which voxel axis (0, 1, 2) the slices are stacked on.

    By the plane's name, else by the header's dim_info, else the axis with clearly the largest steps, else the third.
    """
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise UnusableSeries("the affine places no volume")
    directions, steps = _directions(affine)
    if plane in PLANES:
        return _closest(directions).index(PLANES[plane])
    declared = header.get_dim_info()[2] if hasattr(header, "get_dim_info") else None
    if declared is not None:
        return int(declared)
    order = np.argsort(steps)
    return int(order[2]) if steps[order[2]] > _CLEARLY_COARSER * steps[order[1]] else 2


def _volume(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64], axis: int) -> Volume:
    """Lay out as DICOM slices, then resample and reorient as those are."""
    lps = np.vstack([_FROM_RAS @ affine[:3], [0, 0, 0, 1]])
    directions, steps = _directions(lps)
    patient_axis = _closest(directions)
    wanted, signs = _LAYOUT[patient_axis[axis]]
    order = [patient_axis.index(one) for one in wanted]
    origin = lps[:3, 3].copy()
    columns, spacing = [], []
    for source, patient, sign in zip(order, wanted, signs, strict=True):
        direction = directions[:, source]
        if direction[patient] * sign < 0:
            voxels = np.flip(voxels, source)
            origin += direction * steps[source] * (voxels.shape[source] - 1)
            direction = -direction
        columns.append(direction)
        spacing.append(float(steps[source]))
    stacked = np.ascontiguousarray(voxels.transpose(order[::-1]))
    _check_geometry(stacked.shape, spacing)
    check_values(stacked)
    image = sitk.GetImageFromArray(stacked)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing)
    image.SetDirection(np.stack(columns, axis=1).ravel().tolist())
    return resampled_to_lps(image)


def _directions(affine: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Unit vectors of the voxel axes as columns, made exactly perpendicular, and the steps along them."""
    steps = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    # The nearest rotation: affines in files are of single precision.
    left, _, right = np.linalg.svd(affine[:3, :3] / steps)
    directions = left @ right
    if np.abs(directions - affine[:3, :3] / steps).max() > 0.01:
        raise UnusableSeries("the affine shears the volume")
    return directions, steps


def _closest(directions: npt.NDArray[np.float64]) -> list[int]:
    """For each voxel axis the patient axis that it runs along, each once."""
    left = {0, 1, 2}
    found: dict[int, int] = {}
    for flat in np.argsort(-np.abs(directions), axis=None):
        patient, axis = divmod(int(flat), 3)
        if axis not in found and patient in left:
            found[axis] = patient
            left.discard(patient)
    return [found[axis] for axis in range(3)]


def _values(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers where all values are: resampling cuts integers, and a scanner's values are integers."""
    if values.dtype.kind not in "iuf":
        raise UnusableSeries("the values are no grey values")
    if not np.isfinite(values).all():
        raise UnusableSeries("the image holds values that are no numbers")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if values.dtype.kind != "f" or (values == np.round(values)).all():
        for candidate in (np.int16, np.int32):
            if np.iinfo(candidate).min <= low and high <= np.iinfo(candidate).max:
                return values.astype(candidate)
    return values.astype(np.float32)


def _check_geometry(shape: tuple[int, ...], spacing: list[float]) -> None:
    """As `prima_core.volume.series` does it for DICOM slices."""
    slices, rows, columns = shape
    if not LEAST_SLICES <= slices <= MOST_SLICES or slices * max(rows * columns, IN_PLANE**2) > MOST_VOXELS:
        raise UnusableSeries(f"{slices} slices are too few or too many")
    if min(rows, columns) < SMALLEST_SIDE:
        raise UnusableSeries(f"an image has fewer than {SMALLEST_SIDE} rows or columns")
    fields = columns * spacing[0], rows * spacing[1]
    if min(fields) < FIELD_OF_VIEW_MM[0] or max(fields) > FIELD_OF_VIEW_MM[1]:
        raise UnusableSeries("the voxel size gives a field of view that is not that of a head")
    if not SLICE_DISTANCE_MM[0] <= spacing[2] <= SLICE_DISTANCE_MM[1]:
        raise UnusableSeries("the distance between slices is not that of a scan of the head")
