"""A head → one acquired series: oriented slices with a profile, coil shading, motion, wraparound and Rician noise.

Slices are tilted about the patient's left–right axis only, as brain scans are; so sampling is one sparse matrix over
(y, z) and one over x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.phantom import signal
from training.phantom.types import Acquisition, Head, Map, SeriesPlan

CENTRE_MM = (0.0, 12.0, 4.0)  # of the stack: between the ears
SUBSLICES = 3
AROUND_MM = 10.0  # how far "surrounding" tissue reaches, for contrast-to-noise
AIR_NOISE = 16.0  # stored units: vendors filter what is louder, and the model takes 50 and more for head
STEP = 2  # contrast-to-noise is measured on every other row and column

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """The slices of a plan. rows_along, columns_along: the direction of a row and of a column, in DICOM's order.

    centre: LPS mm of the middle of the stack. normal: from the first slice to the last.
    """

    plan: SeriesPlan
    rows_along: Vector
    columns_along: Vector
    centre: Vector

    @property
    def normal(self) -> Vector:
        return np.asarray(np.cross(self.rows_along, self.columns_along))

    @property
    def slice_offsets(self) -> Vector:
        """mm from the centre along the normal."""
        return np.asarray((np.arange(self.plan.slices) - (self.plan.slices - 1) / 2) * self.plan.spacing_mm)

    @property
    def pixel_offsets(self) -> Vector:
        """mm from the centre of the image along either direction."""
        return np.asarray((np.arange(self.plan.matrix) - (self.plan.matrix - 1) / 2) * self.plan.pixel_mm)

    @property
    def positions(self) -> Vector:
        """(slices, 3): Image Position (Patient) of each slice (PS3.3 C.7.6.2.1.1)."""
        corner = self.centre + self.pixel_offsets[0] * (self.rows_along + self.columns_along)
        return np.asarray(corner + self.slice_offsets[:, None] * self.normal)


def geometry(plan: SeriesPlan) -> Geometry:
    """Where the plan's slices lie. Raises KeyError for a plane that is not one of PLANES."""
    angle = math.radians(plan.tilt_degrees)
    back, up = np.array([0, math.cos(angle), math.sin(angle)]), np.array([0, -math.sin(angle), math.cos(angle)])
    left = np.array([1.0, 0, 0])
    rows, columns = {"axial": (left, back), "coronal": (left, -up), "sagittal": (back, -up)}[plan.plane]
    return Geometry(plan, rows, columns, np.array(CENTRE_MM))


def acquire(head: Head, plan: SeriesPlan, generator: np.random.Generator) -> Acquisition:
    """Scan a head. The same generator state gives the same voxels."""
    place = geometry(plan)
    weights = _weights(head, place)
    scale = 1.0 if plan.sequence == "ADC" else signal.stored_scale(plan)
    clean = scale * _sample(signal.image(plan, head), weights)
    contrast = _contrast_to_noise(head, place, clean)
    voxels = _adc_noise(clean, plan, generator) if plan.sequence == "ADC" else _received(clean, plan, generator)
    rows, columns = place.rows_along, place.columns_along
    return Acquisition(
        plan=plan,
        voxels=np.clip(np.rint(voxels), 0, 65535).astype(np.uint16),
        positions=place.positions,
        orientation=(*(float(v) for v in rows), *(float(v) for v in columns)),  # type: ignore[arg-type]
        contrast_to_noise=contrast,
    )


@dataclass(frozen=True)
class _Weights:
    """plane: sparse (samples in (y, z), voxels in (z, y)). across: (x, samples along x). sagittal: which is sliced."""

    plane: Any
    across: Map
    shape: tuple[int, int, int]
    sagittal: bool


def _weights(head: Head, place: Geometry) -> _Weights:
    plan = place.plan
    profile = ((np.arange(SUBSLICES) + 0.5) / SUBSLICES - 0.5) * plan.thickness_mm
    shape = (plan.slices, plan.matrix, plan.matrix)
    pixels = place.pixel_offsets
    if plan.plane == "sagittal":
        x = place.centre[0] + place.slice_offsets[:, None] * place.normal[0] + profile
        y, z = (
            place.centre[axis] + pixels[:, None] * place.columns_along[axis] + pixels * place.rows_along[axis]
            for axis in (1, 2)
        )
        plane = _bilinear(head, y.reshape(-1, 1), z.reshape(-1, 1))
        return _Weights(plane, _linear(head, x), shape, True)
    depths = place.slice_offsets[:, None, None] + profile
    y, z = (
        place.centre[axis] + depths * place.normal[axis] + pixels[:, None] * place.columns_along[axis]
        for axis in (1, 2)
    )
    plane = _bilinear(head, y.reshape(-1, SUBSLICES), z.reshape(-1, SUBSLICES))
    return _Weights(plane, _linear(head, place.centre[0] + pixels[:, None]), shape, False)


