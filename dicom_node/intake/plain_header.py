"""The identifying values of an ordinary data set, found by walking over its elements.

A general parser takes longer for an image than the disk does. What is in any way out of the ordinary is left to it, so
that both always say the same.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

EXPLICIT = struct.Struct("<HH2sH")  # PS3.5 7.1.2: tag, VR and, of most, the length
IMPLICIT = struct.Struct("<HHL")  # PS3.5 7.1.3: tag and length
LENGTH = struct.Struct("<L")
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
FIRST_GROUP = 0x0008  # those before it are no data set's
LONGEST_VALUE = 1024


def plain_values(header: bytes, implicit: bool, wanted: Mapping[int, bytes], last: int) -> dict[int, bytes] | None:
    """The encoded values of the wanted elements among those up to `last`, by tag; None for what is not ordinary.

    header: a data set in little endian, or the begin of one that goes beyond `last`. Ordinary is one in which tags
    ascend (PS3.5 7.1), VRs are known, lengths are defined and lie within it, and wanted values are short and of the VR
    that `wanted` gives their tags: a parser may refuse another.
    """
    found: dict[int, bytes] = {}
    place, before, end = 0, 0, len(header) - EXPLICIT.size
    while place <= end:
        if implicit:
            group, element, length = IMPLICIT.unpack_from(header, place)
            if place == 0 and header[4:6].isupper():  # a parser would take it for explicit
                return None
            vr, short = b"", True
        else:
            group, element, vr, length = EXPLICIT.unpack_from(header, place)
            short = vr in SHORT_VRS
            if not short and (vr not in LONG_VRS or place + 12 > len(header)):
                return None
        tag = group << 16 | element
        if tag <= before or group < FIRST_GROUP:
            return None
        if tag > last:
            return found
        place += 8
        if not short:
            (length,) = LENGTH.unpack_from(header, place)
            place += 4
        if tag in wanted:
            if not (implicit or vr == wanted[tag]) or length > LONGEST_VALUE or place + length > len(header):
                return None
            found[tag] = header[place : place + length]
        place += length
        before = tag
    return None
