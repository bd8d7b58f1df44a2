"""Slices → volume: orientation, order, multi-frame, mosaics, rescale, coding of the pixels.

Voxels with whole-millimetre geometry at 256 × 256 are used where volumes must be equal: there the resampling is exact.
Does not cover the numerical identity with the reference on real geometry (see `test_prepare_golden.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from prima_core.base.errors import UnusableSeries
from prima_core.volume.geometry import Volume, _resampled, read_volume, resampled_to_lps
from prima_core.volume.headers import read_headers
from prima_core.volume.series import choose_volume
from support.dicom_factory import (
    LOSSLESS_SYNTAXES,
    SeriesFacts,
    StudyFacts,
    enhanced_image,
    head_phantom,
    mosaic_image,
    write,
    write_enhanced,
    write_series,
)

STUDY = StudyFacts()
AXES = np.eye(3)


def volume_of(paths: Sequence[Path]) -> Volume:
    return read_volume(choose_volume(read_headers(paths).images))


def cube(seed: int, shape: tuple[int, int, int] = (256, 256, 256)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


ORIENTATIONS = [
    (axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)
]  # which LPS axis columns, rows and slices run along, and which way


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.integers(0, 2**31))
def test_any_orientation_and_slice_order_of_the_same_voxels_gives_the_same_volume(
    orientation: tuple[tuple[int, ...], tuple[int, ...]], seed: int
) -> None:
    """The anatomy is (S, P, L) with 8 thick slices on some axis; it is stored as a scanner in any pose would."""
    (across, down, through), signs = orientation
    rng = np.random.default_rng(seed)
    shape = [256, 256, 256]
    shape[2 - through] = 8
    anatomy = rng.integers(0, 4000, shape).astype(np.uint16)
    step = np.ones(3)
    step[through] = 4.0
    stored = anatomy.transpose(2 - through, 2 - down, 2 - across)  # slices, rows, columns
    stored = stored[:: signs[2], :: signs[1], :: signs[0]]
    extent = np.array(shape[::-1]) - 1
    start = np.zeros(3)
    for axis, sign in zip((across, down, through), signs, strict=True):
        start[axis] = 0 if sign > 0 else extent[axis] * step[axis]
    row, column = signs[0] * AXES[across], signs[1] * AXES[down]
    normal = signs[2] * AXES[through]
    # The factory stacks along the cross product; a left-handed pose is the same slices counted backwards.
    if np.cross(row, column) @ normal < 0:
        stored, start = stored[::-1], start + normal * 7 * 4.0
    facts = SeriesFacts(plane=(*row, *column), origin=tuple(start), gap=4.0)
    with TemporaryDirectory() as folder:
        paths = write_series(Path(folder), stored, STUDY, facts, order=rng.permutation(8).tolist())
        volume = volume_of([paths[k] for k in rng.permutation(8)])
    assert volume.thin_axis == 2 - through
    np.testing.assert_array_equal(volume.voxels, anatomy)


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_a_series_256_slices_deep_keeps_its_slice_axis(tmp_path: Path, plane: str) -> None:
    voxels = cube(1)
    path = write_enhanced(tmp_path, voxels, STUDY, SeriesFacts(plane=plane, gap=1.0))
    volume = volume_of([path])
    assert volume.voxels.shape == (256, 256, 256)
    assert volume.thin_axis == {"axial": 0, "coronal": 1, "sagittal": 2}[plane]
    assert np.moveaxis(volume.voxels, volume.thin_axis, 0)[5].sum() in {int(v.sum()) for v in voxels}


def test_an_oblique_series_with_oblong_pixels_becomes_256_square(tmp_path: Path) -> None:
    angle = np.radians(25)
    plane = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    facts = SeriesFacts(plane=plane, spacing=(0.7, 1.3))
    volume = volume_of(write_series(tmp_path, head_phantom(12, 320, 176), STUDY, facts))
    assert volume.voxels.shape == (12, 256, 256)
    assert volume.thin_axis == 0
    assert volume.voxels.dtype == np.int16
    assert volume.voxels.max() <= head_phantom(12, 320, 176).max()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_enhanced_multi_frame_gives_the_volume_of_the_single_frame_series(
    tmp_path: Path, plane: str, shared: bool
) -> None:
    facts = SeriesFacts(
        plane=plane,
        spacing=(0.75, 1.25),
        gap=3.5,
        extra={"RescaleSlope": 2, "RescaleIntercept": -5},
        image_type=("ORIGINAL", "PRIMARY", "T2", "NONE"),
    )
    voxels = head_phantom(10, 200, 240)
    single = volume_of(write_series(tmp_path / "single", voxels, STUDY, facts))
    multi = volume_of([write_enhanced(tmp_path / "multi", voxels, STUDY, facts, shared=shared)])
    assert multi.thin_axis == single.thin_axis
    np.testing.assert_array_equal(multi.voxels, single.voxels)


def test_frames_in_any_order_give_the_same_volume(tmp_path: Path) -> None:
    voxels = cube(2, (8, 256, 256))
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    ds = enhanced_image(voxels[order], STUDY, SeriesFacts())
    for frame, index in zip(ds.PerFrameFunctionalGroupsSequence, order, strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = SeriesFacts().position(index)
    np.testing.assert_array_equal(volume_of([write(ds, tmp_path / "a.dcm")]).voxels, voxels)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_a_siemens_mosaic_gives_the_volume_of_its_slices(tmp_path: Path, plane: str, sign: int) -> None:
    voxels, facts = head_phantom(11, 64, 64), SeriesFacts(plane=plane, spacing=(3.0, 3.0))
    slices = volume_of(write_series(tmp_path / "slices", voxels, STUDY, facts))
    mosaic = write(mosaic_image(voxels, STUDY, facts, normal_sign=sign), tmp_path / "mosaic.dcm")
    unpacked = volume_of([mosaic])
    assert unpacked.thin_axis == slices.thin_axis
    np.testing.assert_allclose(unpacked.voxels, slices.voxels, atol=1)  # another first slice, another last bit


def test_a_mosaic_of_unknown_slice_order_is_refused(tmp_path: Path) -> None:
    path = write(mosaic_image(head_phantom(11, 64, 64), STUDY, csa=False), tmp_path / "mosaic.dcm")
    assert "order of its slices is not known" in read_headers([path]).images[0].problem


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES)
def test_every_lossless_coding_gives_the_same_volume(tmp_path: Path, syntax: str) -> None:
    voxels = cube(3, (4, 256, 256))
    paths = write_series(tmp_path, voxels, STUDY, transfer_syntax=syntax)
    np.testing.assert_array_equal(volume_of(paths).voxels, voxels)
    path = write_enhanced(tmp_path, voxels, STUDY, transfer_syntax=syntax)
    np.testing.assert_array_equal(volume_of([path]).voxels, voxels)


def test_baseline_jpeg_is_read(tmp_path: Path) -> None:
    voxels = (head_phantom(4, 256, 256) // 4).astype(np.uint8)
    volume = volume_of(write_series(tmp_path, voxels, STUDY, transfer_syntax=JPEGBaseline8Bit))
    assert np.abs(volume.voxels.astype(int) - voxels).mean() < 3


def test_signed_pixels_keep_their_sign(tmp_path: Path) -> None:
    voxels = cube(4, (4, 256, 256)).astype(np.int16) - 2000
    np.testing.assert_array_equal(volume_of(write_series(tmp_path, voxels, STUDY)).voxels, voxels)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, 0, np.int16), (2, -100, np.int16), (100, 0, np.int32), (0.5, 0, np.float32), (1, 0.25, np.float32)],
)
def test_rescale_keeps_integers_where_it_can(tmp_path: Path, slope: float, intercept: float, dtype: type) -> None:
    voxels = cube(5, (4, 256, 256))
    facts = SeriesFacts(extra={"RescaleSlope": slope, "RescaleIntercept": intercept})
    volume = volume_of(write_series(tmp_path, voxels, STUDY, facts))
    assert volume.voxels.dtype == dtype
    np.testing.assert_allclose(volume.voxels, voxels.astype(np.int64) * slope + intercept)


def test_sixteen_bits_do_not_overflow(tmp_path: Path) -> None:
    voxels = cube(6, (4, 256, 256)) * 16
    volume = volume_of(write_series(tmp_path, voxels, STUDY, SeriesFacts(bits_stored=16)))
    np.testing.assert_array_equal(volume.voxels, voxels)


def test_a_constant_image_is_unusable(tmp_path: Path) -> None:
    paths = write_series(tmp_path, np.full((6, 64, 64), 300, np.uint16), STUDY)
    with pytest.raises(UnusableSeries, match="constant"):
        volume_of(paths)


def test_values_that_are_no_numbers_are_unusable(tmp_path: Path) -> None:
    facts = SeriesFacts(extra={"RescaleSlope": "1e38", "RescaleIntercept": "0.5"})
    with pytest.raises(UnusableSeries, match="no numbers"):
        volume_of(write_series(tmp_path, head_phantom(6, 64, 64), STUDY, facts))


def test_cut_pixel_data_is_unusable(tmp_path: Path) -> None:
    paths = write_series(tmp_path, head_phantom(6, 64, 64), STUDY)
    paths[2].write_bytes(paths[2].read_bytes()[:-500])
    with pytest.raises(UnusableSeries, match="cannot be decoded"):
        volume_of(paths)


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES[4:])
def test_damaged_compressed_pixels_are_unusable(tmp_path: Path, syntax: str) -> None:
    paths = write_series(tmp_path, head_phantom(6, 64, 64), STUDY, transfer_syntax=syntax)
    data = bytearray(paths[2].read_bytes())
    data[-600:] = data[-600:][::-1]
    paths[2].write_bytes(data)
    with pytest.raises(UnusableSeries, match="cannot be decoded"):
        volume_of(paths)


@pytest.mark.filterwarnings("ignore:The decoded RLE segment")
def test_a_run_length_stream_that_overflows_does_no_harm(tmp_path: Path) -> None:
    """pylibjpeg's decoder panics on it, and a panic is no `Exception`."""
    runs = b"\x81\x07" * 100  # 12,800 bytes for a plane of 4,096
    header = np.array([2, 64, 64 + len(runs), *[0] * 13], "<u4").tobytes()

    def overflow(ds: Any, index: int) -> None:
        ds.compress(RLELossless, generate_instance_uid=False)
        if index == 2:
            ds.PixelData = encapsulate([header + runs * 2])

    paths = write_series(tmp_path, head_phantom(6, 64, 64), STUDY, edit=overflow, transfer_syntax=RLELossless)
    assert (volume_of(paths).voxels[2] == 0x0707 & 0x0FFF).any()


