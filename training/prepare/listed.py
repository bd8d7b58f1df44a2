"""Studies whose files somebody else has listed, such as a node's registry: only what counts of each study is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from prima_core.scope import ScopeSettings
from training.base.pseudonyms import Pseudonyms
from training.prepare.dicom_study import read_study
from training.prepare.known import Known
from training.prepare.source import SourceStudy


@dataclass(frozen=True)
class ListedStudies:
    """A source over lists of files. Reference: the Study Instance UID.

    patients: pseudonyms by UID, as whoever lists the files knows patients.
    """

    files: Mapping[str, Sequence[Path]] = field(repr=False)
    patients: Mapping[str, str] = field(repr=False)
    pseudonyms: Pseudonyms
    known: Known = field(default_factory=Known)
    settings: ScopeSettings = field(default_factory=ScopeSettings)

    def references(self) -> Sequence[str]:
        """By UID."""
        return sorted(self.files)

    def study(self, reference: str) -> str:
        """The pseudonym."""
        return self.pseudonyms.study(reference)

    def fetch(self, reference: str, _scratch: Path) -> SourceStudy:
        """Reads the files where they are. Raises OutOfScope and TwoPatients."""
        found = read_study(self.files[reference], self.pseudonyms, self.known, self.settings)
        return replace(found, record=replace(found.record, patient=self.patients[reference]))
