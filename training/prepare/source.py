"""What a source of studies is. Every reader in this folder is one, and so are the phantoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prima_core.base.types import PreparedStudy
from training.base.cohort import StudyLabels, StudyRecord, StudyReport
from training.prepare.finding_map import FindingMap


@dataclass(frozen=True)
class SourceStudy:
    """One study as its source gives it: already pseudonymous, its series as kept patches.

    labels, report: where the source knows them. truth: JSON of a simulated study's difficulty, or "". findings: where
    they lie, if anybody knows; the series then have their affines.
    """

    record: StudyRecord
    prepared: PreparedStudy
    labels: StudyLabels | None = None
    report: StudyReport | None = None
    truth: str = ""
    findings: FindingMap | None = None


class Source(Protocol):
    """Where studies come from. Picklable: `fetch` runs in worker processes."""

    def references(self) -> Sequence[str]:
        """A stable name of every study within this source; not shown to anybody and not stored."""
        ...

    def study(self, reference: str) -> str:
        """The study's pseudonym, the same as in its record, without reading the study: what is stored is skipped."""
        ...

    def fetch(self, reference: str, scratch: Path) -> SourceStudy:
        """Read (or make) one study. scratch: an empty folder that is deleted afterwards.

        Raises OutOfScope, TwoPatients or BadTrainingData for a study that cannot be used. Its message is counted and
        stored beside the pseudonym, so it says nothing of the patient, nor names a file.
        """
        ...
