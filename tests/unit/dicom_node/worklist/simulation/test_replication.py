"""Pairs of runs: the same studies with the flag and without it."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.worklist.simulation.illustration import ILLUSTRATION
from dicom_node.worklist.simulation.replication import Replication, replications
from dicom_node.worklist.simulation.scenario import Run, Scenario

SHORT = Run(weeks=1, margin_days=2, replications=5)


def play(**parts: object) -> list[Replication]:
    return list(replications(Scenario.model_validate(ILLUSTRATION.model_dump() | {"run": SHORT} | parts)))


def test_a_flag_that_says_nothing_changes_nothing() -> None:
    blind = [finding.model_dump() | {"sensitivity": 0} for finding in ILLUSTRATION.findings]
    for one in play(findings=blind, flag=ILLUSTRATION.flag.model_dump() | {"specificity": 1}):
        assert not one.studies.flagged.any()
        assert np.array_equal(one.without, one.with_flag)


def test_only_the_measured_days_count() -> None:
    for one in play():
        assert one.studies.arrival.min() >= 2 * 1440
        assert one.studies.arrival.max() < 9 * 1440
        assert len(one.without) == len(one.with_flag) == len(one.too_late) == len(one.studies.arrival)


def test_the_same_seed_gives_the_same_and_replications_differ() -> None:
    first, again = play(), play()
    assert all(np.array_equal(a.with_flag, b.with_flag) for a, b in zip(first, again, strict=True))
    assert len({one.without.sum() for one in first}) == 5


def test_the_flag_is_too_late_once_reading_has_begun() -> None:
    one = play()[0]
    delay = one.studies.flag_at - one.studies.arrival
    assert np.array_equal(one.too_late, one.studies.flagged & (one.with_flag < delay))
    assert 0 < one.too_late.sum() < one.studies.flagged.sum()


def test_a_flag_after_hours_is_always_too_late() -> None:
    slow = ILLUSTRATION.flag.model_dump() | {"delay": {"distribution": "constant", "mean_minutes": 1e6}}
    for one in play(flag=slow):
        assert np.array_equal(one.too_late, one.studies.flagged)
        assert np.array_equal(one.without, one.with_flag)


def test_utilisation_is_about_the_load() -> None:
    busy = np.mean([one.busy for one in play()])
    assert busy == pytest.approx(ILLUSTRATION.load, rel=0.05)
