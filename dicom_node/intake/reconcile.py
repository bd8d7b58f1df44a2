"""Spool and registry brought into agreement, both ways, before the receiver listens.

A file without a row was acknowledged (or nearly) when the receiver died: its row is rebuilt. A row without a file is
evidence that is gone: it is marked lost. A file that cannot be read any more is moved aside for a person.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from dicom_node.base.errors import ConfigurationError, NotDicom
from dicom_node.base.events import Event, log
from dicom_node.base.types import Arrival
from dicom_node.intake.registrar import patiently, record
from dicom_node.intake.spool import Spool
from dicom_node.jobs.registry import Registry

GROUP = 500
FILES_ARE_LOST = ".files-are-lost"  # a person says so


@dataclass(frozen=True)
class Reconciliation:
    """How many rows were rebuilt, how many marked lost, how many files moved aside or not given by the disk."""

    recorded: int
    lost: int
    unreadable: int


def reconcile(spool: Spool, registry: Registry, max_object_bytes: int, give_up: threading.Event) -> Reconciliation:
    """Rebuild and mark rows until spool and registry agree.

    Waits for a database that is away; raises its error once `give_up` is set, OSError when the spool cannot be
    listed, ConfigurationError when all its files are gone: it is rather not mounted than lost.
    """
    known = patiently(lambda: set(registry.known_paths()), give_up)
    expected = patiently(
        lambda: set(registry.expected_paths()), give_up
    )  # before the files: each row had its file first
    present = set(spool.paths())
    if expected and not present and not (spool.folder / FILES_ARE_LOST).exists():
        raise ConfigurationError(
            f"node.storage: the registry knows {len(expected)} received objects and the spool has none; is it mounted? "
            f"If they are lost for good, create the file {spool.folder / FILES_ARE_LOST}"
        )
    unreadable: list[str] = []
    recorded = _record(spool, registry, sorted(present - known), max_object_bytes, unreadable, give_up)
    # Asked for by name as well: on a shared file system a listing may be older than what another node wrote.
    lost = [path for path in sorted(expected - present) if not spool.holds(path)]
    if lost:
        patiently(partial(registry.mark_lost, lost, time.time()), give_up)
    done = Reconciliation(recorded, len(lost), len(unreadable))
    trouble = done.lost or done.unreadable
    log(
        Event.SPOOL_RECONCILED,
        "warning" if trouble else "info",
        count=done.recorded,
        reason=f"{done.lost} rows without a file, {done.unreadable} unreadable files",
    )
    return done


def rebuild_rows(spool: Spool, registry: Registry, max_object_bytes: int, give_up: threading.Event) -> int:
    """Rebuild the rows of files that have none, while receivers are at work; how many.

    What another receiver is about to record is recorded twice, which is harmless. Waits for a database that is away.
    """
    present = set(spool.paths())
    known = patiently(lambda: set(registry.known_paths()), give_up)
    return _record(spool, registry, sorted(present - known), max_object_bytes, [], give_up)


def _record(
    spool: Spool,
    registry: Registry,
    paths: Iterable[str],
    max_object_bytes: int,
    unreadable: list[str],
    give_up: threading.Event,
) -> int:
    groups = _groups(_rebuilt(spool, paths, max_object_bytes, unreadable))
    return sum(record(registry, group, give_up) for group in groups)


def _rebuilt(spool: Spool, paths: Iterable[str], max_object_bytes: int, unreadable: list[str]) -> Iterator[Arrival]:
    for path in paths:
        try:
            yield spool.read(path, max_object_bytes)
        except NotDicom as error:
            log(Event.OBJECT_REFUSED, "error", path=path, reason=str(error))
            spool.set_aside(path)
            unreadable.append(path)
        except OSError as error:
            # One bad sector must not keep the node from receiving; the file stays where it is for the next start.
            log(Event.OBJECT_REFUSED, "error", path=path, reason=f"spool file cannot be read ({error.strerror})")
            unreadable.append(path)


def _groups(arrivals: Iterator[Arrival]) -> Iterator[list[Arrival]]:
    """Groups to record at once; a study is never parted, lest it be closed between two of them."""
    group: list[Arrival] = []
    for _, of_study in groupby(arrivals, key=lambda arrival: arrival.study_id):
        group += of_study
        if len(group) >= GROUP:
            yield group
            group = []
    if group:
        yield group
