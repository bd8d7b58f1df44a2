"""Groups, means and percentiles from replications whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.base.types import Level
from dicom_node.worklist.simulation.draw import Studies
from dicom_node.worklist.simulation.illustration import ILLUSTRATION
from dicom_node.worklist.simulation.replication import Replication
from dicom_node.worklist.simulation.scenario import LEVELS
from dicom_node.worklist.simulation.summary import Group, Kind, Summary, kinds, summarise

CRITICAL, URGENT = LEVELS.index(Level.CRITICAL), LEVELS.index(Level.URGENT)
SATURDAY = 5 * 1440.0


def replication(shift: float) -> Replication:
    """Critical and flagged, critical and missed; without a finding: flagged, left alone, left alone on a Saturday."""
    studies = Studies(
        arrival=np.array([1.0, 2.0, 3.0, 4.0, SATURDAY]),
        site=np.array([0, 0, 0, 1, 1]),
        age=np.array([0, 1, 1, 2, 2]),
        true=np.array([CRITICAL, CRITICAL, 0, 0, 0]),
        ordered=np.array([0, 0, URGENT, 0, 0]),
        flagged=np.array([True, False, True, False, False]),
        flag_rank=np.array([CRITICAL, CRITICAL, URGENT, URGENT, URGENT]),
        flag_at=np.array([3.0, 4.0, 5.0, 6.0, SATURDAY + 2]),
        reading=np.full(5, 10.0),
    )
    without = np.array([20.0, 30.0, 40.0, 50.0, 0.0])
    change = np.array([-10.0, 5.0, 0.0, 5.0, 1.0]) + shift
    return Replication(studies, without, without + change, np.array([False, False, True, False, False]), 0.5)


@pytest.fixture
def summary() -> Summary:
    return summarise(ILLUSTRATION, [replication(shift) for shift in (-2, -1, 0, 1, 2)])


def group(summary: Summary, **kind: object) -> Group:
    found = summary.group(Kind(**kind))  # type: ignore[arg-type]
    assert found is not None
    return found


def test_everything(summary: Summary) -> None:
    everything = group(summary)
    assert everything.studies == 5
    assert everything.without.mean.mean == 28
    assert everything.without.median == 30
    assert everything.difference.mean == pytest.approx(0.2)
    assert everything.flagged == pytest.approx(0.4)
    assert everything.raised == pytest.approx(0.2)
    assert everything.too_late == pytest.approx(0.5)
    assert summary.studies_a_day == pytest.approx(5 / 28)
    assert summary.busy.mean == 0.5


def test_by_true_level_and_flag_outcome(summary: Summary) -> None:
    found = {
        (kind.level, kind.outcome): one.difference.mean
        for one in summary.groups
        if (kind := one.kind).subgroup == "all" and kind.level
    }
    assert found == pytest.approx(
        {
            (Level.CRITICAL, "all"): -2.5,
            (Level.CRITICAL, "true positive"): -10,
            (Level.CRITICAL, "false negative"): 5,
            (Level.ROUTINE, "all"): 2,
            (Level.ROUTINE, "false positive"): 0,
            (Level.ROUTINE, "true negative"): 3,
        }
    )


def test_by_site_day_and_age(summary: Summary) -> None:
    sites, ages = ILLUSTRATION.sites, ILLUSTRATION.age_bands
    routine = {"level": Level.ROUTINE}
    assert group(summary, subgroup="site", value=sites[1].name, **routine).without.mean.mean == 25
    assert group(summary, subgroup="age", value=ages[1].name, **routine).without.mean.mean == 40
    assert group(summary, subgroup="day", value="weekend", **routine).without.mean.mean == 0
    assert group(summary, subgroup="day", value="weekday", level=Level.CRITICAL).studies == 2


def test_kinds_without_a_study_are_left_out(summary: Summary) -> None:
    assert summary.group(Kind(level=Level.URGENT)) is None
    assert Kind(level=Level.URGENT) in list(kinds(ILLUSTRATION))


def test_the_interval_is_that_of_the_replications(summary: Summary) -> None:
    """Five means 0.2 − 2 … 0.2 + 2: t(0.975; 4) = 2.776, standard error √(2.5 / 5)."""
    difference = group(summary).difference
    assert difference.low == pytest.approx(0.2 - 2.776 * 0.5**0.5, abs=0.01)
    assert difference.high == pytest.approx(0.2 + 2.776 * 0.5**0.5, abs=0.01)


def test_late_is_asked_of_flagged_studies_only(summary: Summary) -> None:
    assert group(summary, level=Level.CRITICAL, outcome="false negative").too_late is None
    assert group(summary, level=Level.ROUTINE, outcome="false positive").too_late == 1
