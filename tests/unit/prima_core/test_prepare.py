"""Files → prepared study: what is set aside on the way, when that ends the study, and the limit on kept patches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prima_core.base.errors import OutOfScope
from prima_core.prepare import prepare_study
from prima_core.scope import ScopeSettings
from prima_core.volume.geometry import Volume, read_volume
from prima_core.volume.series import SliceStack
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, write_enhanced, write_series, write_study


def test_a_study_becomes_patches_in_three_planes(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    study = prepare_study(write_study(tmp_path), on_progress=lambda n, total: done.append((n, total)))
    assert [series.name for series in study.series] == ["AX_FLAIR", "SAG_T1", "COR_T2"]
    assert [series.thin_axis for series in study.series] == [0, 2, 1]
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert study.description == "MRI BRAIN"
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


@pytest.mark.parametrize("error", [RuntimeError("Singular matrix"), MemoryError(), AssertionError("Test^Patient")])
def test_an_error_nobody_thought_of_sets_one_series_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first = iter([error])

    def read(stack: SliceStack) -> Volume:
        for raised in first:
            raise raised
        return read_volume(stack)

    monkeypatch.setattr("prima_core.prepare.read_volume", read)
    study = prepare_study(write_study(tmp_path))
    assert [series.name for series in study.series] == ["SAG_T1", "COR_T2"]
    assert [entry.reason for entry in study.set_aside] == [f"could not be read ({type(error).__name__})"]


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
