"""The simulation against queueing theory, where that has a closed form: even arrivals, a steady staff, no flag delay.

A mean passes within twice its 95 % confidence half-width (about four standard errors), which must itself be small. All
of it runs through the same code as the command; does not test arrivals or staff that change with the hour.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from dicom_node.base.types import Level
from dicom_node.worklist.simulation.draw import Floats, Ints
from dicom_node.worklist.simulation.estimate import estimate
from dicom_node.worklist.simulation.illustration import ILLUSTRATION
from dicom_node.worklist.simulation.replication import Replication, replications
from dicom_node.worklist.simulation.room import Room
from dicom_node.worklist.simulation.scenario import Duration, Finding, Flag, Orders, Run, Scenario, Site, Staff
from dicom_node.worklist.simulation.theory import mg1_priority_waits, mmc_priority_waits, mmc_wait

MEAN, VARIATION = 12.0, 0.6
AT_ONCE = Duration(distribution="constant", mean_minutes=1e-9)
EXPONENTIAL = Duration(distribution="exponential", mean_minutes=MEAN)
LOGNORMAL = Duration(distribution="lognormal", mean_minutes=MEAN, variation=VARIATION)
SQUARES = {EXPONENTIAL: 2 * MEAN**2, LOGNORMAL: MEAN**2 * (1 + VARIATION**2)}
# Shares of critical, urgent and routine places in the queue, without the flag and with it; see `steady_room`.
PLAIN, FLAGGED = (0.0, 0.25, 0.75), (0.1, 0.9 * 0.25 + 0.9 * 0.75 * 0.1, 0.9 * 0.75 * 0.9)


def steady_room(readers: int, reading: Duration, load: float) -> Scenario:
    """A tenth of the studies is critical and always flagged so; a tenth of the others is flagged urgent in error."""
    rate = load * readers * 60 / MEAN
    critical = Finding(level=Level.CRITICAL, prevalence=0.1, stat_share=0.25, sensitivity=1, flagged_as=Level.CRITICAL)
    return Scenario(
        run=Run(weeks=10, margin_days=5, replications=30, seed=11),
        sites=(Site(name="one", weekday=(rate,) * 24, weekend=(rate,) * 24),),
        age_bands=(ILLUSTRATION.age_bands[0].model_copy(update={"share": 1.0, "prevalence_ratio": 1.0}),),
        findings=(critical,),
        orders=Orders(stat_share=0.25, stat_level=Level.URGENT),
        flag=Flag(specificity=0.9, false_level=Level.URGENT, delay=AT_ONCE),
        readers=Staff(weekday=(readers,) * 24, weekend=(readers,) * 24),
        reading=reading,
    )


@functools.cache
def played(readers: int, reading: Duration) -> tuple[Replication, ...]:
    return tuple(replications(steady_room(readers, reading, 0.8)))


def means(waits: Sequence[Floats], ranks: Sequence[Ints], rank: int) -> list[float]:
    return [float(one[places == rank].mean()) for one, places in zip(waits, ranks, strict=True)]


def assert_agrees(values: Sequence[float], theory: float) -> None:
    found = estimate(values)
    assert found.high is not None
    half = found.high - found.mean
    assert half < 0.05 * theory
    assert abs(found.mean - theory) < 2 * half


@pytest.mark.parametrize(
    ("readers", "reading"), [(1, EXPONENTIAL), (3, EXPONENTIAL), (1, LOGNORMAL)], ids=["M/M/1", "M/M/3", "M/G/1"]
)
def test_waits_by_level_are_those_of_non_preemptive_priority(readers: int, reading: Duration) -> None:
    """Cobham 1954 (one reader, any reading time) and Kella & Yechiali 1985 (several readers, exponential)."""
    runs = played(readers, reading)
    rate = 0.8 * readers / MEAN
    plain = [one.studies.ordered for one in runs]
    flagged = [np.where(one.studies.raised, one.studies.flag_rank, one.studies.ordered) for one in runs]
    for shares, waits, ranks in (
        (PLAIN, [one.without for one in runs], plain),
        (FLAGGED, [one.with_flag for one in runs], flagged),
    ):
        rates = [rate * share for share in shares]
        if readers > 1:
            theory = mmc_priority_waits(rates, MEAN, readers)
        else:
            theory = mg1_priority_waits(rates, [MEAN] * 3, [SQUARES[reading]] * 3)
        for rank, share, expected in zip((3, 2, 0), shares, theory, strict=True):
            if share:
                assert_agrees(means(waits, ranks, rank), expected)


@pytest.mark.parametrize("readers", [1, 3])
def test_waits_of_all_together_are_those_of_one_queue(readers: int) -> None:
    """M/M/c, Erlang C: priorities and the flag only shift who waits."""
    runs = played(readers, EXPONENTIAL)
    theory = mmc_wait(0.8 * readers / MEAN, MEAN, readers)
    assert_agrees([float(one.without.mean()) for one in runs], theory)
    assert_agrees([float(one.with_flag.mean()) for one in runs], theory)


def test_readers_are_busy_as_much_as_the_load_says() -> None:
    found = estimate([one.busy for one in played(3, EXPONENTIAL)])
    assert found.low is not None
    assert abs(found.mean - 0.8) < 2 * (found.mean - found.low) < 0.02


def test_levels_with_their_own_reading_times() -> None:
    """M/G/1 with another service time for each class, Cobham 1954; the room alone."""
    rates, times = (0.01, 0.04), (20.0, 12.0)
    waits: tuple[list[float], list[float]] = ([], [])
    for seed in range(30):
        random = np.random.default_rng(seed)
        count = 8000
        arrival = np.cumsum(random.exponential(1 / sum(rates), count))
        rank = (random.random(count) < rates[0] / sum(rates)).astype(np.int64)
        reading = random.exponential(np.where(rank == 1, *times))
        wait = Room(arrival, rank, reading, (1,)).run().start - arrival
        settled = np.arange(count) > 500
        for place in (0, 1):
            waits[place].append(float(wait[settled & (rank == 1 - place)].mean()))
    theory = mg1_priority_waits(rates, times, [2 * time**2 for time in times])
    assert_agrees(waits[0], theory[0])
    assert_agrees(waits[1], theory[1])


def test_a_wrong_theory_is_noticed() -> None:
    """First come, first served is not what a room with priorities does, nor is M/M/1 an M/G/1."""
    runs = played(1, EXPONENTIAL)
    urgent = means([one.without for one in runs], [one.studies.ordered for one in runs], 2)
    with pytest.raises(AssertionError):
        assert_agrees(urgent, mmc_wait(0.8 / MEAN, MEAN, 1))
    lognormal = [float(one.without.mean()) for one in played(1, LOGNORMAL)]
    with pytest.raises(AssertionError):
        assert_agrees(lognormal, mmc_wait(0.8 / MEAN, MEAN, 1))
    assert math.isclose(sum(FLAGGED), 1)