def _sample(values: Map, weights: _Weights) -> Map:
    depth, rows, columns = values.shape
    flat = values.reshape(depth * rows, columns)
    slices, height, width = weights.shape
    if weights.sagittal:
        found = weights.plane @ (flat @ weights.across)
        return np.ascontiguousarray(found.reshape(height, width, slices).transpose(2, 0, 1))
    return np.asarray((weights.plane @ flat) @ weights.across).reshape(weights.shape)


def _voxel(head: Head, axis: int, millimetres: Vector) -> Vector:
    return np.asarray((millimetres - head.affine[axis, 3]) / head.affine[axis, axis])


def _linear(head: Head, x: Vector) -> Map:
    """(x voxels, samples): the mean over each sample's points. Beyond the grid is air."""
    size = head.fluid.shape[2]
    weights = np.maximum(0, 1 - np.abs(_voxel(head, 0, x)[None] - np.arange(size)[:, None, None]))
    return np.asarray(weights.mean(axis=-1), np.float32)


def _bilinear(head: Head, y: Vector, z: Vector) -> Any:
    """Sparse (samples, z · y voxels): the mean over each sample's points."""
    depth, rows, _ = head.fluid.shape
    row, level = _voxel(head, 1, y), _voxel(head, 2, z)
    row_floor, level_floor = np.floor(row).astype(np.int32), np.floor(level).astype(np.int32)
    indices, weights = [], []
    for dy in (0, 1):
        for dz in (0, 1):
            i, k = row_floor + dy, level_floor + dz
            inside = (i >= 0) & (i < rows) & (k >= 0) & (k < depth)
            weights.append(np.where(inside, (1 - np.abs(row - i)) * (1 - np.abs(level - k)), 0) / y.shape[1])
            indices.append(np.where(inside, k * rows + i, 0))
    count = y.shape[0]
    columns = np.stack(indices, axis=-1).reshape(count, -1)
    data = np.stack(weights, axis=-1).reshape(count, -1).astype(np.float32)
    starts = np.arange(0, columns.size + 1, columns.shape[1], dtype=np.int32)
    return sparse.csr_matrix((data.ravel(), columns.ravel().astype(np.int32), starts), shape=(count, depth * rows))


def _received(clean: Map, plan: SeriesPlan, generator: np.random.Generator) -> Map:
    """What coil, patient and receiver make of the signal."""
    shaded = clean * _shading(clean.shape, plan.bias, generator)
    if plan.motion > 0:
        shaded = _ghosts(shaded, plan.motion, generator)
    if plan.wrap > 0:
        shaded = _wrapped(shaded, plan.wrap)
    sigma = np.float32(signal.noise_level(plan))
    # The magnitude of a complex signal with equal noise in both channels: Rician (Gudbjartsson, MRM 1995;34:910). To
    # draw the noise's length and direction is half the work of both channels: |s + n|² = s² + 2 s |n| cos + |n|².
    # Its squared length is exponential, −2 σ² log u; both come from plain integers, the fastest there are to draw.
    squared = generator.integers(2**32, size=clean.shape, dtype=np.uint32).astype(np.float32)
    squared += 0.5
    squared *= 2.0**-32
    np.log(squared, out=squared)
    squared *= -2 * sigma**2
    across = generator.integers(2**16, size=clean.shape, dtype=np.uint16).astype(np.float32)
    across *= np.float32(2 * math.pi / 2**16)
    np.cos(across, out=across)
    across *= np.sqrt(squared)
    across *= 2
    across += shaded
    across *= shaded
    squared += across
    magnitude = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)  # rounding may end just below 0
    if sigma > AIR_NOISE:
        magnitude[shaded < sigma] *= AIR_NOISE / sigma
    return np.asarray(magnitude, np.float32)


def _adc_noise(clean: Map, plan: SeriesPlan, generator: np.random.Generator) -> Map:
    """Both images' noise through the logarithm, in the head only: a map is empty where nothing is measured."""
    weighted, unweighted = (float(signal.brightness(plan, signal.WHITE, b)) for b in (signal.B_VALUE, 0.0))
    sigma = signal.ADC_SCALE * plan.noise / signal.B_VALUE * math.hypot(1, weighted / unweighted)
    noisy = clean + np.float32(sigma) * generator.standard_normal(clean.shape, dtype=np.float32)
    return np.where(clean > 30, np.maximum(noisy, 0), 0).astype(np.float32)


