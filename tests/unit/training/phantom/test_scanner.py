from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from training.phantom import scanner, signal
from training.phantom.anatomy import build_head
from training.phantom.scanner import acquire
from training.phantom.types import Acquisition, Case, Finding, Head, SeriesPlan

TIMES = {
    "T1": (550, 12, 0, 90),
    "T1C": (550, 12, 0, 90),
    "T2": (4500, 100, 0, 90),
    "FLAIR": (9000, 120, 2500, 90),
    "DWI": (5000, 85, 0, 90),
    "ADC": (5000, 85, 0, 90),
    "T2STAR": (700, 20, 0, 20),
}


def plan(sequence: str = "T2", plane: str = "axial", **changes: float) -> SeriesPlan:
    repetition, echo, inversion, flip = TIMES[sequence]
    one = SeriesPlan(sequence, plane, "", "", 128, 1.8, 24, 6.0, 5.0, repetition, echo, inversion, flip)
    return replace(one, **changes)  # type: ignore[arg-type]


@functools.cache
def sick() -> Head:
    stroke = Finding(
        ("vascular_ischemic_large_vessel_stroke",),
        "territorial_infarct",
        side="left",
        site="middle cerebral artery",
        size_mm=60,
        attributes={"age": "hyperacute"},
    )
    tumour = Finding(
        ("tumor_adult_meningioma",), "meningioma", side="right", site="convexity", size_mm=30, strength=0.9
    )
    return build_head(Case(4, 60.0, "M", (stroke, tumour)))


def scan(one: SeriesPlan, seed: int = 0, head: Head | None = None) -> Acquisition:
    return acquire(head or sick(), one, np.random.default_rng(seed))


def test_the_same_generator_gives_the_same_voxels() -> None:
    first, again, other = scan(plan()), scan(plan()), scan(plan(), seed=1)
    assert np.array_equal(first.voxels, again.voxels)
    assert not np.array_equal(first.voxels, other.voxels)


@pytest.mark.parametrize("sequence", sorted(TIMES))
@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_every_sequence_and_plane_gives_integers_with_a_low_background(sequence: str, plane: str) -> None:
    one = scan(plan(sequence, plane))
    assert one.voxels.dtype == np.uint16
    assert one.voxels.shape == (24, 128, 128)
    corner = one.voxels[:, :12, :12]
    assert (corner < 50).mean() > 0.98
    loud = scan(plan(sequence, plane, noise=0.06)).voxels[:, :12, :12]
    assert (loud < 50).mean() > 0.98
    if sequence == "ADC":
        assert corner.max() == 0
    assert 400 < np.percentile(one.voxels, 98) < 4000


@pytest.mark.parametrize(("plane", "tilt"), [("axial", 0.0), ("axial", 12.0), ("coronal", -9.0), ("sagittal", 7.0)])
def test_a_landmark_is_imaged_where_position_and_orientation_say(plane: str, tilt: float) -> None:
    """PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1, on a head that is air but for a small ball."""
    spot = np.array([31.0, -22.0, 38.0])
    head = ball(spot)
    one = scan(plan("T2", plane, tilt_degrees=tilt, noise=0.0, bias=0.0, slices=40, spacing_mm=4.0), head=head)
    weights = one.voxels.astype(float)
    k, row, column = (np.average(index, weights=weights) for index in np.indices(weights.shape))
    rows, columns = np.array(one.orientation[:3]), np.array(one.orientation[3:])
    normal = np.cross(rows, columns)
    found = one.positions[0] + k * 4.0 * normal + column * 1.8 * rows + row * 1.8 * columns
    assert np.allclose(found, spot, atol=0.8)


@functools.cache
def empty() -> Head:
    head = build_head(Case(4, 60.0, "M", ()))
    return replace(head, proton_density=np.zeros_like(head.fluid))


