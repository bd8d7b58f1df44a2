"""Stories of studies whose reading priority changes, and what each peer may have heard at the end.

The rules are written down here once more, step by step and for one study alone, so that a node under faults is measured
against something other than itself. A peer is told what is higher than the order and than what it was told before;
what waits is not told any more once the RIS has raised its order or a person has taken it back.

story = tell_story(7, random.Random(1))
heard = allowed(story.steps, Listener("ris", "hl7"))     # every series of codes, such as ("A", "S"), that is right
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.base.orders import Listener
from dicom_node.base.types import Level

SAID = {"R": Level.ROUTINE, "A": Level.URGENT, "S": Level.CRITICAL, "X": None}  # X is in no table
HL7 = {Level.ROUTINE: "R", Level.ELEVATED: "A", Level.URGENT: "A", Level.CRITICAL: "S"}
UPS = {Level.ROUTINE: "LOW", Level.ELEVATED: "MEDIUM", Level.URGENT: "HIGH", Level.CRITICAL: "HIGH"}
LEVELS, WEIGHTS = ("routine", "elevated", "urgent", "critical"), (40, 20, 25, 15)


@dataclass(frozen=True)
class Step:
    """What happens. what: order, result, reorder, raise or undo. word: a priority code or a level."""

    what: str
    word: str = ""


@dataclass(frozen=True)
class Story:
    """One study's, under its number."""

    number: int
    steps: tuple[Step, ...]

    @property
    def study_instance_uid(self) -> str:
        """Made from the number, as all its identifiers."""
        return f"1.2.3.{self.number}"

    @property
    def accession_number(self) -> str:
        """Which the order and the images share."""
        return f"A{self.number}"

    @property
    def placer(self) -> str:
        """Placer order number."""
        return f"PL{self.number}"

    @property
    def ordered(self) -> str:
        """The priority code that the order has at the end."""
        return [step.word for step in self.steps if step.what in ("order", "reorder")][-1]


def tell_story(number: int, dice: random.Random) -> Story:
    """An order and a result, for one study in five the result first; then, for half of them, something more."""
    first = Step("result", dice.choices(LEVELS, WEIGHTS)[0])
    order = Step("order", dice.choices("RASX", (70, 12, 10, 8))[0])
    late = dice.random() < 0.2
    steps = [first, order] if late else [order, first]
    again, wish = Step("result", dice.choice(LEVELS)), Step("raise", dice.choice(("urgent", "critical")))
    more: list[tuple[Step, ...]] = [(again,), (Step("reorder", "S"),), (wish,)]
    if not late and order.word != "X":
        # Who does not know what was before cannot go back to it; and what was told of a study before its order came
        # is a change of its own.
        more += [(Step("undo"),), (again, Step("undo")), (wish, Step("undo"))]
    if dice.random() < 0.5:
        steps += dice.choice(more)
    return Story(number, tuple(steps))


def allowed(steps: Sequence[Step], listener: Listener) -> set[tuple[str, ...]]:
    """The priorities, in the listener's words, that it may have taken to heart, repetitions aside."""
    told, undone = _told(steps, listener)
    series = {tuple(told)}
    if undone:
        # What a person took back may not have been attempted, or not got through. A worklist manager is given back
        # what it said it had; where its answer was lost, it is left alone.
        series |= {tuple(told[:-2]), tuple(told[:-1]) if listener.kind == "ups" else (*told[:-2], told[-1])}
    if any(step.what == "reorder" for step in steps):
        series |= {tuple(told[:length]) for length in range(len(told))}
    words = UPS if listener.kind == "ups" else HL7
    return {_as_heard([words[level] for level in one], listener) for one in series}


def _told(steps: Sequence[Step], listener: Listener) -> tuple[list[Level], bool]:
    """The levels that the listener is told if nothing overtakes anything, and whether the last one is an undo."""
    ordered: Level | None = None
    has_order = False
    judged, silenced = Level.ROUTINE, Level.ROUTINE  # what the result asks for, and what a person took back of it
    told: list[Level] = []
    standing: list[tuple[Level, bool]] = []  # every change that anybody is told, and whether this listener is
    undone = False
    for step in steps:
        wish = Level.ROUTINE
        if step.what in ("order", "reorder"):
            ordered, has_order = SAID[step.word], True
        elif step.what == "result":
            judged = Level(step.word)
        elif step.what == "raise":
            wish = Level(step.word)
        elif standing:
            level, mine = standing.pop()
            silenced, undone = level, mine
            if mine:
                told.append(_highest(ordered, *(one for one, was in standing if was)))
        if step.what == "undo":
            continue
        level = wish if step.what == "raise" else judged
        known = _highest(ordered, *(one for one, _ in standing))
        if not has_order or level.severity <= max(known.severity, silenced.severity):
            continue
        mine = listener.kind == "ups" or ordered is not None
        mine |= listener.top_level_if_unknown and level is Level.CRITICAL
        standing.append((level, mine))
        if mine:
            told.append(level)
    return told, undone


def _highest(*levels: Level | None) -> Level:
    return max([level for level in levels if level is not None], key=lambda one: one.severity, default=Level.ROUTINE)


def _as_heard(words: Sequence[str], listener: Listener) -> tuple[str, ...]:
    """A worklist manager is not told again what it has already."""
    if listener.kind != "ups":
        return tuple(words)
    return tuple(word for number, word in enumerate(words) if number == 0 or word != words[number - 1])