def test_a_codestream_larger_than_the_header_says_is_not_decoded(tmp_path: Path) -> None:
    def shrink(ds: Any, index: int) -> None:
        ds.compress("1.2.840.10008.1.2.4.90", generate_instance_uid=False)
        ds.Rows, ds.Columns = 60, 60

    paths = write_series(
        tmp_path, head_phantom(6, 64, 64), STUDY, edit=shrink, transfer_syntax="1.2.840.10008.1.2.4.90"
    )
    with pytest.raises(UnusableSeries, match="cannot be decoded"):
        volume_of(paths)


def test_values_greater_than_those_of_any_image_are_unusable(tmp_path: Path) -> None:
    facts = SeriesFacts(extra={"RescaleSlope": "100000"})
    with pytest.raises(UnusableSeries, match="greater than those of any image"):
        volume_of(write_series(tmp_path, head_phantom(6, 64, 64), STUDY, facts))


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES)
def test_bits_above_bits_stored_are_unusable(tmp_path: Path, syntax: str) -> None:
    voxels = head_phantom(4, 64, 64)
    voxels[2, 5, 5] |= 1 << 12

    def narrow(ds: Any, index: int) -> None:
        if syntax in LOSSLESS_SYNTAXES[4:]:
            ds.compress(syntax, generate_instance_uid=False)
        ds.BitsStored, ds.HighBit = 12, 11

    facts = SeriesFacts(bits_stored=16)
    with pytest.raises(UnusableSeries, match="beyond its Bits Stored"):
        volume_of(write_series(tmp_path, voxels, STUDY, facts, edit=narrow, transfer_syntax=syntax))


