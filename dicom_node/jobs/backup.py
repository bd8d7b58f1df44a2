"""A copy of an SQLite registry, as it is at one moment, while the node goes on writing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from dicom_node.base.durable import PRIVATE_FILE, sync_folder
from dicom_node.base.errors import PermanentError, RetriableError

POSTGRESQL = (
    "this registry is on PostgreSQL: `pg_dump --format=custom --file=FILE DATABASE` copies it while the node runs, and "
    "`pg_restore` brings it back; see Backup in the runbook"
)


def back_up(url: str, target: Path) -> int:
    """Copy the registry into a file that is not there yet, whole or not at all; its size in bytes.

    One read transaction of SQLite's: in WAL mode it holds up no writer and sees none that begins later. The copy is
    checked before it gets its name. Raises PermanentError, RetriableError or OSError.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database is None:
        raise PermanentError(POSTGRESQL)
    if target.exists():
        raise PermanentError(f"{target} is there already; a backup overwrites nothing")
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
    try:
        _copy(Path(parsed.database), temporary)
        _sync(temporary)
        temporary.rename(target)
    except sqlite3.Error as error:
        raise RetriableError(f"the registry cannot be copied ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return target.stat().st_size


def _copy(registry: Path, copy: Path) -> None:
    with (
        closing(sqlite3.connect(f"{registry.absolute().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as made,
    ):
        source.backup(made)
        [[said]] = made.execute("PRAGMA quick_check(1)").fetchall()
        if said != "ok":
            raise PermanentError("the copy is damaged, and so may be the registry: look at the disk")
        made.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
