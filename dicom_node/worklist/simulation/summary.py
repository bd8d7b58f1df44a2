"""From replications to answers: waits with the flag and without it, for every group of studies that one may ask about.

Means and their 95 % confidence intervals come from the replications' own means; percentiles from all studies together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from dicom_node.base.types import Level
from dicom_node.worklist.simulation.draw import MINUTES_A_DAY, Bools, Floats, Studies
from dicom_node.worklist.simulation.estimate import Estimate, estimate
from dicom_node.worklist.simulation.replication import Replication
from dicom_node.worklist.simulation.scenario import DAYS, LEVELS, WEEKDAYS, Scenario

ALL = "all"
DAY_KINDS = ("weekday", "weekend")
# (a finding is there, the flag marked it)
OUTCOMES = {
    "true positive": (True, True),
    "false negative": (True, False),
    "false positive": (False, True),
    "true negative": (False, False),
}


@dataclass(frozen=True)
class Kind:
    """Which studies: of one site, kind of day or age band (`value` of `subgroup`), true level, and flag outcome."""

    subgroup: str = ALL
    value: str = ALL
    level: Level | None = None
    outcome: str = ALL


@dataclass(frozen=True)
class Waits:
    """Minutes from the last image to the start of reading. percentiles: 0, 1 … 100."""

    mean: Estimate
    percentiles: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the studies wait longer."""
        return self.percentiles[50]

    @property
    def p90(self) -> float:
        """One study in ten waits longer."""
        return self.percentiles[90]


@dataclass(frozen=True)
class Group:
    """Studies of one kind. studies: how many a replication has.

    flagged, raised: share of them that the flag marks, and that it moves up, in time, from where the order put them.
    too_late: share of the flagged whose reading had begun before the flag was there; None when none is flagged.
    difference: with the flag minus without it, study by study; below 0 is sooner. difference_p90: one in ten is delayed
    by more than that.
    """

    kind: Kind
    studies: float
    flagged: float
    raised: float
    too_late: float | None
    without: Waits
    with_flag: Waits
    difference: Estimate
    difference_p90: float


@dataclass(frozen=True)
class Summary:
    """The answers. groups: only kinds that any study belonged to. busy: reading time over time on duty."""

    scenario: Scenario
    studies_a_day: float
    busy: Estimate
    groups: tuple[Group, ...]

    def group(self, kind: Kind) -> Group | None:
        """The group of that kind, if any study belonged to it."""
        return next((group for group in self.groups if group.kind == kind), None)


def summarise(scenario: Scenario, replications: Sequence[Replication]) -> Summary:
    """All groups of a scenario that has been played."""
    groups = (_group(kind, [_only(kind, scenario, one) for one in replications]) for kind in kinds(scenario))
    found = tuple(group for group in groups if group is not None)
    studies_a_day = fmean(len(one.without) for one in replications) / (scenario.run.weeks * DAYS)
    return Summary(scenario, studies_a_day, estimate([one.busy for one in replications]), found)


def kinds(scenario: Scenario) -> Iterator[Kind]:
    """Everything, then true levels and their flag outcomes, then the levels in each subgroup."""
    yield Kind()
    for level in levels(scenario):
        yield Kind(level=level)
        for outcome, (found, _) in OUTCOMES.items():
            if found == (level != LEVELS[0]):
                yield Kind(level=level, outcome=outcome)
    for subgroup, values in subgroups(scenario).items():
        yield from (Kind(subgroup, value, level) for value in values for level in levels(scenario))


def levels(scenario: Scenario) -> list[Level]:
    """The true levels that occur, the most urgent first and last that of studies without a finding."""
    return sorted({finding.level for finding in scenario.findings} | {LEVELS[0]}, key=LEVELS.index, reverse=True)


def subgroups(scenario: Scenario) -> dict[str, tuple[str, ...]]:
    """What studies are told apart by, and the values in order."""
    return {
        "site": tuple(site.name for site in scenario.sites),
        "day": DAY_KINDS,
        "age": tuple(band.name for band in scenario.age_bands),
    }


def _only(kind: Kind, scenario: Scenario, one: Replication) -> Replication:
    """The part of a replication that is of this kind."""
    wanted = _belongs(kind, scenario, one.studies)
    return Replication(
        one.studies.only(wanted), one.without[wanted], one.with_flag[wanted], one.too_late[wanted], one.busy
    )


def _belongs(kind: Kind, scenario: Scenario, studies: Studies) -> Bools:
    wanted = np.ones(len(studies.arrival), dtype=np.bool_)
    if kind.level is not None:
        wanted &= studies.true == LEVELS.index(kind.level)
    if kind.outcome != ALL:
        found, flagged = OUTCOMES[kind.outcome]
        wanted &= ((studies.true > 0) == found) & (studies.flagged == flagged)
    if kind.subgroup != ALL:
        places = {"site": studies.site, "age": studies.age, "day": _day_kind(studies.arrival)}
        wanted &= places[kind.subgroup] == subgroups(scenario)[kind.subgroup].index(kind.value)
    return wanted


def _day_kind(arrival: Floats) -> Bools:
    """0 from Monday to Friday, 1 at the weekend."""
    return (arrival // MINUTES_A_DAY) % DAYS >= WEEKDAYS


def _group(kind: Kind, parts: list[Replication]) -> Group | None:
    present = [part for part in parts if len(part.without)]
    if not present:
        return None
    studies = sum(len(part.without) for part in present)
    flagged = sum(int(part.studies.flagged.sum()) for part in present)
    differences = [part.with_flag - part.without for part in present]
    return Group(
        kind=kind,
        studies=studies / len(parts),
        flagged=flagged / studies,
        raised=sum(int((part.studies.raised & ~part.too_late).sum()) for part in present) / studies,
        too_late=sum(int(part.too_late.sum()) for part in present) / flagged if flagged else None,
        without=_waits([part.without for part in present]),
        with_flag=_waits([part.with_flag for part in present]),
        difference=estimate([float(values.mean()) for values in differences]),
        difference_p90=float(np.percentile(np.concatenate(differences), 90)),
    )


def _waits(replications: list[Floats]) -> Waits:
    mean = estimate([float(waits.mean()) for waits in replications])
    return Waits(mean, tuple(np.percentile(np.concatenate(replications), range(101)).tolist()))
