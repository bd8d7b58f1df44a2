"""Files → prepared study: what is set aside on the way, when that ends the study, and the limit on kept patches."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from prima_core.base.errors import OutOfScope
from prima_core.prepare import prepare_selection, prepare_study
from prima_core.scope import ScopeSettings, select_series
from prima_core.volume.geometry import Volume, read_volume
from prima_core.volume.headers import read_headers
from prima_core.volume.patches import patch_grid
from prima_core.volume.series import SliceStack
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, write_enhanced, write_series, write_study


def test_a_study_becomes_patches_in_three_planes(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    study = prepare_study(write_study(tmp_path), on_progress=lambda n, total: done.append((n, total)))
    assert [series.name for series in study.series] == ["AX_FLAIR", "SAG_T1", "COR_T2"]
    assert [series.thin_axis for series in study.series] == [0, 2, 1]
    assert done[-3:] == [(1, 3), (2, 3), (3, 3)]
    assert study.description == "MRI BRAIN"
    assert study.seconds > 0
    for series in study.series:
        distinct = np.unique(series.token_ids)
        assert series.tokens_total == 4 * 64
        assert series.patches.shape[0] == len(distinct)
        assert series.patches.shape[1 + series.thin_axis] == 4
        assert series.patches.dtype == np.float32
        assert 0 < series.patches.max() <= 1
        assert series.coordinates.shape == (series.tokens_kept, 3)
        assert len(series.sop_instance_uids) == 16


def test_the_order_of_files_changes_nothing(tmp_path: Path) -> None:
    paths = write_study(tmp_path)
    one, other = prepare_study(paths), prepare_study(paths[::-1])
    for a, b in zip(one.series, other.series, strict=True):
        assert a.series_instance_uid == b.series_instance_uid
        np.testing.assert_array_equal(a.patches, b.patches)


def test_a_broken_series_is_set_aside_and_the_study_goes_on(tmp_path: Path) -> None:
    paths = write_study(tmp_path)
    broken = paths[3]
    broken.write_bytes(broken.read_bytes()[:-1000])
    study = prepare_study(paths)
    assert [series.name for series in study.series] == ["SAG_T1", "COR_T2"]
    assert "cannot be decoded" in study.set_aside[0].reason


def failing_once(error: Exception) -> Callable[[SliceStack], Volume]:
    first = iter([error])

    def read(stack: SliceStack) -> Volume:
        for raised in first:
            raise raised
        return read_volume(stack)

    return read


@pytest.mark.parametrize("error", [RuntimeError("Singular matrix"), AssertionError("Test^Patient"), OSError("cut")])
def test_an_error_nobody_thought_of_sets_one_series_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("prima_core.prepare.read_volume", failing_once(error))
    study = prepare_study(write_study(tmp_path))
    assert [series.name for series in study.series] == ["SAG_T1", "COR_T2"]
    (entry,) = study.set_aside
    assert re.fullmatch(rf"could not be read \({type(error).__name__} at test_prepare.py:\d+\)", entry.reason)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MemoryError(), MemoryError),
        (OSError(errno.EMFILE, "too many open files"), OSError),
        (
            RuntimeError("Exception thrown in SimpleITK: itk.hxx:179:\nFailed to allocate memory for image."),
            MemoryError,
        ),
    ],
)
def test_the_machines_trouble_sets_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    monkeypatch.setattr("prima_core.prepare.read_volume", failing_once(error))
    with pytest.raises(raised):
        prepare_study(write_study(tmp_path))


def test_an_image_that_goes_while_the_study_is_read_sets_nothing_aside(tmp_path: Path) -> None:
    paths = write_study(tmp_path)
    selection = select_series(read_headers(paths))
    paths[5].unlink()
    with pytest.raises(FileNotFoundError):
        prepare_selection(selection, ScopeSettings())


def test_a_prepared_study_says_the_age_that_the_scope_check_went_by(tmp_path: Path) -> None:
    study = StudyFacts(birth_date="", age="054Y")
    paths = write_study(tmp_path, study)
    assert prepare_study(paths).age_years == 54
    younger = replace(study, age="017Y")
    paths += write_series(tmp_path, head_phantom(), younger, SeriesFacts(number=9, description="AX T1"))
    assert prepare_study(paths).age_years == 17
    assert "age_years" not in repr(prepare_study(paths))


def test_too_few_whole_series_end_out_of_scope_with_all_reasons(tmp_path: Path) -> None:
    paths = write_study(tmp_path)
    for broken in (paths[3], paths[20]):
        broken.unlink()
    with pytest.raises(OutOfScope, match="1 series of the head that can be read as volumes, at least 2") as error:
        prepare_study([path for path in paths if path.exists()])
    assert ["missing" in entry.reason for entry in error.value.set_aside] == [True, True]


def test_past_the_limit_slices_are_thinned_evenly_and_it_is_said(tmp_path: Path) -> None:
    paths = write_series(tmp_path, head_phantom(48), StudyFacts(), SeriesFacts(gap=1.0))
    whole = prepare_study(paths, ScopeSettings(min_series=1)).series[0]
    limit = whole.tokens_kept // 2
    thinned = prepare_study(paths, ScopeSettings(min_series=1, max_kept_tokens=limit)).series[0]
    assert whole.notes == ()
    assert thinned.tokens_kept <= limit
    assert "of 48 was used" in thinned.notes[0]
    assert len(whole.sop_instance_uids) == 48


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)])
def test_images_that_were_thinned_out_are_not_listed_as_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plane: str | tuple[float, ...]
) -> None:
    """Every slice has a brightness of its own, by which the slices in the thinned volume are recognised."""
    voxels = np.clip(head_phantom(33), 0, 1) * np.arange(100, 1420, 40, dtype=np.uint16)[:, None, None]
    voxels[:, 0, 0] += 1  # also where the phantom is narrow
    facts = SeriesFacts(gap=2.0, plane=plane)
    paths = write_series(tmp_path, voxels, StudyFacts(), facts)
    grids = []
    monkeypatch.setattr("prima_core.prepare.patch_grid", lambda *given: grids.append(given) or patch_grid(*given))
    whole = prepare_study(paths, ScopeSettings(min_series=1)).series[0]
    thinned = prepare_study(paths, ScopeSettings(min_series=1, max_kept_tokens=whole.tokens_kept // 2)).series[0]
    used, axis = grids[-1]
    brightness = np.moveaxis(used, axis, 0).reshape(used.shape[axis], -1).max(axis=1)
    values = {str(dcmread(path).SOPInstanceUID): dcmread(path).pixel_array.max() for path in paths}
    assert 4 <= len(thinned.sop_instance_uids) < 33
    np.testing.assert_allclose([int(values[uid]) for uid in thinned.sop_instance_uids], brightness, atol=1)


def test_a_limit_that_no_thinning_meets_sets_the_series_aside(tmp_path: Path) -> None:
    with pytest.raises(OutOfScope) as error:
        prepare_study(write_study(tmp_path), ScopeSettings(max_kept_tokens=3))
    assert all("more than 3 patches" in entry.reason for entry in error.value.set_aside)


def test_multi_frame_and_single_frame_series_give_the_same_patches(tmp_path: Path) -> None:
    study = StudyFacts()
    single = write_series(tmp_path, head_phantom(12), study, SeriesFacts(number=1))
    multi = write_enhanced(tmp_path, head_phantom(12), study, SeriesFacts(number=2))
    one, other = prepare_study([*single, multi]).series
    np.testing.assert_array_equal(one.token_ids, other.token_ids)
    np.testing.assert_array_equal(one.patches, other.patches)


def test_preparing_needs_no_torch() -> None:
    code = "import sys, prima_core.prepare; sys.exit(bool({'torch', 'monai', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[3]).returncode == 0
