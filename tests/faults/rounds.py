"""Rounds of faults: load, one fault, recovery, checks; and the table of what came of them."""

from __future__ import annotations

import platform
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dicom_node.base.fault_points import FaultPoint
from faults import checks, load
from faults.catalogue import Fault
from faults.house import House

COLUMNS = (
    "kind of fault",
    "times tried",
    "images acknowledged",
    "images lost",
    "reports missing",
    "reports duplicate",
    "reports altered",
    "naming another study",
    "RIS not told",
    "rows and files that disagree",
    "a person needed",
    "until all was done, median / longest",
)


@dataclass
class Line:
    """One kind's results. seconds: of each round, from its first study to the last delivery."""

    tried: int = 0
    acknowledged: int = 0
    wrong: checks.Wrong = field(default_factory=checks.Wrong)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Record:
    """What came of all rounds so far. happened: fault points at which something was made to happen, and did."""

    lines: dict[str, Line] = field(default_factory=lambda: defaultdict(Line))
    happened: set[FaultPoint] = field(default_factory=set)
    not_reached: list[str] = field(default_factory=list)
    sent: list[load.SentStudy] = field(default_factory=list)

    def table(self) -> str:
        """As Markdown."""
        rows = [COLUMNS, ["---"] * len(COLUMNS)]
        for kind, line in sorted(self.lines.items()):
            rows.append([kind, *_cells(line)])
        rows.append(["**all**", *_cells(self.total())])
        return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)

    def total(self) -> Line:
        """All lines in one."""
        total = Line()
        for line in self.lines.values():
            total.tried += line.tried
            total.acknowledged += line.acknowledged
            total.wrong += line.wrong
            total.seconds += line.seconds
        return total


def _cells(line: Line) -> list[str]:
    wrong = line.wrong
    seconds = sorted(line.seconds)
    counts = (
        line.tried,
        line.acknowledged,
        wrong.images,
        wrong.missing,
        wrong.duplicate,
        wrong.altered,
        wrong.foreign,
        wrong.told,
        wrong.registry,
        wrong.persons,
    )
    return [*map(str, counts), f"{seconds[len(seconds) // 2]:.1f} s / {seconds[-1]:.1f} s" if seconds else "never"]


def plan(known: Sequence[Fault], seed: int, rounds: int, together: int = 1) -> list[list[Fault]]:
    """The faults of each round, in order: each one once before any comes again. together: how many in one round."""
    dice, drawn = random.Random(seed), list[Fault]()
    while len(drawn) < rounds * together:
        drawn += dice.sample(known, len(known))
    return [drawn[start : start + together] for start in range(0, rounds * together, together)]


def play(house: House, together: Sequence[Fault], seed: int, number: int, record: Record) -> checks.Wrong:
    """One round: several studies on their way, faults, recovery, checks. Returns what is wrong with its kind so far."""
    dice = random.Random(f"{seed}:{number}")
    name = ", ".join(fault.name for fault in together)
    line = record.lines[together[0].kind if len(together) == 1 else "several at once"]
    line.tried += len(together)
    sent = load.studies(number, dice)
    record.sent += sent
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(load.STUDIES + len(together)) as pool:
            running = load.send(house, sent, dice, pool)
            running += [pool.submit(fault.act, house, random.Random(dice.random())) for fault in together]
            for one in running:
                one.result()
        checks.recovered(house, sent)
    except AssertionError as error:
        print(error)
        line.wrong.persons += 1
    else:
        line.seconds.append(time.monotonic() - began)
    for fault in together:
        _note_point(house, fault, record)
    wrong = checks.what_is_wrong(house, sent)
    line.wrong += wrong
    line.acknowledged += sum(len(study.acknowledged) for study in sent)
    print(f"round {number}: {name}: {time.monotonic() - began:.1f} s {wrong if wrong else ''}", flush=True)
    return line.wrong


def _note_point(house: House, fault: Fault, record: Record) -> None:
    if fault.point is None:
        return
    if house.node.disarm(fault.point):
        record.not_reached.append(fault.name)
    else:
        record.happened.add(fault.point)


def page(record: Record, facts: Mapping[str, str]) -> str:
    """The generated part of deploy/RELIABILITY.md."""
    said = {"machine": f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"}
    head = [f"- {key}: {value}" for key, value in (dict(facts) | said).items()]
    missed = [f"Armed, and not reached in their round: {', '.join(record.not_reached)}."] if record.not_reached else []
    points = ", ".join(f"`{point}`" for point in FaultPoint if point in record.happened)
    return "\n".join([*head, "", record.table(), "", f"Fault points that happened: {points}.", *missed])
