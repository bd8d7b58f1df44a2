"""What is drawn has the rates, shares and times that the scenario asks for; seeds are fixed, bounds some four sigma."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dicom_node.base.types import Level
from dicom_node.worklist.simulation.draw import Studies, arrivals, draw_studies, duration, pick
from dicom_node.worklist.simulation.illustration import ILLUSTRATION
from dicom_node.worklist.simulation.scenario import LEVELS, Duration, Finding, Run, Scenario

WEEKS = 400


def random(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def changed(**parts: object) -> Scenario:
    return Scenario.model_validate(ILLUSTRATION.model_dump() | parts)


def studies(**parts: object) -> Studies:
    return draw_studies(changed(run=Run(weeks=100, margin_days=0), **parts), random())


def test_arrivals_follow_the_hour_of_the_week() -> None:
    rates = np.arange(168) % 5.0
    times = arrivals(rates, 7 * WEEKS, random())
    assert np.all(np.diff(times) >= 0)
    hours = np.bincount((times // 60).astype(int) % 168, minlength=168)
    assert np.all(hours[rates == 0] == 0)
    assert np.all(np.abs(hours - WEEKS * rates) <= 4.5 * np.sqrt(WEEKS * rates))


def test_gaps_between_even_arrivals_are_exponential() -> None:
    gaps = np.diff(arrivals(np.full(168, 6.0), 7 * WEEKS, random()))
    assert gaps.mean() == pytest.approx(10, rel=0.01)
    assert gaps.std() == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("name", ["lognormal", "exponential", "constant"])
def test_times_have_the_mean_and_variation_asked_for(name: str) -> None:
    variation = {"lognormal": 0.6, "exponential": 1.0, "constant": 0.0}[name]
    times = duration(Duration.model_validate({"distribution": name, "mean_minutes": 11.0}), 200_000, random())
    assert times.min() > 0
    assert times.mean() == pytest.approx(11, rel=0.01)
    assert times.std() == pytest.approx(11 * variation, rel=0.02)


def test_picking_by_share() -> None:
    shares = np.array([[0.2, 0.0, 0.8]])
    assert pick(shares, np.array([0.0, 0.19, 0.2, 0.99])).tolist() == [0, 0, 2, 2]


def test_findings_follow_site_and_age() -> None:
    drawn = studies()
    for place, site in enumerate(ILLUSTRATION.sites):
        for age, band in enumerate(ILLUSTRATION.age_bands):
            here = drawn.true[(drawn.site == place) & (drawn.age == age)]
            for finding, expected in zip(ILLUSTRATION.findings, ILLUSTRATION.prevalences(site, band), strict=True):
                share = np.mean(here == LEVELS.index(finding.level))
                assert share == pytest.approx(expected, abs=4.5 * math.sqrt(expected / len(here)))
    ages = np.bincount(drawn.age) / len(drawn.age)
    assert ages == pytest.approx([band.share for band in ILLUSTRATION.age_bands], abs=0.01)


def test_flag_and_order_have_their_rates() -> None:
    drawn = studies()
    expected = {LEVELS.index(f.level): (f.sensitivity, f.stat_share) for f in ILLUSTRATION.findings}
    expected[0] = (1 - ILLUSTRATION.flag.specificity, ILLUSTRATION.orders.stat_share)
    for true, (flagged, stat) in expected.items():
        these = drawn.true == true
        slack = 2.5 / math.sqrt(these.sum())
        assert drawn.flagged[these].mean() == pytest.approx(flagged, abs=slack)
        assert (drawn.ordered[these] > 0).mean() == pytest.approx(stat, abs=slack)
    assert (drawn.flag_at - drawn.arrival).mean() == pytest.approx(4, rel=0.02)


def test_a_finding_may_take_longer_to_read() -> None:
    slow = ILLUSTRATION.findings[1].model_copy(update={"reading": Duration(mean_minutes=50.0)})
    drawn = studies(findings=[slow.model_dump()])
    assert drawn.reading[drawn.true > 0].mean() == pytest.approx(50, rel=0.05)
    assert drawn.reading[drawn.true == 0].mean() == pytest.approx(11, rel=0.02)


def test_the_flag_raises_and_never_lowers() -> None:
    weak = Finding(level=Level.URGENT, prevalence=0.5, stat_share=0.5, sensitivity=1, flagged_as=Level.ELEVATED)
    bands = [{"name": "all", "share": 1.0}]
    drawn = studies(findings=[weak.model_dump()], age_bands=bands)
    assert np.all(drawn.flag_rank[drawn.raised] > drawn.ordered[drawn.raised])
    ordered_stat = drawn.flagged & (drawn.true > 0) & (drawn.ordered > 0)
    assert ordered_stat.any()
    assert not drawn.raised[ordered_stat].any()


def test_the_same_seed_draws_the_same() -> None:
    one, same, other = (draw_studies(ILLUSTRATION, random(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.arrival, same.arrival)
    assert np.array_equal(one.reading, same.reading)
    assert len(one.arrival) != len(other.arrival)
