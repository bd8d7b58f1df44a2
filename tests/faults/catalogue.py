"""Every fault that is tried, and what carries it out. A fault ends by itself; to recover is the node's business."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

from dicom_node.base.fault_points import FaultPoint
from faults.house import GO_ON, KILL, ROLES, STOP, SUPERVISOR, WHOLE, House, send_signal
from faults.wire import Trouble, What

STRIKES_AFTER = 3.0  # seconds from a round's beginning: by then its last study is at the archives, or nearly
BUSY_SECONDS = (0.3, 3.0)
LONG_BUSY_SECONDS = 11.5  # longer than the registry waits for a busy database
STILL_SECONDS = (0.2, 2.5)
TROUBLE_SECONDS = (0.5, 2.5)
BEGIN_SECONDS = (2.0, 6.0)  # until a process that was started has opened the registry
CUT_WITHIN = (1, 1000, 60_000)  # so many bytes: at once, within the first messages, within the first images
POWER_CUTS = 3  # for one of each other fault: what is not yet synced is something else at each moment
TURNS = (-86_400 * 30, -7200, -90, 90, 7200, 86_400 * 30)

# How often a round passes a point at least; all others once for sure, however images and studies are grouped.
OFTEN = {
    **dict.fromkeys((point for point in FaultPoint if point.startswith("spool-")), 20),
    **dict.fromkeys((point for point in FaultPoint if point.startswith(("report-", "message-", "hl7-"))), 3),
    FaultPoint.STUDY_CLAIMED: 3,
    FaultPoint.RESULT_WRITTEN: 3,
    FaultPoint.RESULT_COMMITTED: 3,
    FaultPoint.DELIVERY_CLAIMED: 8,
    FaultPoint.DELIVERY_TAKEN: 8,
    FaultPoint.DELIVERY_WRITTEN: 5,
    FaultPoint.COMMITMENT_NOTED: 3,
    FaultPoint.COMMITMENT_ASKED: 3,
    FaultPoint.COMMITMENT_SETTLED: 3,
}
OPEN_THE_REGISTRY = tuple(role for role in (SUPERVISOR, *ROLES) if role != "helper")
AT_START = (FaultPoint.FILE_SYNCED, FaultPoint.FILE_RENAMED)
TAKES_A_FULL_DISK = tuple(point for point in FaultPoint if point.startswith(("spool-", "report-")))
GROUPS = {
    "spool": "intake",
    "arrivals": "intake",
    "closing": "queue and report",
    "study": "queue and report",
    "report": "queue and report",
    "result": "queue and report",
    "delivery": "sending",
    "commitment": "sending",
    "hl7": "sending",
    "message": "orders",
    "file": "start",
}


@dataclass(frozen=True)
class Fault:
    """kind: its line in the table. act: carries it out and returns once it has ended.

    point: the fault point that it is about; `act` returns then at once, and the node gets there by itself. slow: takes
    ten seconds or more, as every new start of the whole node does. alone: other faults of the same round would stand in
    its way.
    """

    kind: str
    name: str
    act: Callable[[House, random.Random], None]
    point: FaultPoint | None = None
    slow: bool = False
    alone: bool = False


def faults(*, disk: bool, clock: bool) -> list[Fault]:
    """All of them, in a fixed order. disk, clock: whether the node has a disk and a clock of its own."""
    return [
        *_deaths(),
        *_points(),
        *_stops(),
        *_wires(),
        *_database(disk),
        *(_disk() if disk else []),
        *(_clock() if clock else []),
    ]


def _deaths() -> Iterator[Fault]:
    for role in (SUPERVISOR, *ROLES, WHOLE):

        def act(house: House, dice: random.Random, role: str = role) -> None:
            time.sleep(dice.uniform(0, STRIKES_AFTER))
            house.node.strike(role, KILL)

        yield Fault(f"kill -9: {role}", f"kill {role}", act, slow=role not in ROLES)


def _points() -> Iterator[Fault]:
    for what, label, points in (
        ("die", "death at a fault point", tuple(FaultPoint)),
        ("ENOSPC", "ENOSPC at a fault point", TAKES_A_FULL_DISK),
    ):
        for point in points:

            def act(house: House, dice: random.Random, point: FaultPoint = point, what: str = what) -> None:
                house.node.arm(point, what, dice.randint(1, OFTEN.get(point, 1)))
                if point in AT_START:
                    house.node.strike(WHOLE, KILL)

            kind = f"{label}: {GROUPS[point.split('-')[0]]}"
            yield Fault(kind, f"{what} at {point}", act, point, slow=point in AT_START)


def _stops() -> Iterator[Fault]:
    for role in (SUPERVISOR, *ROLES, WHOLE):

        def act(house: House, dice: random.Random, role: str = role) -> None:
            time.sleep(dice.uniform(0, STRIKES_AFTER))
            stopped = house.node.strike(role, STOP)
            time.sleep(dice.uniform(*STILL_SECONDS))
            send_signal(stopped, GO_ON)

        yield Fault("stopped and continued", f"stop {role}", act)


def _wires() -> Iterator[Fault]:
    kinds: tuple[What, ...] = ("cut", "half closed", "held", "delayed", "throttled")
    for wire in ("images", "orders", "pacs", "vault", "ris"):
        for what in kinds:

            def act(house: House, dice: random.Random, wire: str = wire, what: What = what) -> None:
                time.sleep(dice.uniform(0, STRIKES_AFTER / 2))
                back, after = dice.random() < 0.5, dice.randrange(dice.choice(CUT_WITHIN))
                house.wires[wire].trouble = Trouble(what, back, after)
                time.sleep(dice.uniform(*TROUBLE_SECONDS))
                house.wires[wire].trouble = None

            yield Fault(f"connection {what}", f"{wire} {what}", act)


def _database(disk: bool) -> Iterator[Fault]:
    def hold(house: House, seconds: float) -> None:
        path = house.node.configuration.node.storage / "registry.sqlite"
        with (
            closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as lock,
            suppress(sqlite3.OperationalError),  # another fault of this round keeps everybody from writing
        ):
            lock.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            lock.execute("ROLLBACK")

    def busy(house: House, dice: random.Random) -> None:
        time.sleep(dice.uniform(0, STRIKES_AFTER))
        hold(house, dice.uniform(*BUSY_SECONDS))

    def long_busy(house: House, dice: random.Random) -> None:
        time.sleep(dice.uniform(0, STRIKES_AFTER))
        hold(house, LONG_BUSY_SECONDS)

    def read_only(house: House, dice: random.Random, begins: str | None = None) -> None:
        assert house.disk is not None
        time.sleep(dice.uniform(0, STRIKES_AFTER))
        files = list(house.node.configuration.node.storage.glob("registry.sqlite*"))
        if dice.random() < 0.5:  # with its index in shared memory: whoever writes to that dies of SIGBUS
            files = [file for file in files if not file.name.endswith("-shm")]
        held = house.disk.hold(*files)
        assert held, "the registry has no file to hold"
        if begins is not None:
            house.node.strike(begins, KILL)
        time.sleep(dice.uniform(*(TROUBLE_SECONDS if begins is None else BEGIN_SECONDS)))
        house.disk.release(*held)

    yield Fault("database busy", "database busy", busy)
    yield Fault("database busy", "database busy for long", long_busy, slow=True)
    if disk:
        yield Fault("database cannot be written", "database read-only", read_only)
        for role in OPEN_THE_REGISTRY:  # what opens it in that time has it for reading alone
            act = partial(read_only, begins=role)
            yield Fault("database cannot be written", f"database read-only, {role} begins", act, slow=role not in ROLES)


def _full(house: House, dice: random.Random) -> None:
    assert house.disk is not None
    time.sleep(dice.uniform(0, STRIKES_AFTER))
    house.disk.fill()
    time.sleep(dice.uniform(*TROUBLE_SECONDS))
    house.disk.free()


def _power_cut(house: House, dice: random.Random) -> None:
    assert house.disk is not None
    time.sleep(dice.uniform(0, STRIKES_AFTER))
    house.disk.cut_power()
    with house.node.switched_off():
        house.disk.come_back()


def _disk() -> Iterator[Fault]:
    yield Fault("disk full, a small file system", "disk full", _full)
    for number in range(1, POWER_CUTS + 1):
        yield Fault("power cut: what was not synced is lost", f"power cut {number}", _power_cut, alone=True)


def _clock() -> Iterator[Fault]:
    for seconds in TURNS:

        def act(house: House, dice: random.Random, seconds: int = seconds) -> None:
            time.sleep(dice.uniform(0, STRIKES_AFTER))
            house.clock.turn(seconds)
            time.sleep(dice.uniform(*TROUBLE_SECONDS))
            house.clock.turn(0)

        yield Fault("clock turned, and back", f"clock turned by {seconds} s and back", act)
