"""The node's storage folder: one node at a time, and the database that describes this folder and no other."""

from __future__ import annotations

import fcntl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.base.config import Configuration
from dicom_node.base.durable import make_folder, replace_file
from dicom_node.base.errors import ConfigurationError
from dicom_node.jobs.registry import Registry

TAKEOVER_SECONDS = 10.0  # what the children of a supervisor that died may take to stop
POLL_SECONDS = 0.2
STORAGE_ID = ".storage-id"


@contextmanager
def only_one(storage: Path) -> Iterator[int]:
    """Hold the storage's lock; gives its descriptor, which children inherit.

    Waits for what is left of a node whose supervisor died. Raises ConfigurationError when another node keeps running.
    """
    make_folder(storage)
    with (storage / ".lock").open("w") as lock:
        patience = time.monotonic() + TAKEOVER_SECONDS
        while not _locked(lock.fileno()):
            if time.monotonic() > patience:
                raise ConfigurationError(f"node.storage: another node already runs on {storage}")
            time.sleep(POLL_SECONDS)
        yield lock.fileno()


def check_belongs_together(configuration: Configuration, registry: Registry) -> None:
    """Refuse a database that describes another folder: its images would all be taken for lost.

    That is two nodes on one database, or a folder that is not mounted. Raises ConfigurationError.
    """
    file = configuration.node.storage / STORAGE_ID
    if not file.exists():
        replace_file(file, uuid.uuid4().hex.encode())
    mine = file.read_text(encoding="ascii").strip()
    described = registry.describes(mine)
    if described != mine:
        raise ConfigurationError(
            f"node.storage, node.database: this database describes another storage folder than {file.parent}; is the "
            "right one mounted, and no other node on this database? To go on with this folder although the other's "
            f"files are lost, write {described} into {file}"
        )


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
