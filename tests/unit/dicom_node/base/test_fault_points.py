"""Fault points: nothing without an order; an order is obeyed once, at the passage that it names."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.base import fault_points
from dicom_node.base.fault_points import PASSED, VARIABLE, FaultPoint, passed

POINT = FaultPoint.SPOOL_SYNCED


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / PASSED).mkdir()
    monkeypatch.setattr(fault_points, "_FOLDER", str(tmp_path))
    return tmp_path


def test_nothing_is_armed_unless_the_environment_says_so() -> None:
    assert VARIABLE not in os.environ
    assert fault_points._FOLDER is None
    passed(POINT)


def test_a_full_disk_at_the_second_passage_and_only_there(folder: Path) -> None:
    (folder / POINT).write_text("ENOSPC 2")
    passed(FaultPoint.SPOOL_RENAMED)
    passed(POINT)
    with pytest.raises(OSError, match="No space left") as raised:
        passed(POINT)
    assert raised.value.errno == errno.ENOSPC
    passed(POINT)
    assert {file.name for file in (folder / PASSED).iterdir()} == {POINT, FaultPoint.SPOOL_RENAMED}


def test_death_at_a_point(tmp_path: Path) -> None:
    (tmp_path / PASSED).mkdir()
    (tmp_path / POINT).write_text("die 1")
    work = f"from dicom_node.base.fault_points import *; passed(FaultPoint('{POINT}')); print('went on')"
    run = subprocess.run(
        [sys.executable, "-c", work], env=os.environ | {VARIABLE: str(tmp_path)}, capture_output=True, check=False
    )
    assert (run.returncode, run.stdout) == (-signal.SIGKILL, b"")
    assert not (tmp_path / POINT).exists()
