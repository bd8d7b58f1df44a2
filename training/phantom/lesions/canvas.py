"""What lesions are painted with: a patient's maps, irregular shapes on them, and blending.

Everything works on the box around a lesion. A shape is a soft mask, 0…1; painting moves the maps towards the lesion's
values by the mask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.phantom.template import SPACING_MM, Template, template
from training.phantom.types import Finding, Map
from training.phantom.warp import Box, Layer, Push, Warp, sampling

VOXEL_ML = SPACING_MM**3 / 1000
POOL = 48  # side of the repeating noise blocks
LABEL_FROM = 0.35  # a voxel belongs to the finding that fills this share of it
Point = tuple[float, float, float]
Mask = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """How deep, in mm, each voxel of a box lies inside an irregular body; negative outside."""

    box: Box
    inside_mm: Map

    def mask(self, grow_mm: float | Map = 0.0, edge_mm: float = 1.2) -> Mask:
        """The body grown by some mm, with a soft edge."""
        return np.asarray(np.clip(0.5 + (self.inside_mm + grow_mm) / (2 * edge_mm), 0, 1), np.float32)


@dataclass
class Canvas:
    """A patient's maps while they are painted; the names of the maps are those of `Head`.

    gray, white, ventricles: shares of a voxel before any lesion, to keep lesions where they belong. edema: where it was
    painted. number: of the finding that is being painted, from 1.
    """

    base: Template
    warp: Warp
    generator: np.random.Generator
    gray: Map
    white: Map
    ventricles: Map
    fluid: Map
    fat: Map
    proton_density: Map
    t1_ms: Map
    t2_ms: Map
    t2star_ms: Map
    adc: Map
    uptake: Map
    lesion: npt.NDArray[np.uint8]
    edema: npt.NDArray[np.bool_]
    number: int = 0
    edema_ml: float = 0.0

    def paint(self, box: Box, mask: Mask, **values: float | Map) -> None:
        """Blend the maps named in `values` towards these values, as part of the finding that is being painted."""
        self.tint(box, mask, **values)
        # The faint ones belong to their finding too.
        self.lesion[box][mask > min(LABEL_FROM, 0.5 * float(mask.max(initial=0))) + 1e-3] = self.number

    def tint(self, box: Box, mask: Mask, **values: float | Map) -> None:
        """The same for what surrounds a finding. fluid becomes 0 unless it is named."""
        for name, value in {"fluid": 0.0, **values}.items():
            part = getattr(self, name)[box]
            part += mask * (value - part)

    def at(self, box: Box, values: Map, template: bool = False) -> Map:
        """A map of the average head at the points that the box's voxels belong to."""
        points = self.warp.points(box, template)
        found: Map = (sampling(points.reshape(3, -1)) @ values.reshape(-1)).reshape(points.shape[1:])
        return found

    def shape(
        self,
        centre: Sequence[float] | npt.NDArray[np.floating[Any]],
        radii: float | Sequence[float] | npt.NDArray[np.floating[Any]],
        *,
        rough: float = 0.25,
        margin_mm: float = 3.0,
        template: bool = False,
        turn: npt.NDArray[np.float64] | None = None,
    ) -> Shape:
        """An irregular ellipsoid. rough: its outline's standard deviation as a share of the radius.

        margin_mm: how far it will be grown. template: it moves with the tissue. turn: rotation to its own axes.
        """
        size = np.broadcast_to(np.asarray(radii, np.float32), 3)
        box = self.warp.box(centre, float(size.max()) * (1 + 2.2 * rough) + margin_mm, template)
        away = self.warp.points(box, template) - np.asarray(centre, np.float32)[:, None, None, None]
        if turn is not None:
            away = np.einsum("ij,jzyx->izyx", turn.astype(np.float32), away)
        radius = np.sqrt(((away / size[:, None, None, None]) ** 2).sum(axis=0))
        smallest = float(size.min())
        outline = 1 + rough * self.noise(box, max(smallest, 3) * 0.55) if rough else 1.0
        return Shape(box, np.asarray((outline - radius) * smallest, np.float32))

    def blob(
        self,
        centre: Sequence[float] | npt.NDArray[np.floating[Any]],
        radii: float | Sequence[float] | npt.NDArray[np.floating[Any]],
        *,
        rough: float = 0.25,
        edge_mm: float = 1.2,
        template: bool = False,
        turn: npt.NDArray[np.float64] | None = None,
    ) -> tuple[Box, Mask]:
        """The box and mask of such a shape."""
        shape = self.shape(centre, radii, rough=rough, margin_mm=edge_mm, template=template, turn=turn)
        return shape.box, shape.mask(edge_mm=edge_mm)

    def noise(self, box: Box, length_mm: float) -> Map:
        """A random field of standard deviation 1 whose grains are about `length_mm` wide."""
        lengths = list(_pool())
        best = min(lengths, key=lambda length: abs(length - length_mm))
        start = self.generator.integers(0, POOL, 3)
        index = [(offset + np.arange(part.stop - part.start)) % POOL for offset, part in zip(start, box, strict=True)]
        return _pool()[best][np.ix_(*index)]


