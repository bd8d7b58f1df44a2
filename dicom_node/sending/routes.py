"""Pure rules: which destinations a study's result goes to, and whether it may leave the node at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dicom_node.base.config import Configuration, Exclusion
from dicom_node.base.types import ModelIdentity, StudyFacts

ANYONE = "*"


def excluded_by(exclusion: Exclusion, facts: StudyFacts) -> str | None:
    """Why a study is kept out, in words for the administrator; None when it is not.

    A study of unknown age is kept out by an age limit: the site asked for certainty.
    """
    if any(re.search(pattern, facts.description, re.IGNORECASE) for pattern in exclusion.descriptions):
        return "the site excludes this study description"
    if set(exclusion.ae_titles) & set(facts.calling_aes):
        return "the site excludes this calling AE title"
    return _excluded_by_age(exclusion, facts.age_years)


def _excluded_by_age(exclusion: Exclusion, age: float | None) -> str | None:
    if exclusion.younger_than_years is None and exclusion.older_than_years is None:
        return None
    if age is None:
        return "the site excludes by age and the patient's age is unknown"
    if exclusion.younger_than_years is not None and age < exclusion.younger_than_years:
        return f"the site excludes patients younger than {exclusion.younger_than_years:g} years"
    if exclusion.older_than_years is not None and age > exclusion.older_than_years:
        return f"the site excludes patients older than {exclusion.older_than_years:g} years"
    return None


def destinations_for(configuration: Configuration, facts: StudyFacts) -> tuple[str, ...]:
    """Names of the destinations of every route that takes this study, each once, in the file's order.

    Without any route, every destination gets every result: one PACS and no routes is the common site.
    """
    if not configuration.routes:
        return tuple(destination.name for destination in configuration.destinations)
    names = [
        name
        for route in configuration.routes
        if _comes_from(route.from_, facts.calling_aes) and excluded_by(route.exclude, facts) is None
        for name in route.to
    ]
    return tuple(dict.fromkeys(names))


def hold_reason(model: ModelIdentity, allow_nonclinical: bool) -> str | None:
    """Why no result of this model may leave the node; None when it may."""
    if model.clinical or allow_nonclinical:
        return None
    return (
        f"result held: the model is {model.training_state}, not clinical; "
        "set model.allow_nonclinical = true to send marked results"
    )


def _comes_from(allowed: Sequence[str], calling_aes: Iterable[str]) -> bool:
    return ANYONE in allowed or bool(set(allowed) & set(calling_aes))