def _shading(shape: tuple[int, ...], bias: float, generator: np.random.Generator) -> Map:
    """A smooth product of one curve an axis, of mean about 1."""
    field = np.ones((1, 1, 1), np.float32)
    for axis, size in enumerate(shape):
        along = np.linspace(-1, 1, size, dtype=np.float32)
        slope, bow = generator.normal(0, 0.35, 2)
        curve = 1 + np.float32(bias) * (np.float32(slope) * along + np.float32(0.3 + 0.5 * abs(bow)) * (along**2 - 0.3))
        field = field * curve.reshape([-1 if other == axis else 1 for other in range(3)])
    return np.maximum(field, 0.2)


def _ghosts(values: Map, motion: float, generator: np.random.Generator) -> Map:
    """Faint copies displaced along the phase direction (rows), as regular motion gives."""
    shift = int(values.shape[1] * generator.uniform(0.06, 0.45))
    share = np.float32(0.22 * motion)
    copies = np.roll(values, shift, axis=1) + np.roll(values, -shift, axis=1)
    return values * (1 - share) + share * copies * np.float32(0.5)


def _wrapped(values: Map, wrap: float) -> Map:
    """The far end of the head, folded over onto the near one as if the field of view were smaller than the head."""
    rows = np.flatnonzero(values.max(axis=(0, 2)) > 0.05 * values.max())
    count = round(wrap * values.shape[1])
    if not len(rows) or count < 1:
        return values
    result = values.copy()
    first, last = rows[0], rows[-1]
    result[:, first : first + count] += 0.7 * values[:, last - count + 1 : last + 1]
    return result


def _contrast_to_noise(head: Head, place: Geometry, clean: Map) -> tuple[float, ...]:
    """For each finding: |mean inside − mean of normal-appearing brain around it| over the noise."""
    plan = place.plan
    sigma = signal.noise_level(plan) if plan.sequence != "ADC" else signal.ADC_SCALE * plan.noise * 1.1
    labels, normal = _nearest(head, place)
    values = clean[:, ::STEP, ::STEP]
    margin = max(1, round(AROUND_MM / (plan.pixel_mm * STEP)))
    found = []
    for number in range(1, len(head.case.findings) + 1):
        inside = labels == number
        found.append(_difference(values, inside, normal & (labels == 0), margin) / max(sigma, 1e-6))
    return tuple(round(value, 2) for value in found)


def _difference(values: Map, inside: npt.NDArray[np.bool_], normal: npt.NDArray[np.bool_], margin: int) -> float:
    if not inside.any():
        return 0.0
    box = []
    for axis, wide in enumerate((1, margin, margin)):
        hit = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(0, hit[0] - wide), hit[-1] + wide + 1))
    area = tuple(box)
    around = normal[area]
    if not around.any():
        return 0.0
    return float(abs(values[area][inside[area]].mean() - values[area][around].mean()))


def _nearest(head: Head, place: Geometry) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """The finding's number, and whether it is normal-appearing brain, at every other pixel of each slice."""
    plan = place.plan
    brain = (head.fluid < 0.3) & (head.proton_density > 0.6) & (head.fat < 0.1) & (head.t2_ms > 60)
    code = np.where(brain & (head.lesion == 0), np.uint8(255), head.lesion)
    pixels = place.pixel_offsets[::STEP]
    if plan.plane == "sagittal":
        x = place.centre[0] + place.slice_offsets * place.normal[0]
        y, z = (
            place.centre[a] + pixels[:, None] * place.columns_along[a] + pixels * place.rows_along[a] for a in (1, 2)
        )
    else:
        x = place.centre[0] + pixels
        y, z = (
            place.centre[a] + place.slice_offsets[:, None] * place.normal[a] + pixels * place.columns_along[a]
            for a in (1, 2)
        )
    index = [
        np.clip(np.rint(_voxel(head, axis, values)).astype(np.int32), 0, size - 1)
        for axis, (values, size) in enumerate(zip((x, y, z), head.fluid.shape[::-1], strict=True))
    ]
    found = code[index[2], index[1]][:, :, index[0]]
    if plan.plane == "sagittal":
        found = found.transpose(2, 0, 1)
    return np.where(found == 255, np.uint8(0), found), found == 255
