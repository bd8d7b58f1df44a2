"""A NIfTI volume gives the tokens of the DICOM series that it came from, however its converter turned the axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from prima_core.base.errors import UnusableSeries
from prima_core.base.types import PreparedSeries
from prima_core.prepare import prepare_series
from prima_core.scope import SeriesImages
from prima_core.volume.headers import read_image_header
from support.dicom_factory import PLANES, SeriesFacts, StudyFacts, head_phantom, write_series
from training.prepare.nifti import prepare_nifti, slice_axis

MAX_TOKENS = 5000


def turned(plane: str, tilt: float, turn: float) -> tuple[float, ...]:
    """The plane's orientation, rotated by degrees about the left–right and then the head–foot axis."""
    a, b = np.deg2rad([tilt, turn])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return tuple((np.reshape(PLANES[plane], (2, 3)) @ (about_x @ about_z).T).ravel())


def noisy_head(slices: int, side: int) -> npt.NDArray[np.uint16]:
    draw = np.random.default_rng(0)
    head = head_phantom(slices, side, side)
    return np.where(head, head + draw.integers(0, 50, head.shape), draw.integers(0, 20, head.shape)).astype(np.uint16)


Orientation = str | tuple[float, ...]
HOWS = ("as it is", "rows turned", "canonical", "float")


def both(
    folder: Path, orientation: Orientation, side: int, pixel: float, plane: str = ""
) -> tuple[PreparedSeries, dict[str, PreparedSeries]]:
    """The same voxels through DICOM, and through NIfTI in each of the forms."""
    voxels = noisy_head(22, side)
    facts = SeriesFacts(plane=orientation, spacing=(pixel, pixel), gap=5.5, origin=(-108.5, -99.25, -57.75))
    headers = [read_image_header(path) for path in write_series(folder, voxels, StudyFacts(), facts)]
    dicom = prepare_series(SeriesImages("1.2.3", tuple(headers)), MAX_TOKENS)
    path = folder / "volume.nii"
    found = {}
    for how in HOWS:
        nibabel.save(image_of(voxels, facts, how), path)
        found[how] = prepare_nifti(path, "1.2.3", dicom.name, MAX_TOKENS, plane)
    return dicom, found


def image_of(voxels: npt.NDArray[Any], facts: SeriesFacts, how: str) -> Any:
    """By the DICOM geometry (PS3.3 equation C.7.6.2.1-1), LPS turned into RAS."""
    row, column = np.reshape(facts.orientation, (2, 3))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * facts.spacing[1], column * facts.spacing[0]
    lps[:3, 2], lps[:3, 3] = np.cross(row, column) * facts.gap, facts.origin
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    values = voxels.transpose(2, 1, 0)
    if how == "rows turned":  # as the usual converter does it
        affine[:3, 3] += affine[:3, 1] * (values.shape[1] - 1)
        affine[:3, 1] *= -1
        values = values[:, ::-1]
    image = nibabel.Nifti1Image(values, affine)
    if how == "float":
        image = nibabel.Nifti1Image(values.astype(np.float32), affine)
    return nibabel.as_closest_canonical(image) if how == "canonical" else image


@pytest.mark.parametrize(
    ("orientation", "side", "pixel"),
    [
        ("axial", 256, 0.859375),
        ("sagittal", 320, 0.71875),
        ("coronal", 192, 1.15),
        (turned("axial", 17.3, 0), 256, 0.4687),
        (turned("sagittal", 7.1, 5.3), 192, 1.15),
        (turned("coronal", -12, 3), 256, 0.9),
    ],
)
def test_the_tokens_are_those_of_the_dicom_series(
    tmp_path: Path, orientation: Orientation, side: int, pixel: float
) -> None:
    """Which patches, in which order and from where is the same. Values: see the module `nifti`."""
    dicom, found = both(tmp_path, orientation, side, pixel)
    for nifti in found.values():
        assert (nifti.name, nifti.thin_axis, nifti.tokens_total) == (dicom.name, dicom.thin_axis, dicom.tokens_total)
        np.testing.assert_array_equal(nifti.token_ids, dicom.token_ids)
        np.testing.assert_array_equal(nifti.coordinates, dicom.coordinates)
        stored_units = np.abs(nifti.patches - dicom.patches) * noisy_head(22, side).max()
        assert stored_units.max() < 2.01


