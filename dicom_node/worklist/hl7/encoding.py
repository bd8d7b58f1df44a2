"""Character sets (MSH-18, table 0211) and escape sequences (HL7 v2.5.1 chapter 2.7), both ways.

What the node writes always has the delimiters `|^~\\&`, and no text from elsewhere can become one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.base.errors import PermanentError
from dicom_node.worklist.hl7.refusal import Condition, Refused

CODECS: Mapping[str, str] = {
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "UNICODE UTF-8": "utf-8",
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
    "KS X 1001": "euc_kr",
    "ISO IR14": "iso2022_jp",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
}
# Read, never written. UTF-16 cannot be meant by UNICODE: its bytes do not pass through MLLP.
ALIASES: Mapping[str, str] = {
    "UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "ISO IR13": "iso2022_jp_ext",
    "ISO-8859-1": "iso8859_1",
    "8859-1": "iso8859_1",
}
_SEQUENCE_LIMIT = 10_000


@dataclass(frozen=True)
class Delimiters:
    """MSH-1 and MSH-2. segment ends are always carriage returns."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @property
    def encoding_characters(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent


STANDARD = Delimiters()
_LETTERS = {"|": "F", "^": "S", "~": "R", "\\": "E", "&": "T"}
_ESCAPED = {ord(character): f"\\{letter}\\" for character, letter in _LETTERS.items()}
_CONTROLS = {code: f"\\X{code:02X}\\" for code in (*range(0x20), 0x7F)}
_FORMATTING = {".br": "\n", ".sp": "\n", ".ce": "\n", ".fi": "", ".nf": "", "H": "", "N": ""}


def codec(character_sets: str) -> str:
    """The Python codec for MSH-18, its repetitions already parted by `~`. Raises Refused for one the node cannot read.

    The first repetition is the message's own set; Japanese senders name the ones they switch to (ISO 2022) after it.
    """
    known = {**CODECS, **ALIASES}
    names = [name.strip().upper() for name in character_sets.split("~")]
    unknown = [name for name in names if name and name not in known]
    codecs = [known[name] for name in names if name in known]
    if unknown or not codecs:
        raise Refused(Condition.TABLE_VALUE_NOT_FOUND, "MSH-18: character set not supported")
    if len(codecs) == 1:
        return codecs[0]
    japanese = [name for name in codecs if name.startswith("iso2022_jp")]
    if not all(name == "ascii" or name in japanese for name in codecs):
        raise Refused(Condition.TABLE_VALUE_NOT_FOUND, "MSH-18: these character sets cannot be mixed")
    return "iso2022_jp_ext" if japanese else "ascii"


def decode(raw: bytes, codec_name: str) -> str:
    """The message as text. Raises Refused: a wrong name is worse than none."""
    try:
        text = raw.decode(codec_name)
    except UnicodeDecodeError as error:
        raise Refused(Condition.DATA_TYPE_ERROR, "bytes that are not in the character set of MSH-18") from error
    if "\x00" in text:
        raise Refused(Condition.DATA_TYPE_ERROR, "a NUL character")
    return text


def encode(text: str, character_set: str) -> bytes:
    """The message in a destination's character set. Raises PermanentError naming the segment that does not fit it."""
    try:
        return text.encode(CODECS[character_set])
    except UnicodeEncodeError as error:
        segment = text.count("\r", 0, error.start)
        name = text.split("\r")[segment][:3]
        raise PermanentError(f"a text in {name} cannot be written in character set {character_set}") from error


def own_words(text: str, character_set: str) -> str:
    """Words of the node's own, with `?` for what the destination cannot show. Never for what came from elsewhere."""
    codec_name = CODECS[character_set]
    return text.replace("→", "->").encode(codec_name, "replace").decode(codec_name)


def escape(text: str) -> str:
    """Any text as one subcomponent: delimiters and control characters become escape sequences."""
    return text.translate(_ESCAPED | _CONTROLS)


def escape_structured(text: str) -> str:
    """An encoded field as it came, e.g. `number^namespace^id^type`: only what would end the field is escaped."""
    return text.translate({ord("|"): "\\F\\"} | _CONTROLS)


def unescape(text: str, delimiters: Delimiters, codec_name: str) -> str:
    """The text meant. A sequence that is unknown, or does not give text, stays as it is: nothing is dropped unseen."""
    mark = delimiters.escape
    if mark not in text:
        return text
    letters = {
        "F": delimiters.field,
        "S": delimiters.component,
        "R": delimiters.repetition,
        "E": mark,
        "T": delimiters.subcomponent,
    }

    def meant(match: re.Match[str]) -> str:
        sequence = match[1]
        if sequence in letters:
            return letters[sequence]
        if sequence in _FORMATTING:
            return _FORMATTING[sequence]
        if sequence[0] == "X":
            return _hexadecimal(sequence[1:], codec_name) or match[0]
        return match[0]

    quoted = re.escape(mark)
    return re.sub(f"{quoted}([^{quoted}]+){quoted}", meant, text)


def restandardise(field: str, delimiters: Delimiters, codec_name: str) -> str:
    """An encoded field in the node's own delimiters; unchanged where the sender uses the same."""
    if delimiters == STANDARD:
        return field
    parts = [(delimiters.repetition, "~"), (delimiters.component, "^"), (delimiters.subcomponent, "&")]

    def rewrite(text: str, level: int) -> str:
        if level == len(parts):
            return escape(unescape(text, delimiters, codec_name))
        theirs, ours = parts[level]
        return ours.join(rewrite(part, level + 1) for part in text.split(theirs))

    return rewrite(field, 0)


def _hexadecimal(digits: str, codec_name: str) -> str:
    """`X0D0A`: bytes in the message's character set (2.7.5); empty when they give no text."""
    if len(digits) > _SEQUENCE_LIMIT:
        return ""
    try:
        text = bytes.fromhex(digits).decode(codec_name)
    except ValueError:
        return ""
    return "" if "\x00" in text else text
