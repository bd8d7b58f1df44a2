"""A data set on its way from the network into the spool: digested as it comes, whole in memory only if it is small.

How to use:

    incoming = Incoming(folder, max_bytes)
    incoming.write(fragment)                    # as often as fragments come; never raises
    with incoming.reading() as stream: …        # what came, from its first byte
    incoming.place(header, name, folder)        # on the disk, under its name, with its header in front
    incoming.discard()                          # where it is not wanted; harmless afterwards
"""

from __future__ import annotations

import hashlib
import itertools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from dicom_node.base.disk import NO_RESERVE, Reserve
from dicom_node.base.durable import PRIVATE_FILE
from dicom_node.base.errors import DiskFull, PermanentError, RetriableError
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.intake.file_header import HEADER_LENGTH
from dicom_node.intake.transit import Share

# What identifies an object is searched in as much; nearly every single-frame image is smaller.
IN_MEMORY_BYTES = 4 << 20
# Names of files that are half-written: nobody else's, and no random number for each, which is one more system call.
PROCESS = uuid.uuid4().hex
_numbers = itertools.count()
ASKED_BYTES = 1 << 20  # of what is to come in a file, for which the disk's reserve is asked at a time


class TooLarge(PermanentError):
    """The object, or what it inflates to, is larger than intake.max_object_bytes."""


class TooMuchInTransit(RetriableError):
    """Too much is on its way at once, of all senders or of this one; the object may come again later."""


class Incoming:
    """One data set. share: what it takes of all that is on its way; reserve: what it leaves free on the disk.

    Not safe for several threads at once.
    """

    def __init__(self, folder: Path, max_bytes: int, share: Share | None = None, reserve: Reserve = NO_RESERVE) -> None:
        # What `__del__` looks at comes first.
        self._file: int | None = None
        self._share = share
        self._path = ""
        self._folder = folder
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._memory = BytesIO()
        self._error: OSError | DiskFull | TooMuchInTransit | None = None
        self._reserve = reserve
        self._admitted = 0
        self.size = 0

    def __del__(self) -> None:
        """For an association that ends without a word."""
        if self._share is not None:
            self._share.forget()
        if self._file is not None:
            os.close(self._file)
            _remove(self._path)

    @property
    def digest(self) -> str:
        """SHA-256 of what came, hexadecimal."""
        return self._digest.hexdigest()

    @property
    def unwritten(self) -> int:
        """How many bytes more the disk is to take: none where it already lies in a file."""
        return self.size if self._file is None else 0

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the next bytes. What cannot be kept is told by `check`, once all of it was read from the sender."""
        self.size += len(fragment)
        if self.size > self._max_bytes or self._error is not None:
            self.discard()
            return
        if self._share is not None and not self._share.take(len(fragment)):
            self._error = TooMuchInTransit("too much is on its way at once; see intake.max_incoming_bytes")
            self.discard()
            return
        self._digest.update(fragment)
        crowded = self._share is not None and self._share.crowded
        if self._file is None and self.size <= IN_MEMORY_BYTES and not crowded:
            self._memory.write(fragment)
            return
        try:
            self._spill(fragment)
        except (OSError, DiskFull) as error:
            self._error = error
            self.discard()

    def check(self) -> None:
        """Raises TooLarge when it outgrew its bound, TooMuchInTransit, DiskFull or OSError when it was not kept."""
        if self.size > self._max_bytes:
            raise TooLarge("object is larger than intake.max_object_bytes")
        if self._error is not None:
            raise self._error

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """All of it, to be read from its first byte. Raises OSError."""
        if self._file is None:
            self._memory.seek(0)
            yield self._memory
            return
        with open(self._path, "rb") as stream:
            stream.seek(HEADER_LENGTH)
            yield stream

    def place(self, header: bytes, name: str, folder: int) -> None:
        """Have header and data set on the disk, then under this name in an open folder, which is left to be synced.

        Raises OSError; then nothing is left.
        """
        try:
            if self._file is None:
                self._open()
                _write_all(self._file, [header, self._memory.getbuffer()])
            else:
                os.pwrite(self._file, header, 0)
            assert self._file is not None
            passed(FaultPoint.SPOOL_WRITTEN)
            os.fsync(self._file)
            passed(FaultPoint.SPOOL_SYNCED)
            os.rename(self._path, name, dst_dir_fd=folder)
            passed(FaultPoint.SPOOL_RENAMED)
            self._close()
            self._give_back()
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Forget what came."""
        self._memory = BytesIO()
        if self._file is not None:
            self._close()
            _remove(self._path)
        self._give_back()

    def _give_back(self) -> None:
        if self._share is not None:
            self._share.give_back()

    def _spill(self, fragment: bytes | memoryview) -> None:
        """Go on in a file, which begins with room for the header. Raises OSError, DiskFull at the disk's reserve."""
        if self.size > self._admitted:
            written = 0 if self._file is None else self.size - len(fragment)
            self._admitted = self.size + ASKED_BYTES
            self._reserve.admit(self._admitted - written)
        if self._file is None:
            self._open()
            _write_all(self._file, [bytes(HEADER_LENGTH), self._memory.getbuffer()])
            self._memory = BytesIO()
        _write_all(self._file, [fragment])

    def _open(self) -> None:
        self._path = os.path.join(self._folder, f"{PROCESS}.{next(_numbers)}")
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)

    def _close(self) -> None:
        assert self._file is not None
        file, self._file = self._file, None
        os.close(file)


def _write_all(file: int | None, parts: list[bytes | memoryview]) -> None:
    assert file is not None
    views = [memoryview(part) for part in parts]
    while views:
        written = os.writev(file, views)
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        # The disk fails altogether; the next start removes what is left in the incoming folder.
        return