@pytest.mark.parametrize(("side", "pixel"), [(256, 0.859375), (320, 0.71875)])
def test_where_the_geometry_has_no_rounding_the_values_are_the_same_too(
    tmp_path: Path, side: int, pixel: float
) -> None:
    dicom, found = both(tmp_path, "axial", side, pixel)
    for nifti in found.values():
        np.testing.assert_array_equal(nifti.patches, dicom.patches)


def test_a_named_plane_wins_over_the_steps(tmp_path: Path) -> None:
    dicom, found = both(tmp_path, "sagittal", 256, 0.859375, "sagittal")
    np.testing.assert_array_equal(found["canonical"].token_ids, dicom.token_ids)
    with pytest.raises(UnusableSeries):  # 22 sagittal slices are too narrow for axial ones
        prepare_nifti(tmp_path / "volume.nii", "1", "n", MAX_TOKENS, "axial")


def saved(path: Path, values: npt.NDArray[Any], affine: npt.NDArray[Any] | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1, 4, 1]) if affine is None else affine), path)
    return path


HEAD = head_phantom(16, 128, 128).T.astype(np.float32)
SHEAR = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("values", "affine", "reason"),
    [
        (HEAD[..., :3], None, "3 slices are too few"),
        (np.stack([HEAD, HEAD], axis=3), None, "4 dimensions"),
        (HEAD[:, :, 0], None, "2 dimensions"),
        (np.where(HEAD > 800, np.nan, HEAD), None, "no numbers"),
        (np.zeros_like(HEAD), None, "constant"),
        (HEAD, np.diag([9.0, 9, 4, 1]), "field of view"),
        (HEAD, np.diag([1.0, 1, 40, 1]), "distance between slices"),
        (HEAD[:20], None, "fewer than 32"),
        (HEAD, SHEAR, "shears"),
        (HEAD.astype(np.complex64), None, "no grey values"),
    ],
)
def test_what_is_no_volume_of_a_head_is_set_aside(
    tmp_path: Path, values: npt.NDArray[Any], affine: npt.NDArray[Any] | None, reason: str
) -> None:
    path = saved(tmp_path / "x.nii", values, affine)
    with pytest.raises(UnusableSeries, match=reason):
        prepare_nifti(path, "1", "n", MAX_TOKENS)


def test_an_affine_without_volume_is_refused() -> None:
    for affine in (np.diag([1.0, 0, 4, 1]), np.full((4, 4), np.nan)):
        with pytest.raises(UnusableSeries, match="places no volume"):
            slice_axis(nibabel.Nifti1Header(), affine)


def test_damaged_files_are_set_aside(tmp_path: Path) -> None:
    whole = saved(tmp_path / "x.nii.gz", HEAD).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.nii.gz").write_bytes(b"no volume")
    (tmp_path / "text.nii").write_bytes(b"no volume" * 100)
    for name in ("cut.nii.gz", "text.nii.gz", "text.nii"):
        with pytest.raises(UnusableSeries, match="not a readable NIfTI volume"):
            prepare_nifti(tmp_path / name, "1", "n", MAX_TOKENS)


def test_a_header_that_claims_more_than_a_volume_is_set_aside_unread(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((30_000, 30_000, 3000))
    header.set_data_dtype(np.float64)
    (tmp_path / "x.nii").write_bytes(header.binaryblock + b"\0" * 100)
    with pytest.raises(UnusableSeries, match="larger than any"):
        prepare_nifti(tmp_path / "x.nii", "1", "n", MAX_TOKENS)
