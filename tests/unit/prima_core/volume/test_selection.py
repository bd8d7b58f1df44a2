"""Foreground selection: hole filling on the patch grid against a plain fill on voxels, order, duplicates, threshold."""

from __future__ import annotations

from collections import deque
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prima_core.volume.selection import kept_patches, reachable_from_outside

PATCH = (1, 2, 2)  # any size will do: the fill must not depend on it


def plain_kept(fill: np.ndarray, grid: tuple[int, int, int], start: int = 5) -> list[int]:
    """The rule as it is written, voxel by voxel."""

    @cache
    def infill(b: int) -> list[int]:
        inside = np.zeros([g * p for g, p in zip(grid, PATCH, strict=True)], bool)
        mine = [i for i, f in enumerate(fill) if b <= f < b + 1]
        for i in mine:
            inside[block(i)] = True
        filled = fill_holes(inside)
        return [i for i in range(len(fill)) if filled[block(i)].all() and i not in set(mine)]

    def block(i: int) -> tuple[slice, ...]:
        return tuple(slice(c * p, (c + 1) * p) for c, p in zip(np.unravel_index(i, grid), PATCH, strict=True))

    def kept(p: int) -> list[int]:
        out: list[int] = []
        for b in range(p, 101):
            out += [i for i, f in enumerate(fill) if b <= f < b + 1]
            out += infill(b) if b <= 20 else []
        return out

    while len(ids := kept(start)) <= 25 and start > 0:
        start -= 1
    return ids


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """6-connected flood from a border around the volume."""
    padded = np.pad(mask, 1)
    outside = np.zeros_like(padded)
    outside[0, 0, 0] = True
    queue = deque([(0, 0, 0)])
    while queue:
        cell = queue.popleft()
        for axis in range(3):
            for step in (-1, 1):
                near = tuple(c + step * (a == axis) for a, c in enumerate(cell))
                inside = all(0 <= c < s for c, s in zip(near, padded.shape, strict=True))
                if inside and not padded[near] and not outside[near]:
                    outside[near] = True
                    queue.append(near)
    return ~outside[1:-1, 1:-1, 1:-1]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.tuples(st.integers(1, 5), st.integers(3, 5), st.integers(3, 5)))
def test_selection_on_the_patch_grid_equals_the_rule_on_voxels(seed: int, grid: tuple[int, int, int]) -> None:
    # Few different fills, so that bins are dense enough to enclose something.
    fill = np.random.default_rng(seed).choice([0.0, 3.5, 6.5, 6.5, 6.5, 20.0, 20.99, 21.0, 99.9, 100.0], np.prod(grid))
    assert kept_patches(fill, grid).tolist() == plain_kept(fill, grid)


def test_an_enclosed_patch_comes_again_after_the_bin_that_encloses_it() -> None:
    fill = np.full((5, 5, 5), 7.0)
    fill[2, 2, 2] = 60.0
    ids = kept_patches(fill.ravel(), (5, 5, 5)).tolist()
    centre = 62
    assert ids.count(centre) == 2
    assert ids[-2:] == [centre, centre]  # once as a hole of bin 7, once by itself


def test_a_corner_gap_does_not_open_a_hole() -> None:
    walls = np.zeros((1, 3, 3, 3), bool)
    for cell in ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)):
        walls[0][cell] = True
    outside = reachable_from_outside(walls)[0]
    assert not outside[1, 1, 1]
    assert outside.sum() == 27 - 7


def test_threshold_goes_down_until_more_than_25_patches_are_kept() -> None:
    fill = np.zeros(64)
    fill[:20] = 50.0
    fill[20:26] = 3.5
    assert len(kept_patches(fill, (4, 4, 4))) == 26
    assert len(kept_patches(fill[:26].repeat(1), (26, 1, 1))) == 26
    fill[25] = 0.5
    assert len(kept_patches(fill, (4, 4, 4))) == 64  # 25 at one per cent are still few
