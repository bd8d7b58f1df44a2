"""Pure rules: what the model says of a study → reading priority, and which rule gave it; the report shows both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dicom_node.base.config import FindingRule
from dicom_node.base.errors import PermanentError
from dicom_node.base.types import Finding, Level, Priority


def rank(
    priority_logits: Mapping[str, float],
    mapping: Mapping[str, str],
    findings: Sequence[Finding] = (),
    rules: Sequence[FindingRule] = (),
) -> Priority:
    """The highest of what the priority head's largest logit maps to and what the site's rules say of the findings.

    priority_logits: output name → logit, e.g. none, low, medium, high. mapping: output name → level, from the site.
    findings: the positive diagnoses. rules: only one of them can give `critical`; of several that give the same level
    the first in the file is named. Raises PermanentError when there is no such output or its name is not mapped: no
    level is ever guessed.
    """
    return rank_again(strongest(priority_logits), mapping, findings, rules)


def strongest(priority_logits: Mapping[str, float]) -> str:
    """The priority head's output with the largest logit. Raises PermanentError when there is none."""
    if not priority_logits:
        raise PermanentError("the model has no priority head")
    return max(priority_logits, key=lambda name: priority_logits[name])


def rank_again(
    priority_output: str, mapping: Mapping[str, str], findings: Sequence[Finding], rules: Sequence[FindingRule]
) -> Priority:
    """The same from a result on record. priority_output: the head's strongest output. Raises PermanentError."""
    if priority_output not in mapping:
        raise PermanentError(f"worklist.mapping has no entry for the model's priority output '{priority_output}'")
    level = Level(mapping[priority_output])
    said = [Priority(level, f"priority head: {priority_output} → {level.value}")]
    said += [Priority(Level(rule.level), _words(rule, fired)) for rule, fired in _fired(rules, findings)]
    return max(said, key=lambda priority: priority.level.severity)


def _fired(rules: Iterable[FindingRule], findings: Sequence[Finding]) -> Iterable[tuple[FindingRule, Finding]]:
    """Each rule that fires, with the strongest finding that made it."""
    for rule in rules:
        named = [finding for finding in findings if finding.name in rule.findings and _is_strong(rule, finding)]
        if named:
            yield rule, max(named, key=lambda finding: finding.score)


def _is_strong(rule: FindingRule, finding: Finding) -> bool:
    """A probability is compared with a probability, a score with a score; what the rule does not ask for is no bar."""
    least = rule.min_probability if finding.calibrated else rule.min_score
    return least is None or finding.score >= least


def _words(rule: FindingRule, finding: Finding) -> str:
    return f"rule '{rule.name}': {finding.meaning} → {rule.level}"
