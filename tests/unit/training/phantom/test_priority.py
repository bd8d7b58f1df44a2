"""Referral and priority follow the table, and the table knows every diagnosis."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from training.phantom.case import SIMULATED, draw_case
from training.phantom.priority import PRIORITIES, REFERRALS, RULES, judge, level
from training.phantom.types import Case, Finding


def case(*findings: Finding) -> Case:
    return Case(1, 50.0, "F", findings)


def test_nothing_wrong_needs_nobody() -> None:
    judgement = judge(case())
    assert judgement.priority == "none"
    assert judgement.referral == {"neurosurgery": False, "neurology": False}


@pytest.mark.parametrize(
    ("finding", "priority", "neurosurgery", "neurology"),
    [
        (Finding(("vascular_hemorrhagic_intracranial_hemorrhage",), "haematoma"), "high", True, True),
        (Finding(("vascular_ischemic_large_vessel_stroke",), "i", attributes={"age": "acute"}), "high", False, True),
        (Finding(("vascular_ischemic_lacunar_stroke",), "l", attributes={"age": "chronic"}), "low", False, True),
        (Finding(("structural_midline_shift",), "midline_shift"), "high", True, False),
        (Finding(("structural_brain_herniation",), "brain_herniation"), "high", True, False),
        (Finding(("infectious_brain_abscess",), "abscess"), "high", True, True),
        (Finding(("tumor_adult_meningioma",), "meningioma", size_mm=12), "low", True, False),
        (Finding(("tumor_adult_meningioma",), "meningioma", size_mm=45), "medium", True, False),
        (Finding(("trauma_subdural_hematoma",), "s", attributes={"age": "chronic"}), "medium", True, False),
        (Finding(("trauma_subdural_hematoma",), "s", attributes={"age": "acute"}), "high", True, False),
        (Finding(("tumor_adult_high_grade_glioma", "tumor_adult_glioma"), "g"), "high", True, False),
        (Finding(("vascular_ischemic_small_vessel_disease",), "small_vessel_disease"), "low", False, True),
    ],
)
def test_rules_of_the_clinic(finding: Finding, priority: str, neurosurgery: bool, neurology: bool) -> None:
    judgement = judge(case(finding))
    assert judgement.priority == priority
    assert judgement.referral == {"neurosurgery": neurosurgery, "neurology": neurology}


def test_the_most_urgent_finding_decides_and_referrals_add_up() -> None:
    judgement = judge(
        case(
            Finding(("vascular_ischemic_small_vessel_disease",), "small_vessel_disease"),
            Finding(("tumor_adult_brain_metastasis",), "metastasis", size_mm=12),
        )
    )
    assert judgement.priority == "medium"
    assert judgement.referral == {"neurosurgery": True, "neurology": True}


@pytest.mark.parametrize(
    ("finding", "priority"),
    [
        (Finding(("vascular_hemorrhagic_intracranial_hemorrhage",), "h", attributes={"age": "chronic"}), "low"),
        (Finding(("vascular_hemorrhagic_intracranial_hemorrhage",), "h", attributes={"age": "acute"}), "high"),
        (Finding(("tumor_adult_brain_metastasis",), "metastasis", size_mm=29), "medium"),
        (Finding(("tumor_adult_brain_metastasis",), "metastasis", size_mm=30), "high"),
        (Finding(("tumor_adult_low_grade_glioma", "tumor_adult_glioma"), "g"), "medium"),
    ],
)
def test_the_level_of_a_finding_is_the_priority_of_who_has_nothing_else(finding: Finding, priority: str) -> None:
    assert level(finding) == priority


def test_every_diagnosis_that_is_simulated_has_a_rule_without_conditions() -> None:
    for key in SIMULATED:
        judge(case(Finding((key,), key)))
    with pytest.raises(KeyError, match="unheard_of"):
        judge(case(Finding(("unheard_of",), "x")))


def test_every_rule_names_a_known_diagnosis_priority_and_referral(shared_data: Path) -> None:
    with (shared_data.parent / "spec" / "diagnoses.csv").open(newline="") as file:
        known = {row["key"] for row in csv.DictReader(file)}
    for rule in RULES:
        assert rule.diagnosis in known
        assert rule.priority in PRIORITIES
        assert set(rule.referrals) <= set(REFERRALS)
    assert {rule.diagnosis for rule in RULES} >= set(SIMULATED)


def test_all_priorities_and_referrals_are_common_enough_to_learn() -> None:
    judgements = [judge(draw_case(seed)) for seed in range(600)]
    for priority in PRIORITIES:
        assert sum(judgement.priority == priority for judgement in judgements) > 30
    for referral in REFERRALS:
        assert 60 < sum(judgement.referral[referral] for judgement in judgements) < 540
