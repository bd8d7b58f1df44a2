"""One replication: the same weeks in the same room, once without the flag and once with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dicom_node.worklist.simulation.draw import MINUTES_A_DAY, Bools, Floats, Studies, draw_studies
from dicom_node.worklist.simulation.room import NEVER, Readings, Room
from dicom_node.worklist.simulation.scenario import Scenario


@dataclass(frozen=True)
class Replication:
    """The N studies of the measured days, in pairs. Waits [N]: minutes from the last image to the start of reading.

    too_late [N]: flagged, but reading had begun before the flag was there. busy: share of the hours on duty that was
    spent reading, without the flag; work after the end of duty counts too.
    """

    studies: Studies
    without: Floats
    with_flag: Floats
    too_late: Bools
    busy: float


def replications(scenario: Scenario) -> Iterator[Replication]:
    """All replications of a scenario, one by one; each has its own random numbers, the same for a given seed."""
    for seed in np.random.SeedSequence(scenario.run.seed).spawn(scenario.run.replications):
        yield replication(scenario, np.random.default_rng(seed))


def replication(scenario: Scenario, random: np.random.Generator) -> Replication:
    """Draw the studies and have them read twice."""
    studies = draw_studies(scenario, random)
    on_duty = scenario.readers.on_duty
    plain = Room(studies.arrival, studies.ordered, studies.reading, on_duty).run()
    raise_at = np.where(studies.raised, studies.flag_at, NEVER)
    raised = Room(studies.arrival, studies.ordered, studies.reading, on_duty, raise_at, studies.flag_rank).run()

    first, last = (MINUTES_A_DAY * day for day in scenario.run.measured)
    counted = (studies.arrival >= first) & (studies.arrival < last)
    return Replication(
        studies=studies.only(counted),
        without=(plain.start - studies.arrival)[counted],
        with_flag=(raised.start - studies.arrival)[counted],
        too_late=(studies.flagged & (raised.start < studies.flag_at))[counted],
        busy=_busy(plain, studies.reading, first, last) / _duty(on_duty, first, last),
    )


def _busy(readings: Readings, reading: Floats, first: float, last: float) -> float:
    """Minutes of reading that fall between two times."""
    return float((np.clip(readings.start + reading, first, last) - np.clip(readings.start, first, last)).sum())


def _duty(on_duty: tuple[int, ...], first: int, last: int) -> float:
    """Reader minutes on duty between two times, given in minutes at full hours."""
    return 60.0 * sum(on_duty[hour % len(on_duty)] for hour in range(first // 60, last // 60))
