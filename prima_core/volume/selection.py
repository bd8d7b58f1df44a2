"""Which patches the model reads, and in which order: by how full they are, with the holes they enclose.

The rule is the published model's (its code calls it Otsu; it is a fixed threshold). A bin holds the patches of one
percentage of foreground; the sparse bins also bring what they enclose. As such a bin is a union of whole patches, its
holes are found on the patch grid instead of on voxels, with the same result.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

START = 5  # per cent of foreground from which patches are kept
FEW = 25  # with so many kept patches or fewer, the threshold goes down
_FULLEST = 100
_LAST_INFILLED = 20


def kept_patches(
    fill: npt.NDArray[np.floating], grid: tuple[int, int, int], start: int = START
) -> npt.NDArray[np.int64]:
    """(T,) ids of the kept patches in the model's order; a patch may be listed twice.

    fill: (N,) percentage of foreground of each patch, C order on `grid`.
    """
    bins = np.floor(fill).astype(np.int64)
    infills = _infills(bins, grid)
    of_bin = [np.flatnonzero(bins == b) for b in range(_FULLEST + 1)]

    def kept(p: int) -> npt.NDArray[np.int64]:
        parts = [part for b in range(p, _FULLEST + 1) for part in (of_bin[b], *infills[b : b + 1])]
        return np.concatenate(parts).astype(np.int64)

    for p in range(start, 0, -1):
        if len(ids := kept(p)) > FEW:
            return ids
    return kept(0)


def _infills(bins: npt.NDArray[np.int64], grid: tuple[int, int, int]) -> list[npt.NDArray[np.int64]]:
    """For each bin up to the last infilled one, the patches of other bins that it encloses."""
    walls = np.stack([(bins == b).reshape(grid) for b in range(_LAST_INFILLED + 1)])
    enclosed = ~walls & ~reachable_from_outside(walls)
    return [np.flatnonzero(holes) for holes in enclosed]


def reachable_from_outside(walls: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Cells of each grid (first axis) that a 6-connected path without walls joins to the grid's outer faces."""
    reached = np.zeros_like(walls)
    for axis in (1, 2, 3):
        for face in (0, -1):
            index = (slice(None),) * axis + (face,)
            reached[index] = ~walls[index]
    while True:
        grown = reached.copy()
        for axis in (1, 2, 3):
            ahead, behind = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
            grown[ahead] |= reached[behind]
            grown[behind] |= reached[ahead]
        grown &= ~walls
        if np.array_equal(grown, reached):
            return reached
        reached = grown
