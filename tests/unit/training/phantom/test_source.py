"""Phantoms as a source: prepared by the node's own code, under pseudonyms, picklable for worker processes."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from prima_core.prepare import prepare_study
from training.base.pseudonyms import Pseudonyms
from training.phantom.case import SIMULATED, draw_case
from training.phantom.prepared import finding_map, prepared
from training.phantom.priority import PRIORITIES, judge, level
from training.phantom.source import PhantomSource
from training.phantom.study import make_study, simulate, visit
from training.prepare.source import Source, SourceStudy

KEY = Pseudonyms(bytes(range(32)))
SEED = 12


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> SourceStudy:
    source: Source = PhantomSource(range(10, 20), "home", KEY)
    return source.fetch(str(SEED), tmp_path_factory.mktemp("scratch"))


@pytest.mark.parametrize(("seed", "domain"), [(SEED, "home"), (SEED, "away"), (5, "home")])
def test_what_is_prepared_without_files_is_what_the_files_give(seed: int, domain: str, tmp_path: Path) -> None:
    direct = prepared(simulate(seed, domain))
    make_study(seed, domain, tmp_path)
    read = prepare_study(sorted(tmp_path.iterdir()))
    assert (direct.study_instance_uid, direct.description) == (read.study_instance_uid, read.description)
    assert (direct.age_years, direct.set_aside) == (read.age_years, read.set_aside)
    assert len(direct.series) == len(read.series)
    for one, other in zip(direct.series, read.series, strict=True):
        for part in fields(one):
            if part.name != "sop_instance_uids":
                np.testing.assert_array_equal(getattr(one, part.name), getattr(other, part.name), part.name)


def test_findings_lie_where_the_phantom_has_them(fetched: SourceStudy) -> None:
    assert fetched.findings is not None
    located = fetched.findings.located
    assert located
    assert fetched.labels is not None
    assert all(fetched.labels.diagnosis[name] for name in located if name not in PRIORITIES)
    assert {name for name in located if name in PRIORITIES} == {fetched.labels.priority}
    covered = [fetched.findings.shares(series).max(axis=0) for series in fetched.prepared.series]
    assert (np.max(covered, axis=0) > 0).all()


def test_the_reason_for_the_priority_is_marked_and_nothing_else_with_it() -> None:
    both = simulate(next(seed for seed in range(200) if _has_a_reason_beside_others(seed)), "home").head
    reason = judge(both.case).priority
    marked = [reason in labels for labels in finding_map(both).labels]
    assert marked == [level(finding) == reason for finding in both.case.findings]
    assert True in marked
    assert False in marked


def _has_a_reason_beside_others(seed: int) -> bool:
    return len({level(finding) for finding in draw_case(seed).findings}) > 1


def test_the_map_of_findings_lies_where_the_head_does() -> None:
    head = simulate(SEED, "home").head
    found = finding_map(head)
    z, y, x = (int(axis[0]) for axis in np.nonzero(head.lesion))
    np.testing.assert_allclose(found.affine @ (z, y, x, 1), head.affine @ (x, y, z, 1))
    assert found.voxels[z, y, x] == head.lesion[z, y, x]


def test_references_are_the_seeds() -> None:
    assert PhantomSource(range(3, 6), "home", KEY).references() == ["3", "4", "5"]


def test_a_study_comes_prepared_labelled_and_reported(fetched: SourceStudy) -> None:
    assert fetched.prepared.set_aside == ()
    assert len(fetched.prepared.series) >= 3
    assert fetched.labels is not None
    assert set(fetched.labels.diagnosis) == set(SIMULATED)
    assert fetched.report is not None
    assert len(fetched.report.items) >= 4
    assert "findings" in json.loads(fetched.truth)


def test_the_record_holds_pseudonyms_alone(fetched: SourceStudy, tmp_path: Path) -> None:
    truth = make_study(SEED, "home", tmp_path)
    record = fetched.record
    assert record.study == KEY.study(truth.study_instance_uid)
    assert record.patient == KEY.patient(truth.patient_id)
    assert record.day == KEY.day(visit(SEED).day)
    assert record.age_years is not None
    assert record.age_years <= 89
    assert (record.sex, record.vendor, record.site) == (truth.case.sex, truth.vendor, truth.site)
    assert record.field_strength == truth.field_strength
    told = repr(record) + fetched.truth
    assert truth.study_instance_uid not in told
    assert truth.patient_id not in told


def test_the_source_travels_to_workers() -> None:
    source = PhantomSource((1, 2), "away", KEY)
    assert pickle.loads(pickle.dumps(source)) == source
