"""Pure rules: which destinations a study's result goes to, and whether it may leave the node at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicom_node.base.config import Configuration, Exclusion
from dicom_node.base.types import ModelIdentity, StudyFacts
from prima_core.exclusion import Exclusion as StudyExclusion

ANYONE = "*"
HOW_TO_RELEASE = "set model.allow_nonclinical = true to send marked results, then `dicom-node retry`"


def excluded_by(exclusion: Exclusion, facts: StudyFacts) -> str | None:
    """Why a study is kept out, in words for the administrator; None when it is not."""
    if set(exclusion.ae_titles) & set(facts.calling_aes):
        return "the site excludes this calling AE title"
    rule = StudyExclusion(exclusion.descriptions, exclusion.younger_than_years, exclusion.older_than_years)
    return rule.reason(facts.description, facts.age_years) or None


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
    return f"result held: the model is {model.training_state}, not clinical; {HOW_TO_RELEASE}"


def _comes_from(allowed: Sequence[str], calling_aes: Iterable[str]) -> bool:
    return ANYONE in allowed or bool(set(allowed) & set(calling_aes))
