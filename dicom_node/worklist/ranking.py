"""Pure rule: what the priority head says → reading priority. It says which rule fired; the report shows it."""

from __future__ import annotations

from collections.abc import Mapping

from dicom_node.base.errors import PermanentError
from dicom_node.base.types import Level, Priority


def rank(priority_logits: Mapping[str, float], mapping: Mapping[str, str]) -> Priority:
    """The level that the priority head's largest logit maps to.

    priority_logits: output name → logit, e.g. none, low, medium, high. mapping: output name → level, from the site.
    Raises PermanentError when there is no such output or its name is not mapped: no level is ever guessed.
    """
    if not priority_logits:
        raise PermanentError("the model has no priority head")
    strongest = max(priority_logits, key=lambda name: priority_logits[name])
    if strongest not in mapping:
        raise PermanentError(f"worklist.mapping has no entry for the model's priority output '{strongest}'")
    level = Level(mapping[strongest])
    return Priority(level, f"priority head: {strongest} → {level.value}")
