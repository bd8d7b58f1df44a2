"""Studies that a site names, fetched one by one from its archive: over the web or by C-MOVE.

How the images come is a `Retrieval`: `wado.WebArchive` (DICOMweb, PS3.18) or `c_move.DimseArchive` (PS3.4 annex C).
They lie in the scratch folder as long as their study is being prepared, and never longer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prima_core.scope import ScopeSettings
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.prepare.dicom_study import read_study
from training.prepare.known import Known
from training.prepare.source import SourceStudy

_UID = re.compile(r"\d+(?:\.\d+)+")
_LONGEST_UID = 64


class Retrieval(Protocol):
    """An archive and a way to it. Picklable."""

    def find(self, accession_number: str) -> Sequence[str]:
        """Study Instance UIDs under an accession number. Raises BadTrainingData when the archive gives no answer."""
        ...

    def retrieve(self, study_instance_uid: str, scratch: Path) -> Sequence[Path]:
        """The files of all of the study's images, whole, or BadTrainingData with the reason why not."""
        ...


@dataclass(frozen=True)
class Archive:
    """A source over an archive. Reference: the Study Instance UID.

    studies: Study Instance UIDs. accession_numbers: resolved by a query when the references are asked for.
    """

    retrieval: Retrieval
    pseudonyms: Pseudonyms
    studies: Sequence[str] = ()
    accession_numbers: Sequence[str] = ()
    known: Known = field(default_factory=Known)
    settings: ScopeSettings = field(default_factory=ScopeSettings)

    def references(self) -> Sequence[str]:
        """Each study once. Raises BadTrainingData for what is no UID, and when the archive gives no answer."""
        found = [uid for number in self.accession_numbers for uid in self.retrieval.find(number)]
        uids = list(dict.fromkeys([*self.studies, *found]))
        for position, uid in enumerate(uids, 1):
            if not _UID.fullmatch(uid) or len(uid) > _LONGEST_UID:
                raise BadTrainingData(f"study {position} of the list is not a Study Instance UID")
        return uids

    def study(self, reference: str) -> str:
        """The pseudonym."""
        return self.pseudonyms.study(reference)

    def fetch(self, reference: str, scratch: Path) -> SourceStudy:
        """Raises OutOfScope and TwoPatients, and BadTrainingData when the study did not come, or not whole."""
        files = self.retrieval.retrieve(reference, scratch)
        found = read_study(files, self.pseudonyms, self.known, self.settings)
        if found.prepared.study_instance_uid != reference:
            raise BadTrainingData("the archive gave another study than it was asked for")
        return found
