"""Reading priority ↔ HL7 codes: ORC-7.6, OBR-27.6 (table 0027) and TQ1-9 (table 0485)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dicom_node.base.types import Level

CODES: Mapping[Level, str] = {Level.CRITICAL: "S", Level.URGENT: "A", Level.ELEVATED: "A", Level.ROUTINE: "R"}
# A may mean elevated or urgent, P (preop) and T (timing critical) may rank beside A: read as the highest that each can
# mean, since a priority that is already set is never lowered. C (callback) and PRN (as needed) are no reading priority.
LEVELS: Mapping[str, Level] = {
    "S": Level.CRITICAL,
    "A": Level.URGENT,
    "P": Level.URGENT,
    "T": Level.URGENT,
    "R": Level.ROUTINE,
}


def code_of(level: Level, overrides: Mapping[Level, str]) -> str:
    """What a destination is told; `overrides` is the site's part of the table."""
    return overrides.get(level) or CODES[level]


def level_of(text: str, overrides: Mapping[str, Level]) -> Level | None:
    """What an order says, or None for a word outside the tables. `overrides` comes first; case means nothing."""
    word = text.strip().upper() if text.isascii() else text.strip()
    site = {known.strip().upper(): level for known, level in overrides.items()}
    return site.get(word) or LEVELS.get(word)


def highest(texts: Iterable[str], overrides: Mapping[str, Level]) -> tuple[Level | None, str]:
    """The highest level among an order's priority fields and the text that gave it.

    None, and the text, where any of them is not known: it may be the highest.
    """
    said = [(text, level_of(text, overrides)) for text in texts if text.strip()]
    for text, level in said:
        if level is None:
            return None, text
    known = [(level, text) for text, level in said if level is not None]
    return max(known, key=lambda pair: pair[0].severity, default=(None, ""))
