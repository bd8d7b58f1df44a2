"""How far two sets of labels agree, finding by finding: such as rules against a language model, or lists.

Only studies count in which both say something of the finding. Cohen's kappa (Educ Psychol Meas 1960;20:37) is agreement
beyond chance; it has no value where either set says the same of every study. Positive and negative agreement (Cicchetti
and Feinstein, J Clin Epidemiol 1990;43:551) are 2·both / (2·both + differing), for "present" and for "absent".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from sklearn.metrics import cohen_kappa_score

from training.base.cohort import StudyLabels
from training.base.errors import BadTrainingData


@dataclass(frozen=True)
class FindingAgreement:
    """One finding, as in `diagnosis.<name>`. first_only, second_only: studies in which just one says "present".

    unknown: shared studies of which one says something of it and the other does not. differing: the studies of
    first_only and second_only.
    """

    finding: str
    both: int
    first_only: int
    second_only: int
    neither: int
    unknown: int
    kappa: float | None
    differing: tuple[str, ...]

    @property
    def studies(self) -> int:
        """How many both say something of."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def agreement(self) -> float | None:
        """The share of the studies of which both say the same."""
        return (self.both + self.neither) / self.studies if self.studies else None

    @property
    def positive_agreement(self) -> float | None:
        """None where neither set has a positive."""
        return _share(2 * self.both, self.first_only + self.second_only)

    @property
    def negative_agreement(self) -> float | None:
        """None where neither set has a negative."""
        return _share(2 * self.neither, self.first_only + self.second_only)

    def as_json(self) -> dict[str, Any]:
        """The counts and what follows from them."""
        return asdict(self) | {
            "differing": list(self.differing),
            "studies": self.studies,
            "agreement": self.agreement,
            "positive_agreement": self.positive_agreement,
            "negative_agreement": self.negative_agreement,
        }


@dataclass(frozen=True)
class Agreement:
    """shared: studies in both sets. first_alone, second_alone: studies in one only."""

    shared: int
    first_alone: int
    second_alone: int
    findings: tuple[FindingAgreement, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"findings": [finding.as_json() for finding in self.findings]}


def compare_labels(first: Mapping[str, StudyLabels], second: Mapping[str, StudyLabels]) -> Agreement:
    """Diagnoses and referrals of two sets. Raises BadTrainingData when they have no study in common."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise BadTrainingData("the two sets of labels have no study in common")
    left, right = ({study: _flags(labels[study]) for study in shared} for labels in (first, second))
    findings = sorted({name for said in (*left.values(), *right.values()) for name in said})
    return Agreement(
        shared=len(shared),
        first_alone=len(first) - len(shared),
        second_alone=len(second) - len(shared),
        findings=tuple(_compare(finding, left, right) for finding in findings),
    )


def table(agreement: Agreement, first: str, second: str) -> Table:
    """For people, the least agreed first. first, second: what the two sets are called."""
    shown = Table("finding", "studies", "both", f"{first} only", f"{second} only", "agreement", "kappa", box=None)
    shown.add_column("positive")
    shown.add_column("negative")
    for one in sorted(agreement.findings, key=lambda one: (one.kappa is None, one.kappa)):
        counts = (one.studies, one.both, one.first_only, one.second_only)
        shares = (one.agreement, one.kappa, one.positive_agreement, one.negative_agreement)
        shown.add_row(one.finding, *map(str, counts), *("–" if share is None else f"{share:.3f}" for share in shares))
    return shown


def _flags(labels: StudyLabels) -> dict[str, bool]:
    flags = {f"diagnosis.{name}": present for name, present in labels.diagnosis.items()}
    return flags | {f"referral.{name}": present for name, present in labels.referral.items()}


def _compare(
    finding: str, left: Mapping[str, Mapping[str, bool]], right: Mapping[str, Mapping[str, bool]]
) -> FindingAgreement:
    said = [(study, left[study].get(finding), right[study].get(finding)) for study in left]
    known = [(study, one, other) for study, one, other in said if one is not None and other is not None]
    pairs = [(one, other) for _, one, other in known]
    return FindingAgreement(
        finding=finding,
        both=pairs.count((True, True)),
        first_only=pairs.count((True, False)),
        second_only=pairs.count((False, True)),
        neither=pairs.count((False, False)),
        unknown=sum((one is None) != (other is None) for _, one, other in said),
        kappa=_kappa(pairs),
        differing=tuple(study for study, one, other in known if one != other),
    )


def _kappa(pairs: list[tuple[bool, bool]]) -> float | None:
    firsts, seconds = [one for one, _ in pairs], [other for _, other in pairs]
    if len(set(firsts)) < 2 or len(set(seconds)) < 2:
        return None
    return float(cohen_kappa_score(firsts, seconds))


def _share(agreed: int, differing: int) -> float | None:
    return agreed / (agreed + differing) if agreed + differing else None
