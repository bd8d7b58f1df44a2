"""Where each point of a patient's head comes from in the average head, and the maps pulled along.

Three spaces, all LPS mm: the *patient*; the *frame*, which is the average head before any lesion pushes (a mass is
drawn here: skull, midline and territories are where the average has them); the *template*, whose tissue ends up at the
point. Fields live on every other voxel of the grid: what bends a brain is smooth.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from training.phantom.template import ORIGIN_MM, SHAPE, SPACING_MM, Template, coordinates
from training.phantom.types import Map

COARSE_SHAPE = tuple(size // 2 + 1 for size in SHAPE)
COARSE_MM = 2 * SPACING_MM
WIDENING_STEP_MM = 4.0
TENTORIUM = 0.35  # share of a push that reaches beyond it
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Push:
    """Tissue moved away from a point of the frame (towards it where amplitude is negative).

    amplitude_mm: at `radius_mm`, the surface of the mass; it falls off with `reach_mm`.
    """

    centre: tuple[float, float, float]
    amplitude_mm: float
    radius_mm: float
    reach_mm: float = 32.0


@dataclass(frozen=True)
class Layer:
    """A collection of `thickness_mm` between skull and brain over one side of the convexity.

    side: +1 left, −1 right.
    """

    centre: tuple[float, float, float]
    thickness_mm: float
    extent_mm: float
    side: int


@dataclass(frozen=True)
class Warp:
    """frame, template: (3, z, y, x) float32 on every other voxel, the point (x, y, z) that a patient voxel belongs to.

    What masses moved, measured between the two: shift_mm, the midline, towards the left positive; uncus_mm, the worse
    of both, inwards; tonsils_mm, downwards; moved_mm, any brain.
    """

    frame: Map
    template: Map
    occupied: npt.NDArray[np.bool_]
    shift_mm: float
    uncus_mm: float
    tonsils_mm: float
    moved_mm: float

    def box(
        self, centre: Sequence[float] | npt.NDArray[np.floating[Any]], radius_mm: float, template: bool = False
    ) -> Box:
        """The voxels around a point of the frame (or of the template)."""
        field = self.template if template else self.frame
        target = np.asarray(centre, float)
        voxel = (target - ORIGIN_MM) / COARSE_MM
        for _ in range(6):
            x, y, z = (round(float(np.clip(v, 0, n - 1))) for v, n in zip(voxel, COARSE_SHAPE[::-1], strict=True))
            voxel = np.array([x, y, z]) + 0.9 * (target - field[:, z, y, x]) / COARSE_MM
        reach = (radius_mm + 5) / SPACING_MM
        x, y, z = 2 * voxel
        starts = [max(0, int(v - reach)) for v in (z, y, x)]
        stops = [min(n, int(v + reach) + 2) for v, n in zip((z, y, x), SHAPE, strict=True)]
        return tuple(slice(a, max(a + 1, b)) for a, b in zip(starts, stops, strict=True))  # type: ignore[return-value]

    def points(self, box: Box, template: bool = False) -> Map:
        """(3, z, y, x): the points of the frame (or of the template) that the box's voxels belong to."""
        field = self.template if template else self.frame
        coarse = tuple(slice(part.start // 2, (part.stop - 1) // 2 + 2) for part in box)
        fine = _finer(field[(slice(None), *coarse)])
        cut = tuple(
            slice(part.start - 2 * rough.start, part.stop - 2 * rough.start)
            for part, rough in zip(box, coarse, strict=True)
        )
        return fine[(slice(None), *cut)]


def _finer(values: Map) -> Map:
    """Twice the sampling of the last three axes, linear in between: n points → 2 n − 1."""
    for axis in range(values.ndim - 3, values.ndim):
        shape = list(values.shape)
        shape[axis] = 2 * shape[axis] - 1
        result = np.empty(shape, np.float32)
        even, odd, low, high = ([slice(None)] * values.ndim for _ in range(4))
        even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
        low[axis], high[axis] = slice(0, -1), slice(1, None)
        result[tuple(even)] = values
        result[tuple(odd)] = 0.5 * (values[tuple(low)] + values[tuple(high)])
        values = result
    return values


@dataclass(frozen=True)
class Pose:
    """rotation: degrees about x, y, z. scale: along them. shift_mm: of the head. bend_mm: of the individual shape."""

    rotation: tuple[float, float, float]
    scale: tuple[float, float, float]
    shift_mm: tuple[float, float, float]
    bend_mm: float = 2.0


def make_warp(
    base: Template,
    pose: Pose,
    generator: np.random.Generator,
    *,
    pushes: Sequence[Push] = (),
    layers: Sequence[Layer] = (),
    widening_mm: float = 0.0,
    tonsils_mm: float = 0.0,
) -> Warp:
    """Bend the average head into a patient's. widening_mm: of the ventricles' walls. tonsils_mm: of their descent."""
    frame = _frame(pose, generator)
    rows = sampling(frame.reshape(3, -1))
    distance, occupied, *widening = (rows @ base.guides).T.reshape(5, *COARSE_SHAPE)
    moved = _push(frame, distance, [push for push in pushes if push.amplitude_mm > 0]) + _press(frame, distance, layers)
    measured = _measure(frame, moved, distance)
    moved += _push(frame, distance, [push for push in pushes if push.amplitude_mm <= 0])
    moved[2] += _descent(frame, tonsils_mm)
    moved += _widened(base, frame + moved, np.stack(widening), widening_mm)
    mask = occupied > 0
    for axis in range(3):
        mask = np.repeat(mask, 2, axis=axis)
    return Warp(frame, frame + moved, mask[: SHAPE[0], : SHAPE[1], : SHAPE[2]], *measured)


def _frame(pose: Pose, generator: np.random.Generator) -> Map:
    x, y, z = (axis[tuple(slice(None, None, 2) for _ in range(3))] for axis in coordinates())
    x, y, z = (np.append(axis.ravel(), axis.ravel()[-1] + COARSE_MM).astype(np.float32) for axis in (x, y, z))
    x, y, z = x[: COARSE_SHAPE[2]], y[: COARSE_SHAPE[1]], z[: COARSE_SHAPE[0]]
    centre = np.array([0.0, 15.0, 0.0])
    inverse = np.linalg.inv(_rotation(pose.rotation) @ np.diag(pose.scale))
    parts = [x - centre[0] - pose.shift_mm[0], y - centre[1] - pose.shift_mm[1], z - centre[2] - pose.shift_mm[2]]
    frame = np.empty((3, *COARSE_SHAPE), np.float32)
    for axis in range(3):
        a, b, c = inverse[axis].astype(np.float32)
        frame[axis] = (
            a * parts[0][None, None]
            + b * parts[1][None, :, None]
            + c * parts[2][:, None, None]
            + np.float32(centre[axis])
        )
    return frame + pose.bend_mm * _bend(generator)


def _bend(generator: np.random.Generator) -> Map:
    """Two smooth random fields of standard deviation about 1: the shape of the head, and of its folds."""
    fields = np.zeros((3, *COARSE_SHAPE), np.float32)
    for knots, weight in ((6, 1.0), (14, 0.4)):
        rough = generator.standard_normal((3, knots, knots, knots), dtype=np.float32)
        across_z, across_y, across_x = (_splines(size, knots) for size in COARSE_SHAPE)
        smooth = np.einsum("cijk,xk->cijx", rough, across_x)
        smooth = np.einsum("cijx,yj->ciyx", smooth, across_y, optimize=True)
        fields += np.float32(weight) * np.einsum("ciyx,zi->czyx", smooth, across_z, optimize=True)
    return fields


@functools.cache
def _splines(size: int, knots: int) -> Map:
    """(size, knots): cubic B-splines, scaled so that independent coefficients keep their standard deviation."""
    away = np.abs(np.linspace(0.5, knots - 1.5, size)[:, None] - np.arange(knots))
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - away) ** 3 / 6
    weights = np.where(away < 1, near, np.where(away < 2, far, 0))
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)), np.float32)


