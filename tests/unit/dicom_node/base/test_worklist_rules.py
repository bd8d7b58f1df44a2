"""The site's rules and its level mapping are checked when the file is read, and each mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.base.config import configuration_from
from dicom_node.base.errors import ConfigurationError

RULE = {"name": "bleed", "findings": ["ich"], "level": "critical"}


@pytest.mark.parametrize(
    ("worklist", "named"),
    [
        ({"rules": [RULE | {"level": "routine"}]}, "worklist.rules.0.level"),
        ({"rules": [RULE | {"level": "stat"}]}, "worklist.rules.0.level"),
        ({"rules": [RULE | {"findings": []}]}, "worklist.rules.0.findings"),
        ({"rules": [RULE | {"name": ""}]}, "worklist.rules.0.name"),
        ({"rules": [RULE | {"min_probability": 1.5}]}, "worklist.rules.0.min_probability"),
        ({"rules": [RULE | {"min_score": -1}]}, "worklist.rules.0.min_score"),
        ({"rules": [RULE | {"min_logit": 1}]}, "worklist.rules.0.min_logit: unknown key"),
        ({"rules": [RULE, RULE]}, "worklist.rules: two rules have the same name"),
        ({"mapping": {"high": "critical"}}, "worklist.mapping.high"),
    ],
)
def test_a_wrong_rule_or_mapping_is_named(worklist: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        configuration_from({"worklist": worklist}, Path("/"))
    assert named in str(wrong.value)


def test_a_right_one_is_read() -> None:
    read = configuration_from({"worklist": {"rules": [RULE | {"min_probability": 0.8}]}}, Path("/"))
    [rule] = read.worklist.rules
    assert (rule.name, rule.findings, rule.level, rule.min_probability) == ("bleed", ("ich",), "critical", 0.8)
