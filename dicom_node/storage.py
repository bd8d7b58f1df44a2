"""The node's storage folder: who runs on it, and the database that describes this folder and no other."""

from __future__ import annotations

import fcntl
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dicom_node.base.config import Configuration
from dicom_node.base.durable import create_file, make_folder, replace_file
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.events import Event, log
from dicom_node.intake.spool import INCOMING
from dicom_node.jobs.registry import Registry

TAKEOVER_SECONDS = 10.0  # what the children of a supervisor that died may take to stop
JOINING_SECONDS = 60.0  # what the first of several nodes may take until it lets the others in
POLL_SECONDS = 0.2
CLOCK_SECONDS = 5.0  # that the clocks of nodes may be apart; far less than any lease lasts
STORAGE_ID = ".storage-id"
REGISTRY_ID = ".registry-id"


@dataclass(frozen=True)
class Locks:
    """A storage's locks as a node holds them. held: descriptors, which children inherit. alone: no other node runs."""

    held: tuple[int, ...]
    alone: bool


@contextmanager
def only_one(storage: Path, node: str | None = None) -> Iterator[Locks]:
    """Hold the storage's locks.

    node: the name of one of several nodes on this storage; each name is there once, and a node without a name is alone.
    The first of several keeps the others out until it joined. Waits for what is left of a node whose supervisor died.
    Raises ConfigurationError when another node keeps running.
    """
    make_folder(storage)
    with ExitStack() as stack:
        # For reading as well: that is what a shared lock needs on NFS.
        common = stack.enter_context((storage / ".lock").open("a+")).fileno()
        if node is None:
            _hold(common, fcntl.LOCK_EX, TAKEOVER_SECONDS, f"another node already runs on {storage}")
            yield Locks((common,), alone=True)
            return
        alone = _locked(common, fcntl.LOCK_EX)
        if not alone:
            _hold(common, fcntl.LOCK_SH, JOINING_SECONDS, f"a node without node.name already runs on {storage}")
        own = stack.enter_context(_own_lock(storage, node)).fileno()
        _hold(own, fcntl.LOCK_EX, TAKEOVER_SECONDS, f"another node named {node} already runs on {storage}")
        yield Locks((common, own), alone)


@contextmanager
def only_receiver(configuration: Configuration) -> Iterator[int]:
    """Hold the lock of the storage's receiver, which its helpers hold as well: a receiver must not look through the
    spool while what is left of the one before still stores. Gives the descriptor.

    Raises ConfigurationError when another keeps running.
    """
    node = configuration.node
    with (node.storage / (".receiving" if node.name is None else f".receiving-{node.name}")).open("a+") as lock:
        _hold(lock.fileno(), fcntl.LOCK_EX, TAKEOVER_SECONDS, "another receiver still stores")
        yield lock.fileno()


def discard_half_received(configuration: Configuration) -> None:
    """Delete the halves of objects that receivers of other names left, or of none, and nobody will go on with.

    To be called by who holds `only_one`: a node without a name does not run beside one that has one.
    """
    node = configuration.node
    for folder in node.spool.glob(f"{INCOMING}*"):
        name = folder.name.removeprefix(INCOMING).removeprefix("-")
        if name == (node.name or ""):
            continue  # its receiver does that itself
        with ExitStack() as stack:
            if name and not _locked(stack.enter_context(_own_lock(node.storage, name)).fileno(), fcntl.LOCK_EX):
                continue  # it runs
            try:
                for half in folder.iterdir():
                    half.unlink(missing_ok=True)
            except OSError as error:  # no reason not to start
                log(Event.JOB_FAILED, "error", job="half-received objects", error=type(error).__name__)


def check_belongs_together(configuration: Configuration, registry: Registry) -> None:
    """Refuse a database that describes another folder: its images would all be taken for lost.

    That is a node with a folder of its own on another's database, or a folder that is not mounted. Raises
    ConfigurationError.
    """
    file = configuration.node.storage / STORAGE_ID
    if not file.exists():
        create_file(file, uuid.uuid4().hex.encode())
    mine = file.read_text(encoding="ascii").strip()
    described = registry.describes(mine)
    if described != mine:
        raise ConfigurationError(
            f"node.storage, node.database: this database describes another storage folder than {file.parent}; is the "
            "right one mounted, and no other node on this database? To go on with this folder although the other's "
            f"files are lost, write {described} into {file}"
        )


def join_others(configuration: Configuration, registry: Registry, locks: Locks) -> None:
    """Take a node with a name in among those that share its storage and registry, and let others in.

    Raises ConfigurationError when a running one has another database or other settings, or when clocks disagree.
    """
    node = configuration.node
    assert node.name is not None
    file, mine = node.storage / REGISTRY_ID, registry.registry_id()
    if locks.alone:
        replace_file(file, mine.encode())
        fcntl.flock(locks.held[0], fcntl.LOCK_SH)
    if file.read_text(encoding="ascii") != mine:  # each would have every study of the folder run
        raise ConfigurationError(f"node.database: another node runs on {node.storage} with another database")
    apart = abs(registry.database_time() - time.time())
    if apart > CLOCK_SECONDS:
        raise ConfigurationError(
            f"node.name: this machine's clock and the database's are {apart:.0f} s apart; leases end by the clock, so "
            "all nodes need the same time (NTP)"
        )
    differing = registry.join(node.name, socket.gethostname(), configuration.shared_digests(), time.time())
    if differing:
        said = "; ".join(f"{', '.join(sections)} of {other}" for other, sections in sorted(differing.items()))
        raise ConfigurationError(
            f"another configuration than that of the nodes that run ({said}): stop them first, or start this one with "
            "theirs"
        )


def _own_lock(storage: Path, node: str) -> IO[str]:
    return (storage / f".lock-{node}").open("a+")


def _hold(lock: int, how: int, seconds: float, problem: str) -> None:
    patience = time.monotonic() + seconds
    while not _locked(lock, how):
        if time.monotonic() > patience:
            raise ConfigurationError(f"node.storage: {problem}")
        time.sleep(POLL_SECONDS)


def _locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
