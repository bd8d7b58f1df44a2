"""A finished document becomes a durable file: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import time
from pathlib import Path

from pydicom import Dataset, dcmwrite

from dicom_node.base.durable import make_folder, sync_folder
from dicom_node.base.errors import DiskFull
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.types import study_id

PART = ".part"
WRITING_SECONDS = 3600.0  # far longer than any report takes


def report_name(study_instance_uid: str, sop_instance_uid: str) -> str:
    """The file's name: the node's short study id and a digest of the SOP Instance UID; no patient data, no UID."""
    digest = hashlib.sha256(sop_instance_uid.encode()).hexdigest()
    return f"{study_id(study_instance_uid)}-{digest[:16]}.dcm"


def write_report(document: Dataset, folder: Path) -> Path:
    """Write the document as a PS3.10 file; once this returns, it survives a power cut.

    The same document written again replaces itself. Raises DiskFull when it cannot be made durable; nothing
    half-written stays.
    """
    path = folder / report_name(str(document.StudyInstanceUID), str(document.SOPInstanceUID))
    try:
        make_folder(folder)
        _replace(document, path)
        sync_folder(folder)
        passed(FaultPoint.REPORT_DURABLE)
    except OSError as error:
        raise DiskFull(
            f"the report could not be written ({error.strerror}): free space in the outgoing folder"
        ) from error
    return path


def discard_unfinished(folder: Path) -> None:
    """Remove what processes that are gone left half-written; on other machines, what is too old. Raises OSError."""
    for part in folder.glob(f".*{PART}"):
        machine, _, writer = part.name.split(".")[1].partition("-")
        gone = not Path("/proc", writer).exists() if machine == _machine() else _is_old(part)
        if gone:
            part.unlink(missing_ok=True)


def _is_old(part: Path) -> bool:
    try:
        return time.time() - part.stat().st_mtime > WRITING_SECONDS
    except FileNotFoundError:  # finished meanwhile
        return False


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def _replace(document: Dataset, path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{_machine()}-{os.getpid()}.", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            dcmwrite(file, document, enforce_file_format=True)
            file.flush()
            passed(FaultPoint.REPORT_WRITTEN)
            os.fsync(file.fileno())
        passed(FaultPoint.REPORT_SYNCED)
        os.replace(name, path)
        passed(FaultPoint.REPORT_RENAMED)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