def ball(spot: np.ndarray) -> Head:
    head = empty()
    z, y, x = np.indices(head.fluid.shape)
    mm = [index * 2.0 + head.affine[axis, 3] - spot[axis] for axis, index in enumerate((x, y, z))]
    inside = (sum(part**2 for part in mm) < 7.0**2).astype(np.float32)
    return replace(head, fluid=inside)


def test_positions_run_along_the_normal_by_the_spacing() -> None:
    one = scan(plan(plane="coronal", tilt_degrees=10.0))
    normal = np.cross(one.orientation[:3], one.orientation[3:])
    assert np.allclose(np.diff(one.positions, axis=0), 6.0 * normal)
    assert np.allclose([np.linalg.norm(one.orientation[:3]), np.linalg.norm(one.orientation[3:])], 1)


def test_noise_is_rician() -> None:
    """Rayleigh in air; in tissue close to normal around the root of the sum of squares."""
    one = plan("T2", noise=0.05, bias=0.0)
    sigma = signal.noise_level(one)
    quiet, loud = scan(replace(one, noise=0.0)).voxels.astype(float), scan(one).voxels.astype(float)
    air = loud[:, :10, :10]
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.05)
    assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.08)
    tissue = quiet > 12 * sigma
    assert (loud - quiet)[tissue].std() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("ratio", [0.0, 0.7, 1.5, 3.0, 10.0])
def test_the_magnitudes_square_has_the_moments_of_a_rician(ratio: float) -> None:
    """E m² = s² + 2 σ², var m² = 4 σ² s² + 4 σ⁴ (Gudbjartsson, MRM 1995;34:910)."""
    one = plan("T2", noise=0.05, bias=0.0)
    sigma = signal.noise_level(one)
    assert sigma <= scanner.AIR_NOISE, "louder air would be filtered"
    clean = np.full((8, 256, 256), ratio * sigma, np.float32)
    squared = scanner._received(clean, one, np.random.default_rng(0)).astype(np.float64) ** 2
    assert squared.mean() == pytest.approx(sigma**2 * (ratio**2 + 2), rel=0.01)
    assert squared.var() == pytest.approx(4 * sigma**4 * (ratio**2 + 1), rel=0.02)


def test_thick_slices_show_less_of_what_is_small() -> None:
    head = ball(np.array([0.0, 12.0, 4.0]))
    thin, thick = (scan(plan(thickness_mm=t, noise=0.0, bias=0.0), head=head).voxels.max() for t in (2.0, 24.0))
    assert thick < 0.8 * thin


def test_shading_motion_and_wraparound_each_change_the_image() -> None:
    quiet = plan("T1", noise=0.0, bias=0.0)
    clean = scan(quiet).voxels.astype(float)
    shaded = scan(replace(quiet, bias=0.4)).voxels.astype(float)
    ratio = shaded[clean > 300] / clean[clean > 300]
    assert ratio.std() > 0.03
    ghosts = scan(replace(quiet, motion=0.3)).voxels
    folded = scan(replace(quiet, wrap=0.08)).voxels
    background = clean < 5
    assert ghosts[background].mean() > 5
    assert folded.sum() > clean.sum()


def test_contrast_to_noise_is_high_where_a_finding_shows_and_low_where_it_does_not() -> None:
    dwi, t2, t1c, t1 = (scan(plan(sequence)).contrast_to_noise for sequence in ("DWI", "T2", "T1C", "T1"))
    assert len(dwi) == len(sick().case.findings)
    assert dwi[0] > 3 * t2[0]  # hyperacute: diffusion alone
    assert t1c[1] > 3 * t1[1]  # enhancement


def test_contrast_to_noise_falls_with_noise_and_is_zero_for_what_is_not_there() -> None:
    low, high = (scan(plan("DWI", noise=noise)).contrast_to_noise[0] for noise in (0.01, 0.04))
    assert low == pytest.approx(4 * high, rel=0.02)
    nowhere = replace(sick(), lesion=np.zeros_like(sick().lesion))
    assert set(scan(plan("DWI"), head=nowhere).contrast_to_noise) == {0.0}
