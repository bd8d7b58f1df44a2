"""A bright cube planted in a volume comes back where it was, in the patient and on the slices, however these lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prima_core.base.types import PreparedSeries
from prima_core.prepare import prepare_series
from prima_core.scope import SeriesImages
from prima_core.volume.geometry import as_image, read_slice
from prima_core.volume.headers import read_image_header
from prima_core.volume.heat_map import heat_map, pixel_positions
from prima_core.volume.series import Slice, choose_volume
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, write_enhanced, write_series

ROLL, PITCH = np.radians(17), np.radians(-11)
OBLIQUE = (
    *(np.cos(ROLL), np.sin(ROLL), 0.0),
    *(-np.sin(ROLL) * np.cos(PITCH), np.cos(ROLL) * np.cos(PITCH), np.sin(PITCH)),
)
PLANES = {"axial": "axial", "sagittal": "sagittal", "coronal": "coronal", "oblique": OBLIQUE}
CUBE = slice(9, 11), slice(40, 46), slice(70, 78)  # slices, rows, columns
Write = Callable[..., object]


def planted(
    folder: Path, plane: str | Sequence[float], write: Write, turned: bool, limit: int = 5000
) -> tuple[PreparedSeries, tuple[Slice, ...], SeriesFacts]:
    voxels = head_phantom(slices=22, rows=120, columns=140)
    voxels[CUBE] = 4000
    facts = SeriesFacts(plane=plane, spacing=(1.3, 1.1), gap=-4.2 if turned else 4.2, origin=(-70.0, -60.0, -44.0))
    write(folder, voxels, StudyFacts(), facts)
    images = tuple(read_image_header(path) for path in sorted(folder.iterdir()))
    series = prepare_series(SeriesImages("1.2", images), limit)
    used = [image for image in images if image.sop_instance_uid in series.sop_instance_uids]
    return series, choose_volume(used).slices, facts


def true_centre(facts: SeriesFacts) -> np.ndarray:
    middle = [(part.start + part.stop - 1) / 2 for part in CUBE]
    along_row, along_column = np.reshape(facts.orientation, (2, 3))
    in_plane = middle[2] * facts.spacing[1] * along_row + middle[1] * facts.spacing[0] * along_column
    return np.array(facts.position(middle[0])) + in_plane


def of_cube(patches: np.ndarray) -> np.ndarray:
    return patches > 0.7


@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
@pytest.mark.parametrize("write", [write_series, write_enhanced], ids=["classic", "enhanced"])
@pytest.mark.parametrize("plane", PLANES)
def test_the_cube_is_where_it_was_planted(tmp_path: Path, plane: str, write: Write, turned: bool) -> None:
    series, slices, facts = planted(tmp_path, PLANES[plane], write, turned)
    first_U3 = np.unique(np.column_stack([series.token_ids, series.coordinates]), axis=0)[:, 1:]
    patch, *in_patch = np.nonzero(of_cube(series.patches))
    voxel_N3 = first_U3[patch] + np.stack(in_patch, axis=1)
    assert series.affine is not None
    found = (voxel_N3 @ series.affine[:3, :3].T + series.affine[:3, 3]).mean(axis=0)
    assert np.abs(found - true_centre(facts)).max() < min(*facts.spacing, abs(facts.gap))

    hot_U = of_cube(series.patches).any(axis=(1, 2, 3)).astype(np.float64)
    heat = heat_map(series, hot_U)
    on_slices = np.stack([heat.on(plane.frame) for plane in slices])
    values = np.stack([read_slice(plane) for plane in slices])
    assert (on_slices[values == 4000] == 1).all()
    assert (values == 4000).sum() == np.prod([part.stop - part.start for part in CUBE])
    assert 0 < np.nansum(on_slices) * np.prod(facts.spacing) * abs(facts.gap) <= 1.05 * hot_U.sum() * patch_mm3(series)


def patch_mm3(series: PreparedSeries) -> float:
    assert series.affine is not None
    return float(abs(np.linalg.det(series.affine[:3, :3])) * np.prod(series.patches.shape[1:]))


@pytest.mark.parametrize("plane", PLANES)
def test_one_patch_covers_its_own_box_alone(tmp_path: Path, plane: str) -> None:
    series, slices, _ = planted(tmp_path, PLANES[plane], write_series, turned=False)
    shown = 0
    for row in (0, len(series.patches) // 2, len(series.patches) - 1):
        heat = heat_map(series, np.eye(len(series.patches))[row])
        [cell] = np.argwhere(heat.value_ZYX == 1)
        on_slices = np.stack([heat.on(plane.frame) for plane in slices])
        hot = on_slices == 1
        positions = np.stack([pixel_positions(plane.frame).reshape(*hot.shape[1:], 3) for plane in slices])
        if not hot.any():
            continue  # the whole patch lies in the padding beside the slices' edge
        inside = np.linalg.norm(positions[hot] - heat.centre(cell), axis=1)
        reach = np.linalg.norm(np.array(series.patches.shape[1:]) * np.linalg.norm(heat.affine[:3, :3], axis=0)) / 2
        assert inside.max() <= reach + 1e-6
        shown += 1
    assert shown >= 2


def test_a_thinned_series_maps_back_too(tmp_path: Path) -> None:
    series, slices, _ = planted(tmp_path, OBLIQUE, write_series, turned=False, limit=100)
    assert len(slices) < 22
    hot_U = of_cube(series.patches).any(axis=(1, 2, 3)).astype(np.float64)
    on_slices = np.stack([heat_map(series, hot_U).on(plane.frame) for plane in slices])
    values = np.stack([read_slice(plane) for plane in slices])
    assert (values == 4000).any()
    assert (on_slices[values == 4000] == 1).all()


def test_what_the_model_did_not_read_has_no_value(tmp_path: Path) -> None:
    series, slices, _ = planted(tmp_path, "axial", write_series, turned=False)
    on_slices = np.stack([heat_map(series, np.ones(len(series.patches))).on(plane.frame) for plane in slices])
    assert np.isnan(on_slices).any()
    assert set(np.unique(on_slices[~np.isnan(on_slices)])) == {1.0}
    with pytest.raises(ValueError, match="nothing says where"):
        heat_map(replace(series, affine=None), np.ones(len(series.patches)))


def test_an_image_of_the_slices_lies_where_they_do(tmp_path: Path) -> None:
    _, slices, facts = planted(tmp_path, OBLIQUE, write_series, turned=True)
    image: sitk.Image = as_image(np.stack([read_slice(plane) for plane in slices]), slices)
    bright = np.argwhere(sitk.GetArrayFromImage(image) == 4000).mean(axis=0)[::-1]
    found = image.TransformContinuousIndexToPhysicalPoint(bright.tolist())
    np.testing.assert_allclose(found, true_centre(facts), atol=1e-3)
