"""Folders of DICOM files in any layout, such as an export or a node's spool: grouped by Study Instance UID."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import config
from pydicom.datadict import tag_for_keyword

from prima_core.base.bounded import Allowance
from prima_core.scope import ScopeSettings
from prima_core.volume.attributes import Attributes
from prima_core.volume.faults import MALFORMED, raise_trouble
from prima_core.volume.pixels import LARGEST_PARSED, read_header
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.prepare.dicom_study import read_study
from training.prepare.known import Known
from training.prepare.source import SourceStudy

_STUDY_INSTANCE_UID = tag_for_keyword("StudyInstanceUID") or 0


@dataclass
class DicomFolder:
    """A source over folders. Reference: the Study Instance UID. skipped: files that are no DICOM objects."""

    folders: Sequence[Path]
    pseudonyms: Pseudonyms
    known: Known = field(default_factory=Known)
    settings: ScopeSettings = field(default_factory=ScopeSettings)
    skipped: int = 0
    _files: dict[str, list[Path]] = field(default_factory=dict, init=False, repr=False)

    def references(self) -> Sequence[str]:
        """Reads one attribute of every file, once. Raises BadTrainingData when a folder is not there."""
        if not self._files:
            for folder in self.folders:
                if not folder.is_dir():
                    raise BadTrainingData(f"{folder}: not a folder")
                for path in _files_below(folder):
                    self._group(path)
        return sorted(self._files)

    def study(self, reference: str) -> str:
        """The pseudonym."""
        return self.pseudonyms.study(reference)

    def fetch(self, reference: str, _scratch: Path) -> SourceStudy:
        """Reads the files where they are. Raises OutOfScope and TwoPatients."""
        return read_study(self._files[reference], self.pseudonyms, self.known, self.settings)

    def _group(self, path: Path) -> None:
        try:
            uid = study_uid_of(path)
        except MALFORMED as error:
            raise_trouble(error)
            uid = ""
        if uid:
            self._files.setdefault(uid, []).append(path)
        else:
            self.skipped += 1


def study_uid_of(path: Path) -> str:
    """The Study Instance UID of a file, or "". Raises what pydicom raises for what is no DICOM file."""
    with config.disable_value_validation():
        allowance = Allowance(LARGEST_PARSED)
        dataset, _, _ = read_header(path, [_STUDY_INSTANCE_UID], allowance)
        return Attributes(dataset, allowance).text(_STUDY_INSTANCE_UID)


def _files_below(folder: Path) -> Iterator[Path]:
    """All plain files, in a stable order; hidden ones are those of other programs at work."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))