@functools.cache
def _pool() -> dict[float, Map]:
    pool = {}
    for length in (1.5, 3.0, 6.0, 10.0):
        noise = np.random.default_rng(7).standard_normal((POOL, POOL, POOL), dtype=np.float32)
        smooth = ndimage.gaussian_filter(noise, length / SPACING_MM / 1.2, mode="wrap")
        pool[length] = (smooth / smooth.std()).astype(np.float32)
    return pool


@dataclass(frozen=True)
class Lesion:
    """What a finding does to a head: what it pushes, and how it is painted; painting returns it as it was built.

    widening_mm: of the ventricles. atrophy: 0…1, how far sulci are widened. tonsils_mm: descent of the tonsils.
    order: lesions of lower order are painted first.
    """

    paint: Callable[[Canvas], Finding]
    pushes: tuple[Push, ...] = ()
    layers: tuple[Layer, ...] = ()
    widening_mm: float = 0.0
    atrophy: float = 0.0
    tonsils_mm: float = 0.0
    order: int = 1


def volume_ml(mask: Mask) -> float:
    """Millilitres of a mask."""
    return float(mask.sum()) * VOXEL_ML


def plainness(finding: Finding) -> float:
    """How much of a lesion's full contrast is painted: even the faintest keeps an eighth."""
    return 0.12 + 0.88 * finding.strength


def within_skull(canvas: Canvas, box: Box, mask: Mask, depth_mm: float = 0.5) -> Mask:
    """The part of a mask that lies deeper than this under the inner table."""
    distance = canvas.at(box, canvas.base.distance)
    return np.asarray(mask * np.clip((-depth_mm - distance) / 2 + 0.5, 0, 1), np.float32)


def towards_skull(base: Template, point: Sequence[float], depth_mm: float) -> Point:
    """The point moved along its ray from the middle of the head until it lies this deep under the inner table."""
    spot = np.asarray(point, np.float32)
    outward = spot - np.array([0, 15, 5], np.float32)
    outward /= np.linalg.norm(outward)
    for _ in range(6):
        distance = (sampling(spot[:, None]) @ base.distance.reshape(-1))[0]
        spot = spot + outward * np.float32(-depth_mm - distance) * 0.9
    return (float(spot[0]), float(spot[1]), float(spot[2]))


def at_depth(point: Point, least_mm: float) -> Point:
    """The point, or the nearest on its ray that lies at least this deep under the inner table."""
    base = template()
    distance = (sampling(np.asarray(point, np.float32)[:, None]) @ base.distance.reshape(-1))[0]
    return point if -distance >= least_mm else towards_skull(base, point, least_mm)


def faded(finding: Finding, mask: Mask) -> Mask:
    """The mask, weaker where the finding is hard to see."""
    return mask * np.float32(plainness(finding))


def paint_edema(
    canvas: Canvas,
    finding: Finding,
    centre: Sequence[float] | npt.NDArray[np.floating[Any]],
    inner_mm: float,
    outer_mm: float,
) -> float:
    """Vasogenic oedema: finger-like in white matter around a mass, sparing cortex. Returns its millilitres."""
    if outer_mm - inner_mm < 1:
        return 0.0
    box, mask = canvas.blob(centre, outer_mm, rough=0.22, edge_mm=5)
    mask *= np.clip(canvas.white[box] * 1.25 + 0.05, 0, 1) * (canvas.ventricles[box] < 0.3)
    mask *= np.float32(0.3 + 0.7 * finding.strength)
    fluid = canvas.fluid[box].copy()
    canvas.tint(box, mask, fluid=fluid, t1_ms=1350, t2_ms=160, t2star_ms=110, adc=1.45, proton_density=0.85)
    ml = volume_ml(mask)
    canvas.edema_ml += ml
    canvas.edema[box] |= mask > LABEL_FROM
    return ml


def grown(finding: Finding, **attributes: str) -> Finding:
    """The finding with more attributes."""
    return replace(finding, attributes={**finding.attributes, **attributes})
