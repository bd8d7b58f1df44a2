"""A finished document becomes a durable file: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from pydicom import Dataset, dcmwrite

from dicom_node.base.errors import DiskFull
from dicom_node.base.types import study_id


def report_name(document: Dataset) -> str:
    """The file's name: the node's short study id and a digest of the SOP Instance UID; no patient data, no UID."""
    digest = hashlib.sha256(str(document.SOPInstanceUID).encode()).hexdigest()
    return f"{study_id(str(document.StudyInstanceUID))}-{digest[:16]}.dcm"


def write_report(document: Dataset, folder: Path) -> Path:
    """Write the document as a PS3.10 file; once this returns, it survives a power cut.

    The same document written again replaces itself. Raises DiskFull when it cannot be made durable; nothing
    half-written stays.
    """
    path = folder / report_name(document)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(document, path)
        _sync_folder(folder)
    except OSError as error:
        raise DiskFull(
            f"the report could not be written ({error.strerror}): free space in the outgoing folder"
        ) from error
    return path


def _replace(document: Dataset, path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            dcmwrite(file, document, enforce_file_format=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
