"""Defensive reading of DICOM attributes: whatever a file holds, the answer is a checked value or None.

pydicom converts values lazily and raises many kinds of errors for malformed ones. Here every access ends in a plain
Python value of the asked kind, so that no other file has to think about hostile elements.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

# What pydicom raises on malformed content, gathered by feeding it damaged files.
MALFORMED = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,  # NotImplementedError and RecursionError are among its children
    MemoryError,
    struct.error,
    zlib.error,
    InvalidDicomError,
    BytesLengthException,
)
_LONGEST_TEXT = 1024  # LO and SH end at 64 characters, LT at 10,240; nothing here needs more


class Attributes:
    """Checked access to one dataset or sequence item by keyword or tag."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def texts(self, key: str | int) -> tuple[str, ...]:
        """All values as stripped strings without padding; empty when missing or malformed."""
        value = self._value(key)
        values = value if isinstance(value, (MultiValue, list, tuple)) else [value]
        try:
            return tuple(str(v).replace("\0", " ").strip()[:_LONGEST_TEXT] for v in values if v is not None)
        except MALFORMED:
            return ()

    def text(self, key: str | int) -> str:
        """The value as one string, several joined by a backslash as in the file; "" when missing or malformed."""
        return "\\".join(self.texts(key))

    def numbers(self, key: str | int, count: int) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers, or None."""
        values = self.texts(key)
        if len(values) != count:
            return None
        try:
            numbers = tuple(float(value) for value in values)
        except ValueError:
            return None
        return numbers if all(map(math.isfinite, numbers)) else None

    def number(self, key: str | int, missing: float | None = None) -> float | None:
        """The first value if it is a finite number; `missing` when there is none at all; None when malformed."""
        values = [value for value in self.texts(key)[:1] if value]
        if not values:
            return missing if self._empty(key) else None
        try:
            number = float(values[0])
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def integer(self, key: str | int) -> int | None:
        """The first value if it is a whole number, else None."""
        number = self.number(key)
        return int(number) if number is not None and number == int(number) else None

    def items(self, key: str | int) -> tuple[Attributes, ...]:
        """The items of a sequence; empty when missing or not a sequence."""
        value = self._value(key)
        return tuple(Attributes(item) for item in value) if isinstance(value, DicomSequence) else ()

    def item(self, key: str | int) -> Attributes:
        """The first item of a sequence, or an empty one."""
        return next(iter(self.items(key)), Attributes(Dataset()))

    def private(self, group: int, creator: str, element: int) -> int | None:
        """The tag of a private element in the block that `creator` has reserved, or None."""
        for reserved in self._creators(group):
            if self.text((group << 16) | reserved) == creator:
                return (group << 16) | (reserved << 8) | element
        return None

    def raw(self, key: str | int) -> bytes:
        """A binary value; empty when missing or of another kind."""
        value = self._value(key)
        return bytes(value) if isinstance(value, (bytes, bytearray)) else b""

    def __bool__(self) -> bool:
        return len(self._dataset) > 0

    def _creators(self, group: int) -> Iterator[int]:
        tags = self._dataset.keys()  # iterating the dataset itself would convert every element
        return (tag.elem for tag in tags if tag.group == group and 0x10 <= tag.elem <= 0xFF)

    def _empty(self, key: str | int) -> bool:
        """Whether the element is absent or holds nothing, as opposed to something that cannot be converted."""
        return key not in self._dataset or not self._dataset.get_item(key).value

    def _value(self, key: str | int) -> object:
        try:
            return self._dataset[key].value if key in self._dataset else None
        except MALFORMED:
            return None
