"""Value types with rules of their own: the short study id, scores."""

from __future__ import annotations

from dicom_node.base.types import Score, study_id


def test_the_short_study_id_is_stable_and_a_safe_file_name() -> None:
    name = study_id("1.2.840.113619.2")
    assert name == study_id("1.2.840.113619.2")
    assert name.isalnum()
    assert name != study_id("1.2.840.113619.3")


def test_a_score_is_positive_above_its_threshold_only() -> None:
    assert Score("x", 0.1, 0.5).positive
    assert not Score("x", 0.0, 0.5).positive
