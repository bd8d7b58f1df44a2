"""The demo's study: three planes of MR images that say they are simulated, and nothing of a patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.demo.sample_study import PLANS, write_sample_study
from prima_core.prepare import prepare_study


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sample_study(tmp_path_factory.mktemp("sample"))


def test_every_image_says_that_it_is_simulated(files: list[Path]) -> None:
    assert len(files) == sum(plan.slices for plan in PLANS)
    for file in files:
        image = dcmread(file, stop_before_pixels=True)
        texts = (image.StudyDescription, image.SeriesDescription, str(image.PatientName), image.PatientID)
        assert all("SIMULATED" in text for text in texts)


def test_it_is_in_scope_with_one_series_in_each_plane(files: list[Path]) -> None:
    study = prepare_study(files)
    assert [series.thin_axis for series in study.series] == [0, 2, 1]
    assert study.set_aside == ()
    assert all(series.tokens_kept > 25 for series in study.series)


def test_the_same_seed_gives_the_same_pixels_under_new_uids(files: list[Path], tmp_path: Path) -> None:
    again = write_sample_study(tmp_path)
    first, second = dcmread(files[40]), dcmread(again[40])
    assert np.array_equal(first.pixel_array, second.pixel_array)
    assert first.StudyInstanceUID != second.StudyInstanceUID
