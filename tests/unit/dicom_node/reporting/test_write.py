"""The report's file: whole or not at all, under a name that tells nothing of the patient.

A power cut: tests/faults.
"""

from __future__ import annotations

import errno
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.base.config import ReportSection
from dicom_node.base.errors import DiskFull
from dicom_node.base.types import study_id
from dicom_node.reporting.document import build_report
from dicom_node.reporting.write import PART, discard_unfinished, report_name, write_report
from support.reports import STUDY, make_result, write_study


@pytest.fixture
def document(tmp_path: Path) -> Dataset:
    """A report on one image."""
    source = tmp_path / "source"
    source.mkdir()
    paths = write_study(source, {})
    return build_report(make_result(paths), paths, ReportSection(), datetime(2026, 1, 2, tzinfo=UTC))


def test_the_file_is_a_dicom_file_with_the_same_document(document: Dataset, tmp_path: Path) -> None:
    path = write_report(document, tmp_path / "outgoing")
    again = dcmread(path)
    assert again.SOPInstanceUID == document.SOPInstanceUID
    assert again.file_meta.MediaStorageSOPInstanceUID == document.SOPInstanceUID
    assert again.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_the_name_holds_the_short_study_id_and_no_uid(document: Dataset) -> None:
    name = report_name(STUDY, str(document.SOPInstanceUID))
    assert name.startswith(study_id(STUDY))
    assert STUDY not in name
    assert str(document.SOPInstanceUID) not in name


def test_writing_again_replaces_the_file_and_leaves_nothing_else(document: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "outgoing"
    assert write_report(document, folder) == write_report(document, folder)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_retriable_and_leaves_nothing_behind(
    step: str, document: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    folder = tmp_path / "outgoing"
    with pytest.raises(DiskFull) as caught:
        write_report(document, folder)
    assert caught.value.retriable
    assert list(folder.iterdir()) == []


def test_file_and_folder_are_synchronised_before_it_returns(
    document: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append("folder" if Path(f"/proc/self/fd/{fd}").is_dir() else "file"), fsync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    write_report(document, tmp_path / "outgoing")
    assert calls == ["folder", "file", "replace", "folder"], "first the folder that the new one lies in"
    calls.clear()
    write_report(document, tmp_path / "outgoing")
    assert calls == ["file", "replace", "folder"]


def test_what_a_process_that_is_gone_left_half_written_is_removed_and_nothing_else(
    document: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    unfinished(document, tmp_path, monkeypatch)
    [mine] = tmp_path.glob(f".*{PART}")
    left, others, old = (mine.with_name(mine.name.replace(*change)) for change in _other_writers(mine, gone.pid))
    for part in (left, others, old):
        part.touch()
    os.utime(old, (0, 0))
    written = write_report(document, tmp_path)
    discard_unfinished(tmp_path)
    assert {path for path in tmp_path.iterdir() if path.is_file()} == {mine, others, written}
    discard_unfinished(tmp_path / "not yet there")


def unfinished(document: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a file as a process that is killed while it writes does."""
    with monkeypatch.context() as killed:
        killed.setattr(os, "replace", lambda *_: None)
        write_report(document, folder)


def _other_writers(mine: Path, gone: int) -> list[tuple[str, str]]:
    """How the names of others differ: of a process that is gone, and of this one's number on two other machines."""
    machine, _, pid = mine.name.split(".")[1].partition("-")
    return [(f"-{pid}.", f"-{gone}."), (machine, "0" * 12), (machine, "1" * 12)]
