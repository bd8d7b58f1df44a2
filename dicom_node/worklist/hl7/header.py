"""The message header as an answer needs it, read from the bytes before anything else is known (chapter 2.15.9).

Fields are kept as Latin-1, one character a byte, so that an answer gives back exactly what came.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from dicom_node.worklist.hl7.encoding import Delimiters
from dicom_node.worklist.hl7.refusal import Condition, Refused

_MARKS = set(string.punctuation)
_MAX_CONTROL_ID = 199  # MSH-10 has 20 characters in 2.5.1, 199 from 2.7 on


@dataclass(frozen=True)
class Header:
    """MSH. fields[0] is MSH-1."""

    delimiters: Delimiters
    fields: tuple[str, ...]

    def field(self, number: int) -> str:
        """The encoded field; empty when the segment is shorter."""
        return self.fields[number - 1] if number <= len(self.fields) else ""

    def component(self, number: int, component: int = 1) -> str:
        """A component of the field's first repetition."""
        parts = self.field(number).split(self.delimiters.repetition)[0].split(self.delimiters.component)
        return parts[component - 1].strip() if component <= len(parts) else ""

    @property
    def control_id(self) -> str:
        """MSH-10, as it came."""
        return self.field(10)

    @property
    def message_type(self) -> str:
        """Message code and trigger event, e.g. `ORM^O01`."""
        return f"{self.component(9, 1)}^{self.component(9, 2)}"

    @property
    def character_sets(self) -> str:
        """MSH-18, its repetitions parted by `~`."""
        return self.field(18).replace(self.delimiters.repetition, "~").strip("~ ")


def read_header(raw: bytes) -> Header:
    """The header of a message, whole or cut off after it. Raises Refused when there is none that can be answered."""
    segment = raw.lstrip(b"\r\n").replace(b"\n", b"\r").partition(b"\r")[0].decode("latin-1")
    delimiters = _delimiters(segment)
    fields = (delimiters.field, *segment[4:].split(delimiters.field))
    return Header(delimiters, fields)


def check_control_id(header: Header) -> None:
    """Raises Refused when MSH-10 cannot tell one message from another."""
    if not header.control_id.strip():
        raise Refused(Condition.REQUIRED_FIELD_MISSING, "MSH-10: no message control ID")
    if len(header.control_id) > _MAX_CONTROL_ID:
        raise Refused(Condition.DATA_TYPE_ERROR, "MSH-10: message control ID too long")


def _delimiters(segment: str) -> Delimiters:
    if not segment.startswith("MSH") or len(segment) < 5:
        raise Refused(Condition.SEGMENT_SEQUENCE_ERROR, "no MSH segment at the start")
    marks = segment[4:].partition(segment[3])[0]
    every = segment[3] + marks
    # The fifth, for truncation, came with 2.7 and is not used here.
    if not 5 <= len(every) <= 6 or len(set(every)) != len(every) or not set(every) <= _MARKS:
        raise Refused(Condition.DATA_TYPE_ERROR, "MSH-1, MSH-2: not four encoding characters and a field separator")
    return Delimiters(*every[:5])
