"""Which files of a folder are the study that the demo sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from dicom_node.base.errors import PermanentError
from prima_core.volume.faults import MALFORMED

IDENTIFIERS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"]


@dataclass(frozen=True)
class StudyFiles:
    """One study's instances."""

    study_instance_uid: str
    files: tuple[Path, ...]


def study_in(files: Iterable[Path], on_skipped: Callable[[Path], None]) -> StudyFiles:
    """The DICOM instances among files; what is none (a text, a DICOMDIR) is told to `on_skipped`.

    Raises PermanentError when there is no instance, or instances of several studies.
    """
    kept: dict[Path, str] = {}
    for path in files:
        uid = _study_uid(path)
        if uid:
            kept[path] = uid
        else:
            on_skipped(path)
    studies = sorted(set(kept.values()))
    if not studies:
        raise PermanentError("no DICOM instances there")
    if len(studies) > 1:
        raise PermanentError(f"the files are of {len(studies)} studies: the demo sends one")
    return StudyFiles(studies[0], tuple(kept))


def _study_uid(path: Path) -> str | None:
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(IDENTIFIERS))
        whole = bool(header.file_meta.TransferSyntaxUID) and all(header.get(keyword) for keyword in IDENTIFIERS)
        return str(header.StudyInstanceUID) if whole else None
    except MALFORMED:
        return None
