"""How `worklist simulate` speaks: tables, a JSON document, and a folder of plots."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from dicom_node.admin.output import notes, print_json, progress, result
from dicom_node.base.types import Level
from dicom_node.worklist.simulation.estimate import Estimate
from dicom_node.worklist.simulation.illustration import ILLUSTRATION
from dicom_node.worklist.simulation.plots import PLOTS, WORDS
from dicom_node.worklist.simulation.replication import replications
from dicom_node.worklist.simulation.scenario import LEVELS, load_scenario
from dicom_node.worklist.simulation.summary import ALL, Group, Kind, Summary, Waits, levels, summarise

NO_FINDING = LEVELS[0]


def run(scenario_file: Path | None, out: Path | None, as_json: bool) -> None:
    """Simulate, print, and write what was asked for. Raises ConfigurationError when the scenario is not usable."""
    scenario = load_scenario(scenario_file) if scenario_file else ILLUSTRATION
    if scenario_file is None:
        notes.print("an illustration, no real hospital; --scenario takes yours (see deploy/simulation.example.toml)")
    with progress() as bar:
        count = scenario.run.replications
        played = list(bar.track(replications(scenario), total=count, description="simulating"))
    summary = summarise(scenario, played)
    written = _write(summary, out) if out else []
    if as_json:
        print_json(document(summary))
    else:
        _show(summary)
    for path in written:
        notes.print(f"written: {path}", soft_wrap=True)


def document(summary: Summary) -> dict[str, Any]:
    """A summary as JSON. Times in minutes; shares from 0 to 1; what does not exist is null."""
    return {
        "scenario": summary.scenario.model_dump(mode="json"),
        "studies_a_day": summary.studies_a_day,
        "utilisation": asdict(summary.busy),
        "groups": [_group(group) for group in summary.groups],
    }


def _group(group: Group) -> dict[str, Any]:
    return asdict(group.kind) | {
        "studies": group.studies,
        "flagged": group.flagged,
        "raised": group.raised,
        "too_late": group.too_late,
        "without_flag": _waits(group.without),
        "with_flag": _waits(group.with_flag),
        "difference": asdict(group.difference) | {"p90": group.difference_p90},
    }


def _waits(waits: Waits) -> dict[str, Any]:
    return {"mean": asdict(waits.mean), "median": waits.median, "p90": waits.p90}


def _write(summary: Summary, folder: Path) -> list[Path]:
    texts = {"simulation.json": json.dumps(document(summary), ensure_ascii=False, indent=2) + "\n"}
    texts |= {name: plot(summary) for name, plot in PLOTS.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _show(summary: Summary) -> None:
    run, busy = summary.scenario.run, summary.busy.mean
    length = f"{run.replications} × {run.weeks} weeks"
    result.print(f"{length}, {summary.studies_a_day:.0f} studies a day, readers busy {busy:.0%} of their time on duty")
    result.print(
        "minutes from the last image to the start of reading, without the flag → with it; studies in one run\n"
    )
    whole = [(_name(group.kind), group) for group in summary.groups if group.kind.subgroup == ALL]
    result.print(_table("by finding and flag", whole))
    split = [(f"{g.kind.value}: {_level(g.kind.level)}", g) for g in summary.groups if g.kind.subgroup != ALL]
    result.print()
    result.print(_table("by site, day and age", split))
    result.print()
    for sentence in sentences(summary):
        result.print(sentence)


def _table(title: str, rows: list[tuple[str, Group]]) -> Table:
    names = ("studies", "mean", "median", "90th percentile", "difference (95 % CI)", "too late")
    first = Column(title, no_wrap=True, min_width=30)
    table = Table(first, *(Column(name, justify="right", no_wrap=True) for name in names), box=None)
    for name, group in rows:
        pairs = [(waits.mean.mean, waits.median, waits.p90) for waits in (group.without, group.with_flag)]
        changes = [f"{without:.1f} → {flagged:.1f}" for without, flagged in zip(*pairs, strict=True)]
        late = "" if group.too_late is None else f"{group.too_late:.0%}"
        table.add_row(name, f"{group.studies:.1f}", *changes, _interval(group.difference), late)
    # As wide as it must be, on a narrow terminal too: a number cut short misleads.
    table.width = result.measure(table, options=result.options.update(width=1000)).maximum
    return table


def sentences(summary: Summary) -> list[str]:
    """Does it help? Who gains, who pays, and how often the flag comes too late."""
    said = []
    for level in levels(summary.scenario):
        everyone = summary.group(Kind(level=level))
        silent = "true negative" if level == NO_FINDING else "false negative"
        left_out = summary.group(Kind(level=level, outcome=silent))
        if everyone is not None:
            said.append(f"{_level(level)}: {_change(everyone)}" + (f"; {_price(left_out)}" if left_out else ""))
    everything = summary.group(Kind())
    if everything is not None and everything.too_late is not None:
        said.append(
            f"too late: reading had begun before the flag was there in {everything.too_late:.0%} of the flagged"
        )
    return said


def _price(group: Group) -> str:
    more = f", one in ten delayed by more than {group.difference_p90:.1f} min" if group.difference_p90 > 0 else ""
    return f"{WORDS[group.kind.outcome]}: {_change(group)}{more}"


def _change(group: Group) -> str:
    change = group.difference
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        return f"no clear change, {_interval(change)} min"
    return f"{abs(change.mean):.1f} min {'sooner' if change.mean < 0 else 'later'} on average"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:+z.1f} (too few)"
    return f"{estimate.mean:+z.1f} ({estimate.low:+z.1f} … {estimate.high:+z.1f})"


def _name(kind: Kind) -> str:
    return _level(kind.level) if kind.outcome == ALL else f"  {WORDS[kind.outcome]}"


def _level(level: Level | None) -> str:
    if level is None:
        return "all studies"
    return "no finding" if level == NO_FINDING else str(level)
