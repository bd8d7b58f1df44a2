"""Text ↔ segments and fields. The `hl7` library takes messages apart and puts them together; nothing else sees it.

Fields stay in their encoded form here. Values are parted and unescaped by `message.py`: the library's own unescaping
drops what it does not know and ignores the character set.
"""

from __future__ import annotations

from dataclasses import dataclass

import hl7  # type: ignore[import-untyped]

from dicom_node.worklist.hl7.encoding import Delimiters
from dicom_node.worklist.hl7.refusal import Condition, Refused

MAX_DELIMITERS = 200_000  # each one costs the library an object; 5 MB of nothing else would take gigabytes
_HEADERS = ("MSH", "BHS", "FHS")


@dataclass(frozen=True)
class Segment:
    """fields[0] is field 1; in MSH that is the field separator (HL7 v2.5.1 chapter 2.15.9)."""

    name: str
    fields: tuple[str, ...]

    def field(self, number: int) -> str:
        """The encoded field; empty when the segment is shorter."""
        return self.fields[number - 1] if number <= len(self.fields) else ""


def parse(text: str, delimiters: Delimiters) -> tuple[Segment, ...]:
    """All segments of one message. Raises Refused when it is none, or several."""
    lines = [line for line in _lines(text) if line.strip()]
    if not lines or not lines[0].startswith("MSH"):
        raise Refused(Condition.SEGMENT_SEQUENCE_ERROR, "no MSH segment at the start")
    if any(line.startswith(_HEADERS) for line in lines[1:]):
        raise Refused(Condition.SEGMENT_SEQUENCE_ERROR, "a second header: batches are not taken")
    marks = delimiters.field + delimiters.encoding_characters
    if len(lines) + sum(text.count(mark) for mark in marks) > MAX_DELIMITERS:
        raise Refused(Condition.DATA_TYPE_ERROR, f"more than {MAX_DELIMITERS} segments, fields and components")
    return tuple(_segment(parsed) for parsed in hl7.parse("\r".join(lines)))


def join(segments: tuple[Segment, ...]) -> str:
    """The message's text, a carriage return after every segment. Fields must be encoded already."""
    message = hl7.Message()
    for segment in segments:
        fields = [segment.name, *_without_trailing_blanks(segment.fields)]
        message.append(message.create_segment([message.create_field([field]) for field in fields]))
    return str(message)


def _lines(text: str) -> list[str]:
    """Segments end with a carriage return; line feeds after it, or alone in its place, are forgiven."""
    if "\r" not in text:
        return text.split("\n")
    return [line.lstrip("\n") for line in text.split("\r")]


def _segment(parsed: hl7.Segment) -> Segment:
    texts = [str(field) for field in parsed]
    return Segment(texts[0], tuple(texts[1:]))


def _without_trailing_blanks(fields: tuple[str, ...]) -> tuple[str, ...]:
    end = len(fields)
    while end and not fields[end - 1]:
        end -= 1
    return fields[:end]
