"""Agreement of two sets of labels, against figures worked out by hand."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from training.base.cohort import StudyLabels
from training.base.errors import BadTrainingData
from training.labels.agreement import compare_labels, table


def labels(present: str, absent: str = "", finding: str = "x") -> dict[str, StudyLabels]:
    return {study: StudyLabels({finding: study in present}) for study in present + absent}


def test_counts_and_shares_by_hand() -> None:
    """Both 20, one alone 5 and 10, neither 15: agreement 0.7, by chance 0.5, so kappa 0.4 (the textbook's example)."""
    studies = [f"s{number:02}" for number in range(50)]
    first = {study: StudyLabels({"x": index < 25}) for index, study in enumerate(studies)}
    second = {study: StudyLabels({"x": index < 20 or index >= 40}) for index, study in enumerate(studies)}
    [found] = compare_labels(first, second).findings
    assert (found.both, found.first_only, found.second_only, found.neither) == (20, 5, 10, 15)
    assert found.agreement == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.positive_agreement == pytest.approx(40 / 55)
    assert found.negative_agreement == pytest.approx(30 / 45)
    assert found.differing == (*studies[20:25], *studies[40:])


def test_what_one_set_leaves_open_is_no_disagreement() -> None:
    first = {"a": StudyLabels({"x": True}), "b": StudyLabels({"x": False}), "only": StudyLabels()}
    second = {"a": StudyLabels({"x": True}), "b": StudyLabels(referral={"r": True})}
    agreement = compare_labels(first, second)
    x, r = agreement.findings
    assert (agreement.shared, agreement.first_alone, agreement.second_alone) == (2, 1, 0)
    assert (x.finding, x.studies, x.unknown, x.differing) == ("diagnosis.x", 1, 1, ())
    assert (r.finding, r.studies, r.unknown, r.agreement) == ("referral.r", 0, 1, None)


def test_there_is_no_kappa_where_a_set_always_says_the_same() -> None:
    [found] = compare_labels(labels("ab", "c"), labels("abc")).findings
    assert found.kappa is None
    assert found.agreement == pytest.approx(2 / 3)
    assert found.negative_agreement == 0
    [found] = compare_labels(labels("ab"), labels("ab")).findings
    assert (found.agreement, found.negative_agreement) == (1, None)


def test_as_json_and_as_a_table() -> None:
    agreement = compare_labels(labels("ab", "cd"), labels("ac", "bd"))
    document = json.loads(json.dumps(agreement.as_json()))
    assert document["findings"][0] | {"kappa": 0.0, "differing": ["b", "c"]} == document["findings"][0]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(agreement, "rules", "lists"))
    head, row = capture.get().splitlines()[:2]
    assert "rules only" in head
    assert row.split() == ["diagnosis.x", "4", "1", "1", "1", "0.500", "0.000", "0.500", "0.500"]


def test_sets_without_a_common_study_are_refused() -> None:
    with pytest.raises(BadTrainingData, match="no study in common"):
        compare_labels(labels("a"), labels("b"))