def _widened(base: Template, points: Map, field: Map, amplitude_mm: float) -> Map:
    """The way along the field, in steps where it is long: a straight line would leave the ventricle on its far side."""
    steps = max(1, math.ceil(amplitude_mm / WIDENING_STEP_MM))
    moved = amplitude_mm / steps * field
    for _ in range(steps - 1):
        rows = sampling((points + moved).reshape(3, -1))
        moved += amplitude_mm / steps * (rows @ base.guides[:, 2:]).T.reshape(3, *COARSE_SHAPE)
    return moved


def _rotation(degrees: Sequence[float]) -> npt.NDArray[np.float64]:
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _tent(points: Map) -> npt.NDArray[np.bool_]:
    """Below the tentorium."""
    _, y, z = points
    return np.asarray((y > 22) & (z < -22 + 0.35 * np.clip(60 - y, 0, 40)))


def _push(frame: Map, distance: Map, pushes: Sequence[Push]) -> Map:
    moved = np.zeros_like(frame)
    # Bone does not move, and brain close to it hardly along it.
    free = np.clip(-distance / 12, 0, 1)
    for push in pushes:
        away = frame - np.asarray(push.centre, np.float32)[:, None, None, None]
        radius = np.sqrt((away**2).sum(axis=0)) + 1e-3
        beyond = np.maximum(radius - push.radius_mm, 0)
        size = push.amplitude_mm * np.minimum(radius / push.radius_mm, 1) * np.exp(-beyond / push.reach_mm)
        centre = np.asarray(push.centre, np.float32)[:, None, None, None]
        across = np.where(_tent(frame) != _tent(centre), TENTORIUM, 1.0)
        moved -= away * (size * free * across / radius)
    return moved


