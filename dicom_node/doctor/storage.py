"""The folders that the node writes to: space, modes, and whether what is written there lasts."""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from dicom_node.base.config import Configuration
from dicom_node.base.disk import reserve_of, usage_of, written_folders
from dicom_node.base.durable import PRIVATE_FILE, sync_folder
from dicom_node.doctor.finding import Finding, failed, ok, warning

OTHERS = stat.S_IRWXG | stat.S_IRWXO
FEW_FILES = 100_000  # that the file system has room for
APART_SECONDS = 2.0
MAKE_ROOM = "free space, or have [retention] make room"


def check_storage(configuration: Configuration) -> Iterator[Finding]:
    """Every folder by itself, then the space on their disks."""
    for folder in written_folders(configuration):
        what = f"folder {folder}"
        if not folder.is_dir():
            yield warning(what, "is not there yet", "`dicom-node serve` makes it; or is it not mounted?")
            continue
        yield from _check_folder(what, folder)
    yield _space(configuration)


def _check_folder(what: str, folder: Path) -> Iterator[Finding]:
    try:
        apart = _written(folder)
    except OSError as error:
        words = f"cannot be written ({error.strerror})"
        yield failed(what, words, "make it writable for the node's user; look at the disk")
        return
    if folder.stat().st_mode & OTHERS:
        yield warning(what, "other users may look into it, and it holds patient data", f"chmod 700 {folder}")
    elif apart > APART_SECONDS:
        words = f"its clock and this machine's are {apart:.0f} s apart"
        yield warning(what, words, "set both clocks by NTP, or use a local disk")
    else:
        yield ok(what, "private, and what is written there lasts")


def _written(folder: Path) -> float:
    """Write a file as the node writes: file and folder synced. Seconds between its time and ours. Raises OSError."""
    probe = folder / f".doctor-{uuid.uuid4().hex}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        with open(descriptor, "wb") as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
        return abs(probe.stat().st_mtime - time.time())
    finally:
        probe.unlink(missing_ok=True)


def _space(configuration: Configuration) -> Finding:
    """Of the fullest of the disks."""
    what, reserve = "disk space", reserve_of(configuration)
    free = reserve.free()
    said = f"{free / 1e9:.1f} GB free"
    if reserve.is_reached():
        return failed(what, f"{said}, less than intake.reserve_bytes: no images are taken", MAKE_ROOM)
    if free < 2 * reserve.bytes:
        return warning(what, f"{said}, less than twice intake.reserve_bytes", MAKE_ROOM)
    if usage_of(configuration.node.spool).is_above(configuration.retention):
        return warning(what, f"{said}: above the mark of [retention]", "see 2032 in the runbook if it stays so")
    system = os.statvfs(next(folder for folder in _present(configuration.node.spool)))
    if system.f_files and system.f_favail < FEW_FILES:  # some file systems have no such limit, and say 0
        return warning(what, f"{said}, but room for only {system.f_favail} more files", MAKE_ROOM)
    return ok(what, said)


def _present(folder: Path) -> Iterator[Path]:
    return (one for one in (folder, *folder.parents) if one.exists())
