"""Entries in the words that scripts and people get."""

from __future__ import annotations

import pytest

from dicom_node.console.reading_list import age_seconds, as_json, duration
from support.reading_list import REFUSED, delivery, entry


def test_an_entry_in_json_has_the_vocabulary_of_the_commands() -> None:
    one = entry(
        waiting_since=1000.0,
        flagged_at=1060.5,
        deliveries=(delivery("RIS", "set_aside", kind="hl7", attempts=3, last_error=REFUSED),),
    )
    assert as_json(one, now=1120.9) == {
        "rank": 1,
        "study": "study01",
        "study_instance_uid": "1.2.3.1",
        "accession_number": "A001",
        "priority": {"level": "urgent", "source": "model", "rule": "priority head: high → urgent"},
        "findings": ["Glioma", "Hydrocephalus"],
        "marking": "",
        "state": "delivered",
        "waiting_since": "1970-01-01T00:16:40+00:00",
        "age_seconds": 120,
        "flagged_at": "1970-01-01T00:17:40+00:00",
        "too_late": False,
        "note": "",
        "deliveries": [
            {"destination": "RIS", "kind": "hl7", "state": "set_aside", "attempts": 3, "last_error": REFUSED}
        ],
    }


def test_a_study_that_was_not_flagged_says_so() -> None:
    assert as_json(entry(flagged_at=None), now=0.0)["flagged_at"] is None


def test_a_clock_put_back_gives_no_negative_age() -> None:
    assert age_seconds(entry(waiting_since=100.0), now=40.0) == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d 0 h"),
        (183_600, "2 d 3 h"),
    ],
)
def test_a_duration_is_said_in_at_most_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
