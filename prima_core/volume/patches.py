"""Volume → padded volume on a patch grid: foreground fill of every patch, and the voxels of those that are wanted.

Patches are 32 × 32 × 32 with 4 on the acquisition's slice axis. Each axis is zero-padded to a multiple, half of the pad
before. Patches count in C order of (z, y, x). Nothing is copied for a patch that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prima_core.base.errors import UnusableSeries

SIDE = 32
DEPTH = 4
_FOREGROUND = 50.0  # intensity above which a voxel is foreground …
_FOREGROUND_SCALED = 0.5  # … or this, in a volume whose maximum is below `_SCALED_BELOW`
_SCALED_BELOW = 5.0


@dataclass(frozen=True)
class PatchGrid:
    """A padded volume cut into patches.

    padded: (z, y, x) intensities before scaling. patch, grid: size of a patch and number of patches on each axis.
    fill: (N,) float64, percentage of each patch that is foreground. maximum: the volume's, positive.
    before: voxels of padding before the volume on each axis.
    """

    padded: npt.NDArray[Any]
    patch: tuple[int, int, int]
    grid: tuple[int, int, int]
    fill: npt.NDArray[np.float64]
    maximum: float
    before: tuple[int, int, int]

    def coordinates(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(len(ids), 3) first voxel (z, y, x) of patches in the padded volume."""
        on_grid: npt.NDArray[np.int64] = np.stack(np.unravel_index(ids, self.grid), axis=1)
        return on_grid * np.array(self.patch, dtype=np.int64)

    def gather(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(len(ids), *patch) float32: the patches, scaled by the volume's maximum."""
        z, y, x = np.unravel_index(ids, self.grid)
        # Indexing with arrays on the outer axes moves the chosen patches to the front.
        chosen = _on_grid(self.padded, self.patch)[z, :, y, :, x, :]
        return chosen.astype(np.float32) / np.float32(self.maximum)


def patch_grid(voxels: npt.NDArray[Any], thin_axis: int) -> PatchGrid:
    """Pad a volume and measure its patches. Raises UnusableSeries when nothing in it is above zero."""
    patch = patch_shape(thin_axis)
    maximum = float(voxels.max(initial=0))
    threshold = _FOREGROUND if maximum >= _SCALED_BELOW else _FOREGROUND_SCALED
    if maximum <= 0:
        raise UnusableSeries("the image holds no positive values")
    padded = _padded(voxels, patch)
    foreground = _counted(padded > threshold, patch)
    fill = 100.0 * foreground.ravel() / np.prod(patch)
    grid = foreground.shape
    z, y, x = (before for before, _ in _pads(voxels.shape, patch))
    return PatchGrid(padded, patch, (grid[0], grid[1], grid[2]), fill, maximum, (z, y, x))


def patch_shape(thin_axis: int) -> tuple[int, int, int]:
    """Size of a patch: `DEPTH` on the slice axis, `SIDE` on the others."""
    z, y, x = (DEPTH if axis == thin_axis else SIDE for axis in range(3))
    return z, y, x


def _padded(voxels: npt.NDArray[Any], patch: tuple[int, int, int]) -> npt.NDArray[Any]:
    pads = _pads(voxels.shape, patch)
    return np.pad(voxels, pads) if any(map(any, pads)) else voxels


def _pads(shape: Sequence[int], patch: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Voxels of padding before and after the volume, for each axis."""
    pads = [-size % side for size, side in zip(shape, patch, strict=True)]
    return [(pad // 2, pad - pad // 2) for pad in pads]


def _counted(foreground: npt.NDArray[np.bool_], patch: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """(grid z, grid y, grid x) voxels of every patch that are foreground."""
    (z, y, x), (dz, dy, dx) = foreground.shape, patch
    # The outer axes first, a whole plane and row at a time, in the smallest type that holds so many.
    planes = foreground.view(np.uint8).reshape(z // dz, dz, y, x).sum(axis=1, dtype=np.uint8)
    rows = planes.reshape(z // dz, y // dy, dy, x).sum(axis=2, dtype=np.uint16)
    counted: npt.NDArray[np.int64] = rows.reshape(z // dz, y // dy, x // dx, dx).sum(axis=3, dtype=np.int64)
    return counted


def _on_grid(padded: npt.NDArray[Any], patch: tuple[int, int, int]) -> npt.NDArray[Any]:
    """A view (grid z, patch z, grid y, patch y, grid x, patch x) of the padded volume."""
    (z, y, x), (dz, dy, dx) = padded.shape, patch
    return padded.reshape(z // dz, dz, y // dy, dy, x // dx, dx)
