"""How full the disks are that the node writes to."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

from dicom_node.base.config import Configuration, RetentionSection
from dicom_node.base.errors import DiskFull

# A disk with so much to spare is not asked for every image: whoever writes to it takes longer than that to fill it.
AMPLE_BYTES, AMPLE_SECONDS = 4 << 30, 0.1


@dataclass(frozen=True)
class Usage:
    """Bytes in use, and bytes that this user may still write."""

    used: int
    free: int

    def is_above(self, marks: RetentionSection) -> bool:
        """Whether the disk is fuller than retention lets it be."""
        share = marks.max_used_share
        return (marks.min_free_bytes is not None and self.free < marks.min_free_bytes) or (
            share is not None and self.used > share * (self.used + self.free)
        )


def usage_of(folder: Path) -> Usage:
    """Of the disk that holds a folder, or is to hold it. Raises OSError."""
    while not folder.exists():
        folder = folder.parent
    found = shutil.disk_usage(folder)
    return Usage(found.used, found.free)


def written_folders(configuration: Configuration) -> tuple[Path, ...]:
    """Where the node writes: its storage, and the folder of an SQLite registry that lies elsewhere."""
    node = configuration.node
    url = make_url(node.database_url)
    of_registry = [Path(url.database).parent] if url.get_backend_name() == "sqlite" and url.database else []
    return tuple(dict.fromkeys([node.storage, node.spool, node.outgoing, *of_registry]))


class Reserve:
    """Free space that intake leaves alone, so that what was acknowledged can still be recorded, computed and sent."""

    def __init__(self, folders: Iterable[Path], reserve_bytes: int) -> None:
        self._folders = tuple(folders)
        self.bytes = reserve_bytes
        self._ample_until = 0.0

    def admit(self, size: int = 0) -> None:
        """Ask before an object of so many bytes is written. Raises DiskFull when too little would be left."""
        now = time.monotonic()
        if self.bytes == 0 or (now < self._ample_until and size < AMPLE_BYTES // 2):
            return
        free = self.free()
        if free - size < self.bytes:
            raise DiskFull("the disk is full but for its reserve; free space in node.storage")
        self._ample_until = now + AMPLE_SECONDS if free - AMPLE_BYTES > self.bytes else 0.0

    def is_reached(self, size: int = 0) -> bool:
        """Whether less than the reserve is left, or would be after so many bytes more."""
        return self.bytes > 0 and self.free() - size < self.bytes

    def free(self) -> int:
        """Free bytes of the fullest of the disks; a folder that cannot be looked at has none."""
        return min(map(_free, self._folders))


NO_RESERVE = Reserve((), 0)


def reserve_of(configuration: Configuration) -> Reserve:
    """The reserve that a site asks for."""
    return Reserve(written_folders(configuration), configuration.intake.reserve_bytes)


def is_crowded(folder: Path, configuration: Configuration) -> bool:
    """Whether images need the room on a folder's disk: the largest would reach into the reserve, or retention has to
    make room. A disk that cannot be looked at counts as crowded.
    """
    intake = configuration.intake
    try:
        above = usage_of(folder).is_above(configuration.retention)
    except OSError:
        return True
    return above or Reserve([folder], intake.reserve_bytes).is_reached(intake.max_object_bytes)


def _free(folder: Path) -> int:
    try:
        return usage_of(folder).free
    except OSError:
        return 0
