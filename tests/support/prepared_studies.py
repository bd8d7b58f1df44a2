"""A small source of studies for tests of preparing: random patches from a seed, no DICOM, and studies that go wrong.

Importable by worker processes. References are numbers; those named in `trouble` fail in the way given there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from prima_core.base.errors import OutOfScope, TwoPatients
from prima_core.base.types import PreparedSeries, PreparedStudy
from training.base.cohort import StudyLabels, StudyRecord, StudyReport
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.prepare.source import SourceStudy

PSEUDONYMS = Pseudonyms(b"k" * 32)


@dataclass(frozen=True)
class RandomStudies:
    """`count` studies. trouble: reference → what `fetch` does instead. called: a file that lists what was fetched."""

    count: int
    trouble: Mapping[str, str] = field(default_factory=dict)
    called: Path | None = None

    def references(self) -> Sequence[str]:
        """Numbers from 0."""
        return [str(number) for number in range(self.count)]

    def study(self, reference: str) -> str:
        """The pseudonym."""
        return PSEUDONYMS.study(reference)

    def fetch(self, reference: str, scratch: Path) -> SourceStudy:
        """The study, or its trouble."""
        assert not list(scratch.iterdir())
        (scratch / "left.dcm").write_bytes(b"MUELLER")
        if self.called:
            with self.called.open("a") as file:
                file.write(f"{reference}\n")
        fail(self.trouble.get(reference, ""))
        return random_study(int(reference))


def fail(trouble: str) -> None:
    """What can go wrong with a study."""
    match trouble:
        case "out of scope":
            raise OutOfScope("not a study of the head")
        case "two patients":
            raise TwoPatients("two patients")
        case "bad":
            raise BadTrainingData("no labels")
        case "bug":
            raise KeyError("MUELLER")
        case "full":
            raise OSError(28, "No space left on device", "/tmp/MUELLER")
        case "unreadable":
            raise OSError(5, "Input/output error", "/tmp/MUELLER")
        case "crash":
            os._exit(11)
        case "hang":
            time.sleep(600)


def random_study(number: int) -> SourceStudy:
    """Two series of different planes with 6 and 4 distinct patches."""
    draw = np.random.default_rng(number)
    series = tuple(
        PreparedSeries(
            series_instance_uid=f"1.2.{number}.{axis}",
            name=f"AX_T{axis}",
            patches=draw.random([count, *(4 if a == axis else 32 for a in range(3))], np.float32),
            token_ids=np.array([*range(3, 3 + count), 3]),
            coordinates=np.arange(3 * (count + 1)).reshape(-1, 3),
            thin_axis=axis,
            tokens_total=20,
            sop_instance_uids=(f"1.2.{number}.{axis}.1",),
        )
        for axis, count in ((0, 6), (2, 4))
    )
    name = PSEUDONYMS.study(str(number))
    return SourceStudy(
        record=StudyRecord(name, PSEUDONYMS.patient(str(number // 2)), date(2024, 1, 2), 54.0, "F", "SIEMENS", "", 3.0),
        prepared=PreparedStudy(f"1.2.{number}", "MRI BRAIN", series),
        labels=StudyLabels({"glioma": number % 2 == 0}),
        report=StudyReport((f"Statement {number}.", "No infarct.")),
        truth='{"strength": 1}' if number % 2 else "",
    )
