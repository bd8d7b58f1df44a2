"""Levels and HL7 codes, both ways."""

from __future__ import annotations

import pytest

from dicom_node.base.types import Level
from dicom_node.worklist.hl7.priority import code_of, highest, level_of


@pytest.mark.parametrize(
    ("level", "code"), [(Level.CRITICAL, "S"), (Level.URGENT, "A"), (Level.ELEVATED, "A"), (Level.ROUTINE, "R")]
)
def test_default_codes(level: Level, code: str) -> None:
    assert code_of(level, {}) == code
    assert code_of(level, {level: "9"}) == "9"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("S", Level.CRITICAL),
        ("a", Level.URGENT),
        (" R ", Level.ROUTINE),
        ("P", Level.URGENT),
        ("T", Level.URGENT),
        ("C", None),
        ("PRN", None),
        ("STAT", None),
        ("", None),
    ],
)
def test_incoming_codes(text: str, level: Level | None) -> None:
    assert level_of(text, {}) is level


def test_the_sites_words_come_first() -> None:
    assert level_of("cito", {"CITO": Level.URGENT}) is Level.URGENT
    assert level_of("A", {"a": Level.ELEVATED}) is Level.ELEVATED


def test_what_we_write_is_never_read_as_lower() -> None:
    ranks = list(Level)
    for level in Level:
        read = level_of(code_of(level, {}), {})
        assert read is not None
        assert ranks.index(read) >= ranks.index(level)


def test_the_highest_of_several_counts_and_an_unknown_one_is_kept_as_text() -> None:
    assert highest(["R", "", "S"], {}) == (Level.CRITICAL, "S")
    assert highest(["R", "", "S", "X"], {}) == (None, "X"), "an unknown word may be the highest"
    assert highest(["", "X", "Y"], {}) == (None, "X")
    assert highest([], {}) == (None, "")
