"""A stream for parsers that trust what they read: it hands out no more than is there, and stops them in time.

A DICOM parser makes more than a kilobyte of an empty sequence item of 8 bytes, and room for 4 GiB of a declared length
before it sees that the file is shorter. Walking the data set beforehand would not do: a walker and a parser that take a
damaged file differently can be played off against each other. So it is counted where the parser itself must pass.
"""

from __future__ import annotations

import io
from typing import BinaryIO, cast

# What pydicom makes of an item and of an element without their values, measured in bytes. It also takes other tags for
# those of items, so a file that lies may cost four times the allowance.
ITEM_COSTS, ELEMENT_COSTS = 1300, 330
_HEADER = 8  # bytes: tag and length, which start every element and every item (PS3.5 sections 7.1 and 7.5)
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
# Specific Character Set (0008,0005), each of whose terms costs pydicom, at once and wherever it stands, a search.
_CHARACTER_SET_TAGS = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
_LONGEST_CHARACTER_SET = 1024
_CLIPPED = 1 << 16  # shorter reads than this need no look at the stream's end


class TooMuchToParse(ValueError):
    """A data set would cost more memory than that of any image does."""


class Allowance:
    """What parsing one data set may cost in memory, in bytes; shared by the streams over its parts."""

    def __init__(self, memory: int) -> None:
        self.left = memory

    @property
    def exhausted(self) -> bool:
        """Whether a read was refused. pydicom puts an OSError of its own in front of any error inside a sequence."""
        return self.left < 0


def bounded(stream: BinaryIO, allowance: Allowance) -> BinaryIO:
    """The seekable stream, for a parser that only reads, seeks and tells.

    Its `read` raises TooMuchToParse once the allowance is used up.
    """
    return cast(BinaryIO, _BoundedStream(stream, allowance))


class _BoundedStream:
    def __init__(self, stream: BinaryIO, allowance: Allowance) -> None:
        self._stream = stream
        self._allowance = allowance
        self._at_character_set = False
        self.seek, self.tell = stream.seek, stream.tell
        here = stream.tell()
        self._end = stream.seek(0, io.SEEK_END)
        stream.seek(here)

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, or all that are left."""
        if size == _HEADER:
            data = self._stream.read(size)
            self._spend(ITEM_COSTS if data[:4] in _ITEM_TAGS else ELEMENT_COSTS)
            self._at_character_set = data[:4] in _CHARACTER_SET_TAGS
            return data
        if self._at_character_set and size > _LONGEST_CHARACTER_SET:
            self._spend(self._allowance.left + 1)
        if not 0 <= size <= _CLIPPED:
            left = max(self._end - self._stream.tell(), 0)
            size = left if size < 0 else min(size, left)
        self._spend(size)
        return self._stream.read(size)

    def _spend(self, cost: int) -> None:
        allowance = self._allowance
        allowance.left -= cost
        if allowance.left < 0:
            raise TooMuchToParse("the data set costs more to parse than that of any image")
