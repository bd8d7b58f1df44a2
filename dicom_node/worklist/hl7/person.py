"""Person names: XPN and XCN of HL7 v2.5.1 (chapter 2.A) ↔ PN of DICOM (PS3.5 section 6.2.1.1).

HL7 puts the suffix before the prefix, DICOM after it. Ideographic and phonetic forms are repetitions in HL7, told
apart by a representation code (XPN-8, table 0465), and groups parted by `=` in DICOM.
"""

from __future__ import annotations

import re

from dicom_node.worklist.hl7.encoding import escape

_NOT_IN_A_COMPONENT = re.compile(r"[\^=\\\x00-\x1f\x7f]+")
_REPRESENTATIONS = ("A", "I", "P")


def to_dicom(repetitions: list[list[list[str]]], first: int = 1) -> str:
    """A name field as DICOM writes it. first: the component of the family name, 1 in XPN and 2 in XCN.

    What would be a delimiter in DICOM becomes a space.
    """
    groups = ["", "", ""]
    for repetition in repetitions:
        code = _component(repetition, first + 7).upper() if first == 1 else ""
        group = _REPRESENTATIONS.index(code) if code in _REPRESENTATIONS else 0
        groups[group] = groups[group] or _group([_component(repetition, first + place) for place in range(5)])
    return "=".join(groups).rstrip("=")


def from_dicom(name: str) -> str:
    """The encoded XPN field of a DICOM name."""
    groups = name.split("=")[:3]
    codes = _REPRESENTATIONS if len(groups) > 1 else ("",)
    written = [_xpn(group, code) for group, code in zip(groups, codes, strict=False) if group.strip("^ ")]
    return "~".join(written)


def _group(components: list[str]) -> str:
    family, given, middle, suffix, prefix = components
    return "^".join((family, given, middle, prefix, suffix)).rstrip("^")


def _component(repetition: list[list[str]], number: int) -> str:
    text = repetition[number - 1][0] if number <= len(repetition) else ""
    return _NOT_IN_A_COMPONENT.sub(" ", text).strip()


def _xpn(group: str, code: str) -> str:
    family, given, middle, prefix, suffix = [*(escape(part) for part in group.split("^")[:5]), *[""] * 5][:5]
    return "^".join((family, given, middle, suffix, prefix, "", "", code)).rstrip("^")
