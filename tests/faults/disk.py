"""A file system of its own for the node's storage: it can be filled up, have its power cut, and its files held.

All that takes root; where that is missing, `small_disk` gives None and the faults that need it are not tried.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.node import HANG_SECONDS, LOOK_AGAIN_SECONDS

BALLAST = "ballast"
EXT4_IOC_SHUTDOWN = 0x8004587D  # <linux/fs.h>: _IOR('X', 125, __u32)
WITHOUT_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH


class Disk:
    """A mounted file system."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image

    def mount(self) -> bool:
        """Whether it is there now."""
        command = ["mount", "-o", "loop", str(self._image), str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def cut_power(self) -> None:
        """Lose whatever was written and not synced, as a power cut does; from now on every access is an error."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(descriptor)

    def come_back(self) -> None:
        """Mount what the power cut left, once nobody has a file of it open."""
        until = time.monotonic() + HANG_SECONDS
        while subprocess.run(["umount", str(self.folder)], capture_output=True, check=False).returncode:
            assert time.monotonic() < until, "the file system stays busy"
            time.sleep(LOOK_AGAIN_SECONDS)
        assert self.mount(), "the file system cannot be mounted after a power cut"

    def fill(self) -> None:
        """Leave no byte free."""
        descriptor = os.open(self.folder / BALLAST, os.O_WRONLY | os.O_CREAT)
        try:
            while True:  # others write and delete meanwhile
                state = os.statvfs(self.folder)
                if state.f_bavail == 0:
                    return
                count = max(state.f_frsize, state.f_bavail * state.f_frsize // 2)
                if not _allocated(descriptor, os.fstat(descriptor).st_size, count) and count == state.f_frsize:
                    return  # the last blocks are the file system's own
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Make room again."""
        (self.folder / BALLAST).unlink(missing_ok=True)

    def hold(self, *files: Path) -> list[Path]:
        """Let nobody write to these files, open or not: each attempt fails at once. Which of them were still there."""
        return [
            file
            for file in files
            if subprocess.run(["chattr", "+i", str(file)], capture_output=True, check=False).returncode == 0
        ]

    def release(self, *files: Path) -> None:
        """Let them be written again. Another fault may have released one before, and the registry deleted it then."""
        subprocess.run(["chattr", "-i", *(str(file) for file in files if file.exists())], check=True)


def _allocated(descriptor: int, start: int, count: int) -> bool:
    """Whether so many bytes more belong to the file now."""
    try:
        os.posix_fallocate(descriptor, start, count)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Disk | None]:
    """An ext4 file system of this size below the folder; it takes up what is written to it."""
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    disk = Disk(mounted, image)
    try:
        made = subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], capture_output=True, check=False)
        ready = made.returncode == 0 and disk.mount()
    except FileNotFoundError:
        ready = False
    try:
        yield disk if ready else None
    finally:
        if ready:
            subprocess.run(["umount", "-l", str(mounted)], check=True)
        image.unlink()
