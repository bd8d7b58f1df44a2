"""From the priority head's logits to a reading priority."""

from __future__ import annotations

import pytest

from dicom_node.base.config import DEFAULT_MAPPING, FindingRule
from dicom_node.base.errors import PermanentError
from dicom_node.base.types import Finding
from dicom_node.worklist.ranking import rank


@pytest.mark.parametrize(
    ("strongest", "level"), [("none", "routine"), ("low", "routine"), ("medium", "elevated"), ("high", "urgent")]
)
def test_the_largest_logit_decides(strongest: str, level: str) -> None:
    logits = dict.fromkeys(DEFAULT_MAPPING, -1.0) | {strongest: -0.5}
    priority = rank(logits, DEFAULT_MAPPING)
    assert priority.level == level
    assert strongest in priority.rule


@pytest.mark.parametrize("logits", [{}, {"sideways": 1.0}])
def test_no_level_is_ever_guessed(logits: dict[str, float]) -> None:
    with pytest.raises(PermanentError):
        rank(logits, DEFAULT_MAPPING)


def finding(name: str, score: float = 1.0, *, calibrated: bool = False) -> Finding:
    return Finding(name, "1", "SCT", name.replace("_", " "), score, calibrated)


BLEEDING = FindingRule(name="bleeding", findings=("bleed", "clot"), level="critical", min_score=0.5)
TUMOUR = FindingRule(name="tumour", findings=("glioma",), level="urgent", min_probability=0.8)
LOW = {"low": 1.0}


def ranked(*findings: Finding, rules: tuple[FindingRule, ...] = (BLEEDING, TUMOUR)) -> tuple[str, str]:
    priority = rank(LOW, DEFAULT_MAPPING, findings, rules)
    return priority.level.value, priority.rule


def test_only_a_rule_on_a_finding_makes_a_study_critical() -> None:
    assert ranked(finding("glioma"), finding("clot", 0.7)) == ("critical", "rule 'bleeding': clot → critical")
    assert ranked(finding("bleed", 0.4)) == ("routine", "priority head: low → routine")


@pytest.mark.parametrize(("score", "level"), [(0.79, "routine"), (0.8, "urgent")])
def test_a_probability_is_held_against_a_probability(score: float, level: str) -> None:
    assert ranked(finding("glioma", score, calibrated=True))[0] == level


def test_of_several_that_fire_the_highest_is_named_and_of_equals_the_first() -> None:
    second = FindingRule(name="second", findings=("clot",), level="critical")
    assert ranked(finding("clot", 2.0), rules=(TUMOUR, BLEEDING, second))[1].startswith("rule 'bleeding'")


def test_a_rule_never_takes_a_study_below_its_priority_head() -> None:
    mild = FindingRule(name="mild", findings=("clot",), level="elevated")
    assert rank({"high": 1.0}, DEFAULT_MAPPING, [finding("clot")], [mild]).level == "urgent"


def test_the_strongest_finding_that_fires_is_named() -> None:
    assert "bleed →" in ranked(finding("clot", 1.0), finding("bleed", 2.0))[1]
