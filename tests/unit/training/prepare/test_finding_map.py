"""Where findings lie: the same points of the patient, however a series was acquired."""

from __future__ import annotations

import numpy as np
import pytest

from prima_core.prepare import prepare_volume
from prima_core.volume.geometry import Placement, to_volume
from training.prepare.finding_map import FindingMap

SIDE, SLICES, DISTANCE = 256, 24, 6.0
CENTRE, RADIUS = np.array([-30.0, 20.0, 12.0]), 18.0  # of a sphere, LPS mm
AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)


def scanned(orientation: tuple[float, ...], tilt: float = 0.0) -> tuple[Placement, np.ndarray]:
    """A stack through a ball of 200 in a head of 100, both seen where they are."""
    row, column = (np.array(part, float) for part in (orientation[:3], orientation[3:]))
    if tilt:
        turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
        row, column = turn @ row, turn @ column
    normal = np.cross(row, column)
    corner = -0.9 * (SIDE - 1) / 2 * (row + column) - DISTANCE * (SLICES - 1) / 2 * normal
    k, i, j = np.meshgrid(np.arange(SLICES), np.arange(SIDE), np.arange(SIDE), indexing="ij")
    points = corner + DISTANCE * k[..., None] * normal + 0.9 * (i[..., None] * column + j[..., None] * row)
    head = np.linalg.norm(points / [75, 90, 70], axis=-1) < 1
    ball = np.linalg.norm(points - CENTRE, axis=-1) < RADIUS
    place = Placement(corner, corner + DISTANCE * (SLICES - 1) * normal, (*row, *column), (0.9, 0.9))
    return place, np.where(ball, 200, np.where(head, 100, 0)).astype(np.int32)


def ball_map() -> FindingMap:
    z, y, x = np.meshgrid(*(np.arange(-90.0, 91, 1.5),) * 3, indexing="ij")
    inside = np.linalg.norm(np.stack((x, y, z), axis=-1) - CENTRE, axis=-1) < RADIUS
    affine = np.array([[0, 0, 1.5, -90], [0, 1.5, 0, -90], [1.5, 0, 0, -90], [0, 0, 0, 1]])
    return FindingMap(inside.astype(np.uint8), affine, (("cyst", "mass"),))


@pytest.mark.parametrize(
    ("orientation", "tilt"), [(AXIAL, 0.0), (SAGITTAL, 0.0), (CORONAL, 0.0), (AXIAL, 0.25), (CORONAL, -0.3)]
)
@pytest.mark.parametrize("backwards", [False, True])
def test_shares_are_those_of_the_image(orientation: tuple[float, ...], tilt: float, backwards: bool) -> None:
    place, voxels = scanned(orientation, tilt)
    if backwards:
        place, voxels = Placement(place.last, place.first, place.orientation, place.spacing), voxels[::-1].copy()
    series = prepare_volume(to_volume(voxels, place), "1.2", "T1", 5000)
    shares = ball_map().shares(series)
    seen = (series.patches > 0.75).mean(axis=(1, 2, 3))  # of 200, the ball
    assert seen.max() > 0.3
    np.testing.assert_allclose(shares[:, 0], seen, atol=0.02)
    np.testing.assert_array_equal(shares[:, 0], shares[:, 1])
    assert np.corrcoef(shares[:, 0].astype(float), seen)[0, 1] > 0.99


def test_thinned_slices_keep_their_places() -> None:
    place, voxels = scanned(AXIAL)
    whole = prepare_volume(to_volume(voxels, place), "1.2", "T1", 5000)
    thinned = prepare_volume(to_volume(voxels, place), "1.2", "T1", whole.tokens_kept - 1)
    assert any("one slice in" in note for note in thinned.notes)
    seen = (thinned.patches > 0.75).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(ball_map().shares(thinned)[:, 0], seen, atol=0.02)


def test_only_findings_with_voxels_are_located() -> None:
    found = ball_map()
    two = FindingMap(found.voxels, found.affine, (*found.labels, ("shift",)))
    assert two.located == ("cyst", "mass")
    nothing = FindingMap(np.zeros_like(found.voxels), found.affine, ())
    place, voxels = scanned(AXIAL)
    series = prepare_volume(to_volume(voxels, place), "1.2", "T1", 5000)
    assert nothing.shares(series).shape == (len(series.patches), 0)


def test_a_series_that_lies_nowhere_is_refused() -> None:
    place, voxels = scanned(AXIAL)
    series = prepare_volume(to_volume(voxels, place), "1.2", "T1", 5000)
    object.__setattr__(series, "affine", None)
    with pytest.raises(ValueError, match="nowhere"):
        ball_map().shares(series)
