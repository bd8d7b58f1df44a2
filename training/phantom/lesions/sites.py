"""Where things lie in the average head (LPS mm, given for the left side), and choosing a spot there."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from training.phantom.template import ORIGIN_MM, SHAPE, SPACING_MM, Template, coordinates, template
from training.phantom.types import Finding

Point = tuple[float, float, float]

# site: (centre, standard deviation) in mm.
SITES: dict[str, tuple[Point, Point]] = {
    "frontal lobe": ((32, -34, 26), (5, 9, 10)),
    "parietal lobe": ((32, 44, 42), (5, 7, 6)),
    "temporal lobe": ((47, 14, -16), (4, 10, 5)),
    "occipital lobe": ((26, 76, 8), (4, 5, 6)),
    "cerebellum": ((24, 62, -38), (6, 5, 5)),
    "basal ganglia": ((25, -3, 4), (3, 5, 3)),
    "thalamus": ((12, 18, 8), (2, 3, 2)),
    "pons": ((4, 26, -34), (2, 2, 4)),
    "corona radiata": ((24, 10, 26), (3, 10, 4)),
    "corpus callosum": ((8, 0, 24), (3, 18, 3)),
    "convexity": ((44, -8, 50), (6, 20, 6)),
    "parafalcine": ((8, -20, 48), (1, 22, 6)),
    "sphenoid wing": ((36, -22, -16), (4, 3, 3)),
    "cerebellopontine angle": ((20, 30, -36), (1, 2, 2)),
    "sella": ((0, -4, -32), (0, 1, 1)),
    "foramen of Monro": ((0, -3, 11), (0, 1, 1)),
    "middle cranial fossa": ((46, -10, -28), (2, 3, 3)),
    "posterior fossa": ((8, 82, -42), (8, 3, 3)),
    "deep white matter": ((22, -4, 22), (4, 16, 4)),
}
LOBES = ("frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe")


def sign(side: str, generator: np.random.Generator) -> int:
    """+1 for the left (LPS), −1 for the right, 0 for the midline; chosen where the side is not said."""
    if side == "both" or not side:
        return int(generator.choice((-1, 1)))
    return {"left": 1, "right": -1}.get(side, 0)


def place(finding: Finding, seed: int) -> Point:
    """The centre of what is at the finding's site. Findings of one case with the same site and side share it."""
    generator = np.random.default_rng([seed, zlib.crc32(f"{finding.side}/{finding.site}".encode())])
    centre, deviation = SITES[finding.site]
    x, y, z = (float(generator.normal(c, 0.8 * d)) for c, d in zip(centre, deviation, strict=True))
    side = sign(finding.side, generator)
    return (x * side if side else 0.0, y, z)


@functools.cache
def _voxels(kind: str) -> npt.NDArray[np.float32]:
    """(n, 3): points of the average head (left and right) where small lesions of a kind sit."""
    base = template()
    x, _, _ = coordinates()
    chosen = _KINDS[kind](base) & (np.abs(x) > 2)
    found = np.argwhere(chosen)[:, ::-1]
    return np.asarray(found * SPACING_MM + np.asarray(ORIGIN_MM), np.float32)


def _supratentorial() -> npt.NDArray[np.bool_]:
    _, y, z = coordinates()
    return np.asarray(np.broadcast_to((z > -8) | ((y < 15) & (z > -20)), SHAPE))


_KINDS: dict[str, Callable[[Template], npt.NDArray[np.bool_]]] = {
    "periventricular": lambda t: (t.share("white") > 0.7) & (t.to_ventricle < 8) & _supratentorial(),
    "deep white": lambda t: (t.share("white") > 0.9) & (t.to_ventricle > 8) & (t.to_gray > 3) & _supratentorial(),
    "juxtacortical": lambda t: (t.share("white") > 0.5) & (t.to_gray < 3) & (t.distance > -22) & _supratentorial(),
    "cortex": lambda t: (t.share("gray") > 0.6) & (t.distance > -12) & _supratentorial(),
}


def scatter(kind: str, count: int, side: str, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """(count, 3): random points of the average head of a kind, on one side where `side` names one."""
    points = _voxels(kind)
    if side in ("left", "right"):
        points = points[points[:, 0] * (1 if side == "left" else -1) > 0]
    return points[generator.integers(0, len(points), count)]
