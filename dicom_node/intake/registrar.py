"""Rows for durable files: one thread that records arrivals in groups, behind the acknowledgement.

The file is the truth and the row follows: while the database is away rows wait here, and when the process dies they are
rebuilt from the files. When too many wait, senders are told to come back later.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from dicom_node.base.errors import RetriableError
from dicom_node.base.events import Event, log
from dicom_node.base.types import Arrival
from dicom_node.jobs.registry import DATABASE_AWAY, Registry

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
GROUP = 500
# Rows are not waited for: one transaction for what comes in this time costs a fraction of one for each image.
GATHER_SECONDS = 0.1
# Where more came in it, as from a fleet of scanners, a transaction gets more.
MANY, GATHER_MORE_SECONDS = 20, 0.3
MAX_WAITING = 20_000

T = TypeVar("T")
Item = TypeVar("Item")


class RegistryBehind(RetriableError):
    """Too many durable objects wait for their row; the sender should try again later."""


@dataclass(frozen=True)
class Opened:
    """An association that was accepted."""

    association_id: str
    calling_ae: str
    address: str
    at: float


@dataclass(frozen=True)
class Closed:
    """An association that ended, however."""

    association_id: str
    at: float


def patiently(work: Callable[[], T], give_up: threading.Event) -> T:
    """Run `work` until the database lets it through; once `give_up` is set, its error is raised."""
    wait = FIRST_WAIT_SECONDS
    while True:
        try:
            return work()
        except DATABASE_AWAY as error:
            # The type alone: the driver's message quotes the statement and its values.
            log(Event.REGISTRY_BEHIND, "warning", error=type(error).__name__, seconds=wait)
            if give_up.wait(wait):
                raise
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def noted(work: Callable[[], None], give_up: threading.Event) -> bool:
    """Run `work` patiently; False, and a line in the log, when the database will not take what it writes."""
    try:
        patiently(work, give_up)
    except DATABASE_AWAY:
        raise
    except SQLAlchemyError as error:
        log(Event.REGISTRY_BEHIND, "error", error=type(error).__name__)
        return False
    return True


def record(registry: Registry, arrivals: Sequence[Arrival], give_up: threading.Event) -> int:
    """Write the rows of durable objects, patiently; returns how many the database took.

    Of one that it did not take the object's file stays for the next start.
    """
    return together(registry.record_arrivals, arrivals, give_up)


def together(write: Callable[[Sequence[Item]], None], items: Sequence[Item], give_up: threading.Event) -> int:
    """Write items in one transaction, patiently; returns how many the database took.

    One that it will not take must not keep the others out: then they go one by one.
    """
    if not items or noted(partial(write, items), give_up):
        return len(items)
    return sum(together(write, [item], give_up) for item in items) if len(items) > 1 else 0


class Registrar:
    """Takes openings, arrivals and closings from the associations' threads and writes them down in their order.

    An association's closing is written after all its arrivals.
    """

    def __init__(self, registry: Registry, boot_id: str, max_waiting: int = MAX_WAITING) -> None:
        self._registry = registry
        self._boot_id = boot_id
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[Opened | Arrival | Closed | None] = queue.SimpleQueue()
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def stop(self, patience_seconds: float = 10.0) -> None:
        """Write what waits, then end; gives up on a database that stays away, since the files can rebuild the rows."""
        self._queue.put(None)
        self._thread.join(patience_seconds)
        self._give_up.set()
        self._thread.join()

    @property
    def running(self) -> bool:
        """False once the thread ended, on request or by an error in the program."""
        return self._thread.is_alive()

    def admit(self) -> None:
        """Ask before an object is written. Raises RegistryBehind when too many rows wait."""
        if self._queue.qsize() >= self._max_waiting:
            raise RegistryBehind("the registry is far behind; see whether the database is reachable")

    def put(self, item: Opened | Arrival | Closed) -> None:
        """Have it written down soon; never blocks. An arrival must be durable in the spool."""
        self._queue.put(item)

    def _run(self) -> None:
        ended = False
        while not ended:
            group = self._next_group()
            ended = None in group
            try:
                self._write(group)
            except DATABASE_AWAY as error:
                log(Event.REGISTRY_BEHIND, "error", error=type(error).__name__, count=self._queue.qsize())
                return

    def _next_group(self) -> list[Opened | Arrival | Closed | None]:
        group = [self._queue.get()]
        if group[-1] is not None:
            self._give_up.wait(GATHER_SECONDS)
            if MANY < self._queue.qsize() < GROUP:
                self._give_up.wait(GATHER_MORE_SECONDS)
        while len(group) < GROUP and group[-1] is not None and not self._queue.empty():
            group.append(self._queue.get())
        return group

    def _write(self, group: Sequence[Opened | Arrival | Closed | None]) -> None:
        opened = [(one.association_id, one.calling_ae, one.address, one.at) for one in group if isinstance(one, Opened)]
        together(partial(self._registry.open_associations, self._boot_id), opened, self._give_up)
        record(self._registry, [one for one in group if isinstance(one, Arrival)], self._give_up)
        closed = [(one.association_id, one.at) for one in group if isinstance(one, Closed)]
        together(self._registry.close_associations, closed, self._give_up)
