"""From the priority head's logits to a reading priority."""

from __future__ import annotations

import pytest

from dicom_node.base.config import DEFAULT_MAPPING
from dicom_node.base.errors import PermanentError
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
