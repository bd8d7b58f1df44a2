"""Files and folders that survive a power cut: what is written is on the disk when the call returns."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from dicom_node.base.fault_points import FaultPoint, passed

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it that are missing, for this user alone. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path | str) -> None:
    """Have the folder's entries on the disk (fsync). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, in place of what was there; readable by this user alone. Raises OSError."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    passed(FaultPoint.FILE_SYNCED)
    temporary.rename(path)
    passed(FaultPoint.FILE_RENAMED)
    sync_folder(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, unless it is there; of several that do so at once the first one counts.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    replace_file(temporary, content)
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
    sync_folder(path.parent)
