"""Comparing apart: verdicts come back in order, and a crash or hang costs only the pair it happened on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.base.types import Verdict
from dicom_node.intake import apart
from dicom_node.intake.apart import compare_apart
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, write_series


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "a", head_phantom(3, 16, 16), StudyFacts(), SeriesFacts())


def test_verdicts_come_back_in_order(images: list[Path], tmp_path: Path) -> None:
    renamed = dcmread(images[0])
    renamed.PatientID = "SOMEBODY ELSE"
    renamed.save_as(tmp_path / "renamed.dcm")
    pairs = [
        (images[0], images[0]),
        (images[0], tmp_path / "renamed.dcm"),
        (images[0], tmp_path / "absent.dcm"),
        (images[0], images[1]),
    ]
    assert compare_apart(pairs) == [Verdict.DUPLICATE, Verdict.CORRECTION, None, Verdict.QUARANTINED]


def test_after_a_crash_nothing_is_known_of_the_pair_it_happened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -11, stdout="0 duplicate\n")

    monkeypatch.setattr(apart.subprocess, "run", run)
    pair = (Path("a"), Path("b"))
    assert compare_apart([pair, pair, pair]) == [Verdict.DUPLICATE, None]


def test_what_a_decoder_prints_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        said = "warning: 7 bits\n0 duplicate\n\n1 nonsense\n1 correction\n2 duplicate\n2 quarantined\n"
        return subprocess.CompletedProcess([], 0, stdout=said)

    monkeypatch.setattr(apart.subprocess, "run", run)
    pair = (Path("a"), Path("b"))
    assert compare_apart([pair, pair]) == [Verdict.DUPLICATE, Verdict.CORRECTION]
    assert compare_apart([pair] * 4) == [Verdict.DUPLICATE, Verdict.CORRECTION, None]


def test_a_hang_quarantines_the_pair_it_happened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired([], 1.0, output=b"0 correction\n")

    monkeypatch.setattr(apart.subprocess, "run", run)
    pair = (Path("a"), Path("b"))
    assert compare_apart([pair, pair, pair]) == [Verdict.CORRECTION, Verdict.QUARANTINED]
