from __future__ import annotations

from collections import Counter

import pytest

from prima_core.random_weights import DIAGNOSES
from training.phantom.case import CONSEQUENCES, KINDS, SECOND_STORY, SIMULATED, STORIES, draw_case
from training.phantom.lesions import LESIONS
from training.phantom.lesions.sites import SITES
from training.phantom.types import Case

COUNT = 2500


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [draw_case(seed) for seed in range(COUNT)]


def share(cases: list[Case], key: str) -> float:
    return sum(key in case.diagnoses for case in cases) / len(cases)


def test_a_seed_gives_the_same_patient_every_time(cases: list[Case]) -> None:
    assert [draw_case(seed) for seed in range(50)] == cases[:50]
    assert len({repr(case) for case in cases[:50]}) > 40


def test_every_simulated_key_is_a_label_of_the_model_and_there_are_enough() -> None:
    assert set(SIMULATED) <= set(DIAGNOSES)
    assert len(SIMULATED) >= 24


@pytest.mark.parametrize("key", sorted(set(SIMULATED) - set(CONSEQUENCES)))
def test_every_diagnosis_is_common_enough_to_learn(cases: list[Case], key: str) -> None:
    """Keys that follow from others are measured on built heads, not here."""
    assert share(cases, key) >= 0.028  # three per cent, less what chance takes in so many


def test_a_fifth_to_a_quarter_of_the_patients_are_healthy(cases: list[Case]) -> None:
    assert 0.19 <= sum(not case.findings for case in cases) / COUNT <= 0.26


def test_every_kind_can_be_built_and_every_story_and_table_speaks_of_known_kinds() -> None:
    assert set(KINDS) == set(LESIONS)
    for story in STORIES:
        assert set(story.always) | (set(story.often) - {"operated"}) <= set(KINDS)


def test_a_kind_occurs_at_most_once_with_sizes_counts_and_strengths_in_their_ranges(cases: list[Case]) -> None:
    for case in cases:
        assert max(Counter(finding.kind for finding in case.findings).values(), default=1) == 1
        assert 16 <= case.age_years <= 93
        for finding in case.findings:
            kind = KINDS[finding.kind]
            assert finding.diagnoses == kind.keys
            assert 0 <= finding.strength <= 1
            assert finding.count >= 1
            if kind.size_mm:
                assert 3 <= finding.size_mm <= kind.size_mm[3]


def test_what_is_hard_to_see_occurs(cases: list[Case]) -> None:
    strengths = [finding.strength for case in cases for finding in case.findings]
    assert 0.05 < sum(strength < 0.3 for strength in strengths) / len(strengths) < 0.4


def test_findings_co_occur_as_in_life(cases: list[Case]) -> None:
    bleeding = [case for case in cases if any(finding.kind == "haematoma" for finding in case.findings)]
    ventricular = "vascular_hemorrhagic_intraventricular_hemorrhage"
    assert share(bleeding, ventricular) > 5 * share(cases, ventricular)
    old, young = ([case for case in cases if low <= case.age_years < high] for low, high in ((75, 100), (16, 40)))
    assert share(old, "vascular_ischemic_small_vessel_disease") > 0.4
    assert share(young, "vascular_ischemic_small_vessel_disease") < 0.05
    for case in cases:
        if "infectious_brain_abscess" in case.diagnoses:
            assert "tumor_adult_glioma" not in case.diagnoses


def test_a_teaching_collection_has_more_to_learn_from_one_head(cases: list[Case]) -> None:
    """All that the patient has anyway, and often another story's findings; each kind once all the same."""
    taught = [draw_case(seed, SECOND_STORY) for seed in range(COUNT)]
    for case, more in zip(cases, taught, strict=True):
        kinds = [finding.kind for finding in more.findings]
        assert {finding.kind for finding in case.findings} <= set(kinds)
        assert len(set(kinds)) == len(kinds)
        assert more.age_years == case.age_years
    named, named_more = (sum(len(set(case.diagnoses)) for case in part) for part in (cases, taught))
    assert named_more > 1.5 * named
    assert 0.04 < sum(not case.findings for case in taught) / COUNT < 0.12  # and some remain healthy


def test_the_flap_lies_over_what_was_operated(cases: list[Case]) -> None:
    operated = 0
    for case in cases:
        found = {finding.kind: finding for finding in case.findings}
        if {"high_grade_glioma", "craniotomy", "resection_cavity"} <= set(found):
            operated += 1
            assert len({(found[kind].side, found[kind].site) for kind in ("craniotomy", "resection_cavity")}) == 1
            assert found["craniotomy"].side == found["high_grade_glioma"].side
            assert found["craniotomy"].site in SITES
    assert operated
