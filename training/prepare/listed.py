"""Studies whose files somebody else has listed, such as a node's registry: only what counts of each study is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prima_core.scope import ScopeSettings
from training.base.pseudonyms import Pseudonyms
from training.prepare.dicom_study import read_study
from training.prepare.known import Known
from training.prepare.source import SourceStudy


@dataclass(frozen=True)
class ListedStudies:
    """A source over lists of files. Reference: the Study Instance UID."""

    files: Mapping[str, Sequence[Path]] = field(repr=False)
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
        return read_study(self.files[reference], self.pseudonyms, self.known, self.settings)
