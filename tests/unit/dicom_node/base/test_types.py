"""Value types with rules of their own: patient keys, the short study id, scores."""

from __future__ import annotations

import pytest

from dicom_node.base.types import Score, merge_patient_keys, same_patient, study_id


@pytest.mark.parametrize(
    ("key", "other", "same"),
    [
        ("a:b:c", "a:b:c", True),
        ("a:b:c", "a:b:", True),
        ("a::", "a:b:c", True),
        ("", "a:b:c", True),
        ("a:b:c", "x:b:c", False),
        ("a:b:c", "a:x:c", False),
        ("a:b:c", "a:b:x", False),
    ],
)
def test_keys_of_one_patient_contradict_each_other_nowhere(key: str, other: str, same: bool) -> None:
    assert same_patient(key, other) is same
    assert same_patient(other, key) is same


def test_merging_keeps_what_is_known() -> None:
    assert merge_patient_keys("a::", ":b:") == "a:b:"
    assert merge_patient_keys("", "a:b:c") == "a:b:c"


def test_the_short_study_id_is_stable_and_a_safe_file_name() -> None:
    name = study_id("1.2.840.113619.2")
    assert name == study_id("1.2.840.113619.2")
    assert name.isalnum()
    assert name != study_id("1.2.840.113619.3")


def test_a_score_is_positive_above_its_threshold_only() -> None:
    assert Score("x", 0.1, 0.5).positive
    assert not Score("x", 0.0, 0.5).positive
