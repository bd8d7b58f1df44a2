"""Peers that fail three times in ten, each in ways of its own, and remember what they took to heart."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import OperationalError

from dicom_node.base.workitems import UpsQuery, Workitem
from dicom_node.worklist.dicom import dataset as data_sets
from support.hl7_peers import ack
from support.worklist_memory import MemoryUpsStore

FAILS = 0.3
CODES = {"critical": "S", "urgent": "A", "elevated": "A", "routine": "R"}  # of an ORU, which says it in words


@dataclass(frozen=True)
class Heard:
    """A priority that a RIS took to heart. attempt: how many messages had come to it before, failed ones too."""

    placer: str
    key: str
    code: str
    attempt: int


class UnreliableRis:
    """The script of an HL7 peer that hangs up or answers rubbish, before or after it took a message to heart."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._lock = threading.Lock()
        self.attempts = 0
        self.heard: list[Heard] = []

    def __call__(self, received: list[bytes]) -> bytes | None:
        segments = [line.split("|") for line in received[-1].decode().split("\r") if line]
        key = segments[0][9]
        with self._lock:
            luck = self._dice.random()
            if luck >= FAILS / 3:
                placer = next(fields[2] for fields in segments if fields[0] == "ORC")
                self.heard.append(Heard(placer, key, _code(segments), self.attempts))
            self.attempts += 1
        if luck >= FAILS:
            return ack("AA", key)
        return None if luck < 2 * FAILS / 3 else b"AA"

    def by_placer(self) -> dict[str, list[Heard]]:
        """What was heard of each order, by placer order number."""
        found = defaultdict(list)
        for one in self.heard:
            found[one.placer].append(one)
        return found


class UnreliableStore(MemoryUpsStore):
    """A worklist manager's store that fails before or after it did what it was asked; notes each step's priorities."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self.history: dict[str, list[str]] = defaultdict(list)

    def workitems(self, query: UpsQuery) -> Iterator[Workitem]:
        """Most attempts ask twice."""
        self._luck(FAILS / 6)
        return super().workitems(query)

    def create_workitem(self, workitem: Workitem, *rest: Any, **more: Any) -> None:
        """Keep it, or fail, or both."""
        self._luck(FAILS / 3)
        super().create_workitem(workitem, *rest, **more)
        self.history[workitem.sop_instance_uid].append(workitem.priority)
        self._luck(FAILS / 3)

    def update_workitem(self, workitem: Workitem, *rest: Any, **more: Any) -> None:
        """Change it, or fail, or both."""
        self._luck(FAILS / 3)
        super().update_workitem(workitem, *rest, **more)
        self.history[workitem.sop_instance_uid].append(workitem.priority)
        self._luck(FAILS / 3)

    def by_study(self) -> dict[str, list[str]]:
        """The priorities that each study's step had, one after another, by Study Instance UID."""
        steps = {uid: data_sets.read(step.encoded) for uid, step in self.kept.items()}
        return {str(steps[uid].StudyInstanceUID): priorities for uid, priorities in self.history.items()}

    def _luck(self, fails: float) -> None:
        if self._dice.random() < fails:
            raise OperationalError("", {}, ConnectionError("the store is away"))


def _code(segments: list[list[str]]) -> str:
    """The priority code of an ORM, OMG, OMI or ORU."""
    for fields in segments:
        if fields[0] == "TQ1":
            return fields[9].split("^")[0]
        if fields[0] == "OBX" and fields[3].startswith("260870009^"):
            return CODES[fields[5].split(" ")[0]]
    return next(fields[7].split("^")[5] for fields in segments if fields[0] == "ORC")
