"""When two images contradict each other in who the patient is. Spellings: intake's `test_identity.py`."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict

import pytest

from prima_core.base.patient import (
    PATIENT_ID,
    contradiction,
    merge_patient_keys,
    patient_key_of_encoded,
    same_patient,
)


@pytest.mark.parametrize(
    ("key", "other", "differs"),
    [
        ("a:b:c", "a:b:c", ""),
        ("a:b:c", "a:b:", ""),
        ("a::", "a:b:c", ""),
        ("", "a:b:c", ""),
        ("a:b:c", "x:b:c", "PatientID"),
        ("a:b:c", "a:x:c", "PatientName"),
        ("a:b:c", "a:b:x", "PatientBirthDate"),
    ],
)
def test_keys_of_one_patient_contradict_each_other_nowhere(key: str, other: str, differs: str) -> None:
    for one, two in ((key, other), (other, key)):
        assert same_patient(one, two) is not bool(differs)
        assert contradiction([one, two]) == differs


def test_a_contradiction_is_found_between_any_two_of_many() -> None:
    assert contradiction([]) == ""
    assert contradiction(["a::", ":b:", "::c", ""]) == ""
    assert contradiction(["a::", ":b:", "", ":x:c"]) == "PatientName"


def test_merging_keeps_what_is_known() -> None:
    assert merge_patient_keys("a::", ":b:") == "a:b:"
    assert merge_patient_keys("", "a:b:c") == "a:b:c"


def test_values_of_megabytes_are_not_kept() -> None:
    tracemalloc.start()
    try:
        for number in range(20):
            said = defaultdict(bytes, {PATIENT_ID: b"%020d" % number * 25_000})
            assert patient_key_of_encoded(said.__getitem__)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1 << 20
