"""A study's files → kept patches, against the tensors of the published inference code: equal, not close.

Does not cover what needs torch (latents and later stages).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.prepare import prepare_study
from prima_core.scope import SeriesImages, select_series
from prima_core.volume.geometry import Volume, read_volume
from prima_core.volume.headers import read_headers
from prima_core.volume.patches import patch_grid
from prima_core.volume.selection import kept_patches
from prima_core.volume.series import choose_volume

FOLDERS = {"BRAINIX": "brainix", "GOLD0001": "prima_golden/GOLD0001.study"}
CASES = [("BRAINIX", 0), ("BRAINIX", 1), ("GOLD0001", 0), ("GOLD0001", 1), ("GOLD0001", 2)]


def files_of(shared_data: Path, study: str) -> list[Path]:
    return sorted((shared_data / FOLDERS[study]).rglob("*.dcm"))


@pytest.fixture(scope="module")
def prepared(shared_data: Path) -> dict[str, PreparedStudy]:
    return {study: prepare_study(files_of(shared_data, study)) for study in FOLDERS}


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    return {study: load_file(shared_data / "prima_golden" / f"{study}.safetensors") for study in FOLDERS}


@pytest.fixture(scope="module")
def names(shared_data: Path) -> dict[str, Any]:
    return {study: json.loads((shared_data / "prima_golden" / f"{study}.json").read_text()) for study in FOLDERS}


def series_named(study: PreparedStudy, name: str) -> PreparedSeries:
    return next(series for series in study.series if series.name == name)


@pytest.mark.parametrize(("study", "index"), CASES)
def test_volume_and_thin_axis_equal_the_reference(shared_data, golden, names, study, index) -> None:
    volume = volume_named(shared_data, study, names[study]["series"][index]["dir"])
    expected = golden[study][f"series{index}.volume"]
    assert volume.voxels.dtype == expected.dtype
    assert np.array_equal(volume.voxels, expected)
    assert volume.thin_axis == int(np.argmin(expected.shape))  # no series here is 256 slices deep


@pytest.mark.parametrize(("study", "index"), CASES)
def test_kept_patches_equal_the_reference(prepared, golden, names, study, index) -> None:
    series = series_named(prepared[study], names[study]["series"][index]["name"])
    tensors = golden[study]
    assert np.array_equal(series.token_ids, tensors[f"series{index}.kept_token_ids"])
    assert np.array_equal(series.coordinates, tensors[f"series{index}.kept_token_coords"])
    assert series.tokens_total == len(tensors[f"series{index}.token_mean"])
    first = series.patches[np.searchsorted(np.unique(series.token_ids), series.token_ids[0])]
    np.testing.assert_allclose(
        np.repeat(first, 2, axis=series.thin_axis), tensors[f"series{index}.first_kept_token"], atol=1e-7
    )


@pytest.mark.parametrize(("study", "index"), CASES)
def test_every_patch_has_the_mean_of_the_reference(shared_data, golden, names, study, index) -> None:
    volume = volume_named(shared_data, study, names[study]["series"][index]["dir"])
    grid = patch_grid(volume.voxels, volume.thin_axis)
    patches = np.repeat(grid.gather(np.arange(len(grid.fill))), 2, axis=1 + volume.thin_axis)
    np.testing.assert_allclose(
        patches.mean(axis=(1, 2, 3)), golden[study][f"series{index}.token_mean"], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("study", list(FOLDERS))
def test_study_description_and_names_equal_the_reference(prepared, names, study) -> None:
    assert prepared[study].description == names[study]["study_description"]
    assert {s.name for s in prepared[study].series} == {s["name"] for s in names[study]["series"]}
    assert prepared[study].set_aside == ()


def test_selection_agrees_with_the_reference_on_duplicates_and_sparse_grids(shared_data) -> None:
    cases = json.loads((shared_data / "prima_golden" / "selection_golden.json").read_text())
    for case in cases:
        ids = kept_patches(np.array(case["fill"]), tuple(case["grid"]))
        assert ids.tolist() == case["kept"]
    assert any(len(set(case["kept"])) < len(case["kept"]) for case in cases)


def volume_named(shared_data: Path, study: str, folder: str) -> Volume:
    files = [path for path in files_of(shared_data, study) if path.parent.name == folder]
    images = SeriesImages("", read_headers(files).images)
    return read_volume(choose_volume(images.images))


def test_a_selection_holds_the_series_in_the_order_of_their_numbers(shared_data) -> None:
    selection = select_series(read_headers(files_of(shared_data, "BRAINIX")))
    assert [series.images[0].series_number for series in selection.series] == [401, 501]