def test_more_slices_than_any_scan_has_are_refused(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path, np.zeros((1025, 32, 32), np.uint8), STUDY, SeriesFacts(spacing=(2, 2), gap=0.5))
    with pytest.raises(UnusableSeries, match="larger than any"):
        volume_of([path])


def test_a_volume_beyond_all_reason_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    def enlarge(ds: Any) -> None:
        ds.compress(RLELossless, generate_instance_uid=False)  # native pixels would be too short for the header
        ds.Rows, ds.Columns = 8192, 8192

    facts = SeriesFacts(spacing=(0.02, 0.02))
    path = write_enhanced(tmp_path, head_phantom(16, 64, 64), STUDY, facts, edit=enlarge, transfer_syntax=RLELossless)
    with pytest.raises(UnusableSeries, match="larger than any"):
        volume_of([path])


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_voxels_are_turned_as_itk_turns_them(tilt: float) -> None:
    """In all 48 orientations, straight and tilted: the same voxels, and the same affine to the last bits."""
    cosine, sine = np.cos(tilt), np.sin(tilt)
    tilted = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        image = sitk.GetImageFromArray(np.arange(3 * 256 * 256, dtype=np.int32).reshape(3, 256, 256))
        image.SetDirection((tilted @ np.eye(3)[:, order] * signs).ravel().tolist())
        image.SetSpacing((0.9, 0.9, 5.5))
        image.SetOrigin((11.0, -20.5, 3.25))
        volume, exact = resampled_to_lps(image), sitk.DICOMOrient(_resampled(image), "LPS")
        np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(exact))
        corner = [size - 1 for size in exact.GetSize()]
        for index in ([0, 0, 0], corner):
            there = volume.affine @ [*index[::-1], 1]
            np.testing.assert_allclose(there[:3], exact.TransformIndexToPhysicalPoint(index), rtol=0, atol=1e-9)
