"""Phantoms as a source of studies: made, prepared as a PACS's images are, and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.base.cohort import StudyRecord
from training.base.pseudonyms import Pseudonyms
from training.phantom.prepared import finding_map, prepared
from training.phantom.study import simulate, study_uid, truth_json
from training.phantom.types import Truth
from training.prepare.source import SourceStudy

OLDEST = 89.0  # years; see StudyRecord


@dataclass(frozen=True)
class PhantomSource:
    """One study a seed, all of one domain (see `protocol.DOMAINS`)."""

    seeds: Sequence[int]
    domain: str
    key: Pseudonyms

    def references(self) -> Sequence[str]:
        """The seeds."""
        return [str(seed) for seed in self.seeds]

    def study(self, reference: str) -> str:
        """The pseudonym of the seed's study."""
        return self.key.study(study_uid(int(reference), self.domain))

    def fetch(self, reference: str, scratch: Path) -> SourceStudy:
        """Make the study. Raises BadTrainingData, UnusableSeries."""
        found = simulate(int(reference), self.domain)
        truth = found.truth
        return SourceStudy(
            _record(truth, self.key),
            prepared(found),
            truth.labels,
            truth.report,
            truth_json(truth),
            finding_map(found.head),
        )


def _record(truth: Truth, key: Pseudonyms) -> StudyRecord:
    return StudyRecord(
        study=key.study(truth.study_instance_uid),
        patient=key.patient(truth.patient_id),
        day=key.day(truth.day),
        age_years=min(truth.case.age_years, OLDEST),
        sex=truth.case.sex,
        vendor=truth.vendor,
        site=truth.site,
        field_strength=truth.field_strength,
    )
