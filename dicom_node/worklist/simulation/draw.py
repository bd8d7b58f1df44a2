"""The chance in one replication: which studies arrive, what they hold, how long they take, what the flag makes of them.

All of it is drawn before anything is read, so the room with the flag and the room without it meet the same studies
(common random numbers) and every difference between the two is the flag's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from dicom_node.base.types import Level
from dicom_node.worklist.simulation.scenario import DAYS, LEVELS, Duration, Scenario

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True)
class Studies:
    """N studies by arrival; every array is [N]. Times: minutes from a Monday's midnight. Ranks: places in `LEVELS`.

    arrival: last image. site, age: places in the scenario's lists. true: rank of what is found, 0 without a finding.
    ordered: rank by the order alone. flagged: marked by the flag. flag_rank: the level it then gives. flag_at: when the
    flag is there. reading: minutes.
    """

    arrival: Floats
    site: Ints
    age: Ints
    true: Ints
    ordered: Ints
    flagged: Bools
    flag_rank: Ints
    flag_at: Floats
    reading: Floats

    @property
    def raised(self) -> Bools:
        """Whether the flag asks for more than the order does; it never lowers a priority."""
        return self.flagged & (self.flag_rank > self.ordered)

    def only(self, wanted: Bools) -> Studies:
        """Some of the studies; wanted: [N]."""
        return Studies(**{field.name: getattr(self, field.name)[wanted] for field in fields(self)})


def draw_studies(scenario: Scenario, random: np.random.Generator) -> Studies:
    """The studies of all days of a run, margins included."""
    days = scenario.run.measured[1] + scenario.run.margin_days
    by_site = [arrivals(np.array(site.rates), days, random) for site in scenario.sites]
    arrival = np.concatenate(by_site)
    site = np.repeat(np.arange(len(by_site)), [len(times) for times in by_site])
    order = np.argsort(arrival, kind="stable")
    arrival, site = arrival[order], site[order]
    count = len(arrival)

    age = pick(np.array([[band.share for band in scenario.age_bands]]), random.random(count))
    found = pick(_finding_shares(scenario)[site, age], random.random(count))
    stat_shares = _by_finding([f.stat_share for f in scenario.findings], scenario.orders.stat_share)
    stat = random.random(count) < stat_shares[found]
    flag_shares = _by_finding([f.sensitivity for f in scenario.findings], 1 - scenario.flag.specificity)
    times = np.stack([duration(time, count, random) for time in scenario.reading_times])
    return Studies(
        arrival=arrival,
        site=site,
        age=age,
        true=_ranks([f.level for f in scenario.findings], LEVELS[0])[found],
        ordered=np.where(stat, LEVELS.index(scenario.orders.stat_level), 0),
        flagged=random.random(count) < flag_shares[found],
        flag_rank=_ranks([f.flagged_as for f in scenario.findings], scenario.flag.false_level)[found],
        flag_at=arrival + duration(scenario.flag.delay, count, random),
        reading=times[found, np.arange(count)],
    )


def arrivals(rates: Floats, days: int, random: np.random.Generator) -> Floats:
    """Arrival times in minutes, sorted, of a Poisson process with the given rates an hour; shape [hours of a week].

    Thinning: Lewis & Shedler, Naval Research Logistics Quarterly 26 (1979), 403-413.
    """
    highest = rates.max()
    count = random.poisson(highest * 24 * days)
    times = np.sort(random.random(count)) * MINUTES_A_DAY * days
    hour = (times // 60).astype(np.int64) % (24 * DAYS)
    kept: Floats = times[random.random(count) * highest < rates[hour]]
    return kept


def pick(shares: Floats, uniform: Floats) -> Ints:
    """For each uniform number the place in its row of shares, [N or 1, kinds]; the last kind takes what is left."""
    passed: Ints = np.sum(uniform[:, None] >= np.cumsum(shares, axis=1)[:, :-1], axis=1)
    return passed


def duration(time: Duration, count: int, random: np.random.Generator) -> Floats:
    """`count` times in minutes with the mean (and for lognormal ones the coefficient of variation) asked for."""
    if time.distribution == "constant":
        return np.full(count, time.mean_minutes)
    if time.distribution == "exponential":
        return random.exponential(time.mean_minutes, count)
    spread = math.log1p(time.variation**2)
    return random.lognormal(math.log(time.mean_minutes) - spread / 2, math.sqrt(spread), count)


def _finding_shares(scenario: Scenario) -> Floats:
    """[sites, ages, findings + 1]: the probability of each finding, and last of none."""
    found = [[scenario.prevalences(site, band) for band in scenario.age_bands] for site in scenario.sites]
    return np.array([[(*row, 1 - sum(row)) for row in rows] for rows in found])


def _by_finding(values: list[float], otherwise: float) -> Floats:
    return np.array([*values, otherwise])


def _ranks(levels: list[Level], otherwise: Level) -> Ints:
    return np.array([LEVELS.index(level) for level in (*levels, otherwise)])
