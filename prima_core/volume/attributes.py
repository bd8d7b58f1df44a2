"""Defensive reading of DICOM attributes: whatever a file holds, the answer is a checked value or None.

pydicom converts values lazily and raises many kinds of errors for malformed ones. Here every access ends in a plain
Python value of the asked kind, so that no other file has to think about hostile elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import cast

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_sequence
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag

from prima_core.base.bounded import Allowance, bounded
from prima_core.volume.faults import MALFORMED, raise_trouble

_LONGEST_TEXT = 1024  # LO and SH end at 64 characters, LT at 10,240; nothing here needs more
_LONGEST_VALUE = 1 << 16  # bytes: pydicom makes an object of every number and text in it


class Attributes:
    """Checked access to one dataset or sequence item by keyword or tag. Sequences are parsed within the allowance."""

    def __init__(self, dataset: Dataset, allowance: Allowance) -> None:
        self._dataset = dataset
        self._allowance = allowance

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
        return tuple(Attributes(item, self._allowance) for item in value) if isinstance(value, DicomSequence) else ()

    def item(self, key: str | int) -> Attributes:
        """The first item of a sequence, or an empty one."""
        return next(iter(self.items(key)), Attributes(Dataset(), self._allowance))

    def private(self, group: int, creator: str, element: int) -> int | None:
        """The tag of a private element in the block that `creator` has reserved, or None."""
        for reserved in self._creators(group):
            if self.text((group << 16) | reserved) == creator:
                return (group << 16) | (reserved << 8) | element
        return None

    def raw(self, key: str | int) -> bytes:
        """A binary value; empty when missing or of another kind."""
        tag = _tag(key)
        element = self._dataset.get_item(tag) if tag in self._dataset else None
        value = None if element is None else element.value
        return value if isinstance(value, bytes) else b""

    def __bool__(self) -> bool:
        return len(self._dataset) > 0

    def _creators(self, group: int) -> Iterator[int]:
        tags = self._dataset.keys()  # iterating the dataset itself would convert every element
        return (tag.elem for tag in tags if tag.group == group and 0x10 <= tag.elem <= 0xFF)

    def _empty(self, key: str | int) -> bool:
        """Whether the element is absent or holds nothing, as opposed to something that cannot be converted."""
        tag = _tag(key)
        return tag not in self._dataset or not self._dataset.get_item(tag).value

    def _value(self, key: str | int) -> object:
        tag = _tag(key)
        try:
            return self._converted(tag) if tag in self._dataset else None
        except MALFORMED as error:
            raise_trouble(error)
            return None

    def _converted(self, tag: BaseTag) -> object:
        element = cast("DataElement | RawDataElement", self._dataset.get_item(tag))
        if not isinstance(element, RawDataElement):
            return element.value
        if _is_sequence(element):
            return self._parsed(element)
        if len(element.value or b"") > _LONGEST_VALUE:
            return None
        return self._dataset[tag].value

    def _parsed(self, element: RawDataElement) -> DicomSequence:
        """A sequence of defined length, which pydicom leaves unparsed until it is asked for, and then sets no bound."""
        value = element.value or b""
        return read_sequence(
            bounded(BytesIO(value), self._allowance),
            element.is_implicit_VR,
            element.is_little_endian,
            len(value),
            self._dataset.original_character_set,
        )


@cache
def _tag(key: str | int) -> BaseTag:
    """Looking a keyword up takes pydicom longer than the rest of an access, and there are hundreds an image."""
    return Tag(key)


def _is_sequence(element: RawDataElement) -> bool:
    if element.VR is None:  # implicit coding
        return dictionary_has_tag(element.tag) and dictionary_VR(element.tag) == "SQ"
    return element.VR == "SQ"