def _press(frame: Map, distance: Map, layers: Sequence[Layer]) -> Map:
    moved = np.zeros_like(frame)
    for layer in layers:
        depth = np.maximum(-distance, 0)
        # Towards the other side, so that the midline gives way.
        inward = -_unit(frame - np.array([-60 * layer.side, 15, 0], np.float32)[:, None, None, None])
        size = layer.thickness_mm * spread(frame, layer, -24) * np.exp(-np.maximum(depth - layer.thickness_mm, 0) / 62)
        size *= np.where(_tent(frame), 0.2, 1.0) * np.clip((depth - 1) / 4, 0, 1)
        # A point samples what lay further out: the brain has moved inwards.
        moved -= inward * size
    return moved


def spread(points: Map, layer: Layer, from_mm: float = 0) -> Map:
    """0…1: how much of the layer's thickness there is at a point, by its place along the convexity.

    from_mm: where it begins beside the midline; its push reaches across.
    """
    x, y, z = points
    _, centre_y, centre_z = layer.centre
    along = ((y - centre_y) / layer.extent_mm) ** 2 + ((z - centre_z) / (0.75 * layer.extent_mm)) ** 2
    return np.asarray(np.clip(1.25 - along, 0, 1) ** 0.6 * np.clip((layer.side * x - from_mm) / 14, 0, 1), np.float32)


def _unit(vectors: Map) -> Map:
    return np.asarray(vectors / (np.sqrt((vectors**2).sum(axis=0)) + 1e-3), np.float32)


def _descent(frame: Map, tonsils_mm: float) -> Map | float:
    if not tonsils_mm:
        return 0.0
    x, y, z = frame
    near = np.exp(-(((np.abs(x) - 9) / 9) ** 2) - ((y - 50) / 13) ** 2)
    return np.asarray(tonsils_mm * near * np.clip((-34 - z) / 16, 0, 1), np.float32)


def _measure(frame: Map, moved: Map, distance: Map) -> tuple[float, float, float, float]:
    """How far masses moved septum and third ventricle sideways, the worse uncus inwards, tonsils down, any brain."""
    x, y, z = frame
    septum = (np.abs(x + moved[0]) < 3) & (y > -35) & (y < 20) & (z > -6) & (z < 26)
    inwards = max(float(np.median(side * moved[0][_around(frame, (24.0 * side, 2, -22))])) for side in (-1, 1))
    down = float(np.median(moved[2][_around(frame, (0, 50, -50))]))
    brain = distance < -10
    largest = float(np.sqrt((moved[:, brain] ** 2).sum(axis=0)).max())
    return float(np.median(-moved[0][septum])), inwards, down, largest


def _around(frame: Map, centre: tuple[float, float, float]) -> npt.NDArray[np.bool_]:
    away = frame - np.asarray(centre, np.float32)[:, None, None, None]
    return np.asarray((away**2).sum(axis=0) < 9.0**2)


def sampling(points: Map) -> Any:
    """Trilinear weights: a sparse (points, voxels) matrix for (3, points) in mm. Outside, the nearest voxel."""
    count = points.shape[1]
    whole, part = [], []
    for axis, size in enumerate(reversed(SHAPE)):
        voxel = np.clip((points[axis] - np.float32(ORIGIN_MM[axis])) / np.float32(SPACING_MM), 0, size - 1.001)
        floor = voxel.astype(np.int32)
        whole.append(floor)
        part.append(voxel - floor)
    first = (whole[2] * SHAPE[1] + whole[1]) * SHAPE[2] + whole[0]
    indices, weights = np.empty((count, 8), np.int32), np.empty((count, 8), np.float32)
    x, y, z = part
    for corner in range(8):
        dx, dy, dz = corner & 1, corner >> 1 & 1, corner >> 2
        np.add(first, (dz * SHAPE[1] + dy) * SHAPE[2] + dx, out=indices[:, corner])
        np.multiply((x if dx else 1 - x) * (y if dy else 1 - y), z if dz else 1 - z, out=weights[:, corner])
    starts = np.arange(0, 8 * count + 1, 8, dtype=np.int32)
    matrix = sparse.csr_matrix((count, int(np.prod(SHAPE))), dtype=np.float32)
    # Assigned, not given to the constructor, which would check what is true by construction.
    matrix.data, matrix.indices, matrix.indptr = weights.ravel(), indices.ravel(), starts
    return matrix
