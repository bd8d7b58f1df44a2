"""The plots are well-formed SVG and show what the summary says. Does not judge their looks."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from dicom_node.worklist.simulation.illustration import ILLUSTRATION
from dicom_node.worklist.simulation.plots import PLOTS
from dicom_node.worklist.simulation.replication import replications
from dicom_node.worklist.simulation.scenario import Run, Scenario
from dicom_node.worklist.simulation.summary import Kind, Summary, levels, summarise
from dicom_node.worklist.simulation.svg import ticks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def summary() -> Summary:
    scenario = ILLUSTRATION.model_copy(update={"run": Run(weeks=1, margin_days=1, replications=5)})
    return summarise(scenario, list(replications(scenario)))


def drawn(name: str, summary: Summary) -> ElementTree.Element:
    return ElementTree.fromstring(PLOTS[name](summary))


def words(sheet: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in sheet.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", list(PLOTS))
def test_everything_is_on_the_sheet_and_says_what_it_is(name: str, summary: Summary) -> None:
    sheet = drawn(name, summary)
    width, height = float(sheet.attrib["width"]), float(sheet.attrib["height"])
    for line in sheet.iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
    assert any(text.startswith("simulated: 5 × 1 weeks") for text in words(sheet))
    assert any("minutes" in text for text in words(sheet))


def test_bars_are_as_long_as_the_means(summary: Summary) -> None:
    bars = [float(bar.attrib["width"]) for bar in drawn("mean-waits.svg", summary).iter(f"{SVG}rect")][1:]
    groups = [group for group in summary.groups if group.kind.subgroup == "all" and group.kind.level]
    means = [waits.mean.mean for group in groups for waits in (group.without, group.with_flag)]
    assert [bar / bars[0] for bar in bars] == pytest.approx([mean / means[0] for mean in means], abs=0.01)


def test_every_level_has_a_curve_with_and_without_the_flag(summary: Summary) -> None:
    lines = drawn("still-unread.svg", summary).iter(f"{SVG}polyline")
    curves = [line for line in lines if len(line.attrib["points"].split()) > 100]
    assert len(curves) == 2 * len(levels(ILLUSTRATION))
    for curve in curves:
        heights = [float(point.split(",")[1]) for point in curve.attrib["points"].split()]
        assert heights == sorted(heights)


def test_every_subgroup_has_a_dot_for_each_level(summary: Summary) -> None:
    sheet = drawn("by-subgroup.svg", summary)
    assert len(list(sheet.iter(f"{SVG}circle"))) == sum(group.kind.subgroup != "all" for group in summary.groups)
    assert {site.name for site in ILLUSTRATION.sites} | {"weekday", "weekend", "65 and over"} <= set(words(sheet))


def test_a_scenario_without_findings_is_drawn_too() -> None:
    scenario = Scenario.model_validate(
        ILLUSTRATION.model_dump() | {"findings": [], "run": {"weeks": 1, "margin_days": 0, "replications": 5}}
    )
    summary = summarise(scenario, list(replications(scenario)))
    assert summary.group(Kind()) is not None
    for name in PLOTS:
        assert "critical" not in words(drawn(name, summary))


@pytest.mark.parametrize(("low", "high"), [(0, 93.7), (-23.9, 3.5), (0, 0.004), (0, 0), (-1, 0)])
def test_ticks_enclose_the_values_and_hold_zero(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low <= high <= marks[-1]
    assert 0 in marks
    assert len(marks) <= 12
