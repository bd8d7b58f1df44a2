"""Which destinations a result goes to, what a site keeps out, and what may leave the node at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.base.config import Configuration, Exclusion, configuration_from
from dicom_node.base.types import ModelIdentity, StudyFacts
from dicom_node.sending.routes import destinations_for, excluded_by, hold_reason

FACTS = StudyFacts("MRI BRAIN", 40.0, ("MR1",))


def configured(*routes: dict[str, Any]) -> Configuration:
    destinations = [{"name": name, "ae_title": "X", "host": "h", "port": 104} for name in ("a", "b")]
    return configuration_from({"destinations": destinations, "routes": list(routes)}, Path("/"))


def test_without_routes_every_destination_gets_everything() -> None:
    assert destinations_for(configured(), FACTS) == ("a", "b")


def test_routes_choose_by_calling_ae_and_name_a_destination_once() -> None:
    configuration = configured(
        {"from": ["MR1"], "to": ["b"]}, {"from": ["*"], "to": ["a", "b"]}, {"from": ["MR2"], "to": ["a"]}
    )
    assert destinations_for(configuration, FACTS) == ("b", "a")


def test_a_study_that_no_route_takes_goes_nowhere() -> None:
    assert destinations_for(configured({"from": ["MR2"], "to": ["a"]}), FACTS) == ()


def test_a_route_excludes_by_description() -> None:
    configuration = configured(
        {"from": ["*"], "to": ["a"], "exclude": {"descriptions": ["brain"]}}, {"from": ["*"], "to": ["b"]}
    )
    assert destinations_for(configuration, FACTS) == ("b",)


@pytest.mark.parametrize(
    ("exclusion", "facts", "excluded"),
    [
        (Exclusion(), FACTS, False),
        (Exclusion(descriptions=("^mri brain$",)), FACTS, True),
        (Exclusion(descriptions=("spine",)), FACTS, False),
        (Exclusion(ae_titles=("MR1",)), FACTS, True),
        (Exclusion(younger_than_years=18), FACTS, False),
        (Exclusion(younger_than_years=41), FACTS, True),
        (Exclusion(older_than_years=39), FACTS, True),
        (Exclusion(older_than_years=40), FACTS, False),
        (Exclusion(younger_than_years=18), StudyFacts("", None, ()), True),
    ],
)
def test_what_a_site_keeps_out(exclusion: Exclusion, facts: StudyFacts, excluded: bool) -> None:
    assert (excluded_by(exclusion, facts) is not None) == excluded


@pytest.mark.parametrize(
    ("state", "allowed", "held"),
    [("clinical", False, False), ("untrained", False, True), ("phantom", False, True), ("phantom", True, False)],
)
def test_only_clinical_results_leave_unless_the_site_says_so(state: str, allowed: bool, held: bool) -> None:
    assert (hold_reason(ModelIdentity("b", "n", "1", "2.25.1", state), allowed) is not None) == held
