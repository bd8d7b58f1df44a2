"""A small file system of its own for the node's storage: it can be filled up, and files on it made unchangeable.

Both take root; where that is missing, `small_disk` gives None and the faults that need it are not tried.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BALLAST = "ballast"


class Disk:
    """A mounted file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no byte free."""
        descriptor = os.open(self.folder / BALLAST, os.O_WRONLY | os.O_CREAT)
        try:
            while True:  # others write and delete meanwhile
                state = os.statvfs(self.folder)
                if state.f_bavail == 0:
                    return
                end = os.fstat(descriptor).st_size
                _allocate(descriptor, end, max(state.f_frsize, state.f_bavail * state.f_frsize // 2))
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Make room again."""
        (self.folder / BALLAST).unlink(missing_ok=True)

    def hold(self, *files: Path) -> None:
        """Let nobody write to these files, open or not: each attempt fails at once."""
        subprocess.run(["chattr", "+i", *map(str, files)], check=True)

    def release(self, *files: Path) -> None:
        """Let them be written again."""
        subprocess.run(["chattr", "-i", *map(str, files)], check=True)


def _allocate(descriptor: int, start: int, count: int) -> None:
    try:
        os.posix_fallocate(descriptor, start, count)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Disk | None]:
    """An ext4 file system of this size below the folder; it takes up what is written to it."""
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    commands = (["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(mounted)])
    try:
        ready = all(subprocess.run(one, capture_output=True, check=False).returncode == 0 for one in commands)
    except FileNotFoundError:
        ready = False
    try:
        yield Disk(mounted) if ready else None
    finally:
        if ready:
            subprocess.run(["umount", "-l", str(mounted)], check=True)
        image.unlink()
