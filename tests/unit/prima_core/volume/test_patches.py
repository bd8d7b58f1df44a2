"""Padding, patch grid, foreground fill and scaling, against the definition written out plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prima_core.base.errors import UnusableSeries
from prima_core.volume.patches import patch_grid, patch_shape


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2), st.tuples(*[st.integers(1, 70)] * 3))
def test_patches_equal_the_plain_definition(seed: int, thin_axis: int, shape: tuple[int, int, int]) -> None:
    voxels = np.random.default_rng(seed).integers(-20, 120, shape).astype(np.int16)
    voxels.flat[0] = 100
    patch = patch_shape(thin_axis)
    pads = [-s % p for s, p in zip(shape, patch, strict=True)]
    padded = np.pad(voxels, [(p // 2, p - p // 2) for p in pads]).astype(np.float32)
    grid = patch_grid(voxels, thin_axis)
    ids = np.arange(len(grid.fill))
    corners = [
        (z, y, x)
        for z in range(0, padded.shape[0], patch[0])
        for y in range(0, padded.shape[1], patch[1])
        for x in range(0, padded.shape[2], patch[2])
    ]
    assert grid.coordinates(ids).tolist() == [list(corner) for corner in corners]
    plain = np.stack([padded[z : z + patch[0], y : y + patch[1], x : x + patch[2]] for z, y, x in corners])
    np.testing.assert_allclose(grid.fill, 100 * (plain > 50).mean(axis=(1, 2, 3)), rtol=1e-12)
    np.testing.assert_array_equal(grid.gather(ids), plain / np.float32(voxels.max()))


def test_a_volume_of_small_values_has_its_foreground_above_one_half() -> None:
    voxels = np.zeros((4, 32, 32), np.float32)
    voxels[:2] = 4.9
    voxels[2] = 0.5
    assert patch_grid(voxels, 0).fill.tolist() == [50.0]


def test_a_volume_that_is_256_deep_is_cut_on_its_slice_axis() -> None:
    voxels = np.ones((256, 256, 256), np.uint8) * 100
    grid = patch_grid(voxels, 2)
    assert grid.patch == (32, 32, 4)
    assert grid.grid == (8, 8, 64)


@pytest.mark.parametrize("value", [0, -7])
def test_a_volume_without_positive_values_is_unusable(value: int) -> None:
    voxels = np.full((8, 64, 64), value, np.int16)
    voxels[0, 0, 0] = -9
    with pytest.raises(UnusableSeries, match="no positive"):
        patch_grid(voxels, 0)
