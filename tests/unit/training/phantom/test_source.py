"""Phantoms as a source: prepared by the node's own code, under pseudonyms, picklable for worker processes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from training.base.pseudonyms import Pseudonyms
from training.phantom.case import SIMULATED
from training.phantom.source import PhantomSource
from training.phantom.study import make_study, visit
from training.prepare.source import Source, SourceStudy

KEY = Pseudonyms(bytes(range(32)))
SEED = 12


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> SourceStudy:
    source: Source = PhantomSource(range(10, 20), "home", KEY)
    return source.fetch(str(SEED), tmp_path_factory.mktemp("scratch"))


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
