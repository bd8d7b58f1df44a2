"""Three plots of a summary, as SVG: mean waits, how long studies stay unread, and the difference in each subgroup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dicom_node.base.types import Level
from dicom_node.worklist.simulation.scenario import LEVELS
from dicom_node.worklist.simulation.summary import ALL, Group, Kind, Summary, Waits, levels, subgroups
from dicom_node.worklist.simulation.svg import FAINT, INK, PAPER, Sheet, ticks

WITHOUT, WITH = "#9aa4af", "#0969da"
LEVEL_COLOURS = {
    Level.CRITICAL: "#cf222e",
    Level.URGENT: "#bc4c00",
    Level.ELEVATED: "#9a6700",
    Level.ROUTINE: "#57606a",
}
WORDS = {
    "true positive": "flagged",
    "false negative": "missed by the flag",
    "false positive": "flagged in error",
    "true negative": "not flagged",
}
WIDTH, LEFT, RIGHT, TOP = 900.0, 200.0, 40.0, 100.0


@dataclass(frozen=True)
class Axis:
    """Minutes → pixels, left to right."""

    marks: tuple[float, ...]
    left: float
    right: float

    def __call__(self, minutes: float) -> float:
        """The x of a time; one outside the marks stays at their edge."""
        inside = min(max(minutes, self.marks[0]), self.marks[-1])
        return self.left + (self.right - self.left) * (inside - self.marks[0]) / (self.marks[-1] - self.marks[0])


def mean_waits(summary: Summary) -> str:
    """A bar for the mean and a tick for the 90th percentile, by true level and by what the flag said."""
    groups = [(group, group.kind.level) for group in summary.groups if group.kind.level and group.kind.subgroup == ALL]
    bottom = TOP + 50 * len(groups)
    sheet = Sheet(WIDTH, bottom + 60, "Waits until reading starts", _source(summary))
    waits = [one for group, _ in groups for one in (group.without, group.with_flag)]
    highest = max(minutes for one in waits for minutes in (one.mean.mean, one.p90))
    axis = _minutes(sheet, 0, highest, TOP - 10, bottom, "minutes: bar, the mean; tick, the 90th percentile")
    _legend(sheet, (("without the flag", WITHOUT, "none"), ("with the flag", WITH, "none")))
    for place, (group, level) in enumerate(groups):
        y = TOP + 50 * place
        _name(sheet, level, group.kind.outcome, y + 24)
        _bar(sheet, axis, group.without, WITHOUT, y + 3)
        _bar(sheet, axis, group.with_flag, WITH, y + 21)
    return sheet.render()


def _bar(sheet: Sheet, axis: Axis, waits: Waits, colour: str, top: float) -> None:
    sheet.bar(axis.left, top, axis(waits.mean.mean) - axis.left, 16, colour)
    sheet.line(((axis(waits.mean.mean), top + 8), (axis(waits.p90), top + 8)), colour)
    sheet.line(((axis(waits.p90), top + 2), (axis(waits.p90), top + 14)), colour, 3)
    if axis(waits.mean.mean) - axis.left > 28:
        sheet.words(axis(waits.mean.mean) - 5, top + 12, f"{waits.mean.mean:.1f}", "end", PAPER, size=11)
    else:
        sheet.words(max(axis(waits.p90), axis(waits.mean.mean)) + 6, top + 12, f"{waits.mean.mean:.1f}", size=11)


def still_unread(summary: Summary) -> str:
    """For each true level the share of studies that still wait, minute by minute."""
    kinds = {level: summary.group(Kind(level=level)) for level in levels(summary.scenario)}
    groups = {level: group for level, group in kinds.items() if group is not None}
    bottom = TOP + 340
    sheet = Sheet(WIDTH, bottom + 60, "How many still wait", _source(summary))
    longest = max(group.without.percentiles[95] for group in groups.values())
    axis = _minutes(sheet, 0, longest, TOP, bottom, "minutes since the last image", left=80)
    for share in range(0, 101, 20):
        y = bottom - (bottom - TOP) * share / 100
        sheet.line(((axis.left, y), (axis.right, y)), FAINT)
        sheet.words(axis.left - 8, y + 4, f"{share} %", "end")
    for level, group in groups.items():
        for waits, dashes in ((group.without, "5 4"), (group.with_flag, "none")):
            minutes = np.linspace(0, axis.marks[-1], 200).tolist()
            begun = np.interp(minutes, waits.percentiles, range(101)).tolist()
            points = [(axis(m), TOP + (bottom - TOP) * share / 100) for m, share in zip(minutes, begun, strict=True)]
            sheet.line(points, LEVEL_COLOURS[level], 2, dashes)
    names = ((_level(level), LEVEL_COLOURS[level], "none") for level in groups)
    _legend(sheet, (*names, ("dashed: without the flag", INK, "5 4")))
    return sheet.render()


def by_subgroup(summary: Summary) -> str:
    """Mean difference with its 95 % confidence interval for each true level, in each site, kind of day and age band."""
    groups = [group for group in summary.groups if group.kind.subgroup != ALL]
    rows = [(subgroup, value) for subgroup, values in subgroups(summary.scenario).items() for value in values]
    shown = levels(summary.scenario)
    height = 16 * len(shown) + 14
    bottom = TOP + height * len(rows)
    sheet = Sheet(WIDTH, bottom + 60, "What the flag changes, by site, day and age", _source(summary))
    ends = [end for group in groups for end in (group.difference.mean, group.difference.low, group.difference.high)]
    reach = [end for end in ends if end is not None]
    words = "minutes of waiting with the flag minus without it, mean and 95 % confidence interval; left of 0 is sooner"
    axis = _minutes(sheet, min(0, *reach), max(0, *reach), TOP - 10, bottom, words)
    sheet.line(((axis(0), TOP - 10), (axis(0), bottom)), INK)
    _legend(sheet, tuple((_level(level), LEVEL_COLOURS[level], "none") for level in shown))
    for row, (subgroup, value) in enumerate(rows):
        top = TOP + height * row
        sheet.words(LEFT - 16, top + height / 2 + 4, value, "end")
        if row and rows[row - 1][0] != subgroup:
            sheet.line(((24, top), (axis.right, top)), FAINT)
        for place, level in enumerate(shown):
            group = summary.group(Kind(subgroup, value, level))
            if group is not None:
                _interval(sheet, axis, group, top + 15 + 16 * place, LEVEL_COLOURS[level])
    return sheet.render()


def _interval(sheet: Sheet, axis: Axis, group: Group, y: float, colour: str) -> None:
    difference = group.difference
    if difference.low is not None and difference.high is not None:
        sheet.line(((axis(difference.low), y), (axis(difference.high), y)), colour, 2)
    sheet.dot(axis(difference.mean), y, colour)


PLOTS: dict[str, Callable[[Summary], str]] = {
    "mean-waits.svg": mean_waits,
    "still-unread.svg": still_unread,
    "by-subgroup.svg": by_subgroup,
}


def _minutes(sheet: Sheet, low: float, high: float, top: float, bottom: float, words: str, left: float = LEFT) -> Axis:
    """An axis of minutes along the bottom, with faint lines up to the top."""
    axis = Axis(tuple(ticks(low, high)), left, sheet.width - RIGHT)
    for mark in axis.marks:
        sheet.line(((axis(mark), top), (axis(mark), bottom)), FAINT)
        sheet.words(axis(mark), bottom + 18, f"{mark:g}".replace("-", "−"), "middle")
    sheet.words((axis.left + axis.right) / 2, bottom + 42, words, "middle")
    return axis


def _legend(sheet: Sheet, entries: tuple[tuple[str, str, str], ...]) -> None:
    """What the colours mean, right-aligned beside the headline."""
    x = sheet.width - RIGHT
    for name, colour, dashes in reversed(entries):
        sheet.words(x, 34, name, "end")
        x -= sum(4.0 if letter in " :filrt" else 8.0 for letter in name)
        sheet.line(((x - 34, 30), (x - 12, 30)), colour, 4 if dashes == "none" else 2, dashes)
        x -= 52


def _name(sheet: Sheet, level: Level, outcome: str, y: float) -> None:
    whole = outcome == ALL
    sheet.words(LEFT - 16, y, _level(level) if whole else WORDS[outcome], "end", weight="bold" if whole else "normal")


def _level(level: Level) -> str:
    return "no finding" if level == LEVELS[0] else str(level)


def _source(summary: Summary) -> str:
    run, a_day = summary.scenario.run, summary.studies_a_day
    return f"simulated: {run.replications} × {run.weeks} weeks, {a_day:.0f} studies a day, seed {run.seed}"
