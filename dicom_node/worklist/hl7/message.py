"""One message that came in: its header is checked, its bytes are text, its fields can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.worklist.hl7.encoding import Delimiters, codec, decode, restandardise, unescape
from dicom_node.worklist.hl7.header import Header, read_header
from dicom_node.worklist.hl7.segments import Segment, parse

NULL = '""'  # "delete what you have" (chapter 2.5.3); the node deletes nothing on it


@dataclass(frozen=True)
class Message:
    """segments: in the order they came, MSH first."""

    header: Header
    segments: tuple[Segment, ...]
    codec: str

    @property
    def delimiters(self) -> Delimiters:
        """MSH-1 and MSH-2."""
        return self.header.delimiters

    def repetitions(self, segment: Segment, field: int) -> list[list[list[str]]]:
        """The field as repetitions of components of subcomponents, unescaped; empty texts where there is nothing."""
        marks = self.delimiters
        return [
            [
                [self._text(sub) for sub in component.split(marks.subcomponent)]
                for component in repetition.split(marks.component)
            ]
            for repetition in segment.field(field).split(marks.repetition)
        ]

    def value(self, segment: Segment | None, field: int, component: int = 1) -> str:
        """One component of the first repetition: its first subcomponent, or empty."""
        if segment is None:
            return ""
        components = self.repetitions(segment, field)[0]
        return components[component - 1][0] if component <= len(components) else ""

    def encoded(self, segment: Segment | None, field: int) -> str:
        """The whole field as it came, in the standard delimiters; empty for a null."""
        if segment is None or segment.field(field).strip() in ("", NULL):
            return ""
        return restandardise(segment.field(field).strip(), self.delimiters, self.codec)

    def _text(self, encoded: str) -> str:
        if encoded == NULL:
            return ""
        return unescape(encoded, self.delimiters, self.codec).strip()


def read_message(raw: bytes, character_set: str) -> Message:
    """Take a message apart. character_set: table 0211, for a message that names none. Raises Refused."""
    header = read_header(raw)
    codec_name = codec(header.character_sets or character_set)
    return Message(header, parse(decode(raw, codec_name), header.delimiters), codec_name)
