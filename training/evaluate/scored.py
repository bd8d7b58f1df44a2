"""What is judged: the logits of a set of studies, the truth, and who the studies are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from training.base.cohort import StudyRecord
from training.base.errors import BadTrainingData
from training.stages.targets import Numbers

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """One task's outputs on N studies.

    logits: (N, n), the threshold already subtracted where the output has one. targets: (N, n) 1, 0 or NaN (unknown).
    probabilities: (N, n), or None where the task is not calibrated. Exclusive levels are outputs like others: a study
    is "high" or it is not. strongest: whether, as of them, the largest logit alone is called; else every one above 0.
    """

    names: tuple[str, ...]
    records: tuple[StudyRecord, ...]
    logits: Numbers
    targets: Numbers
    probabilities: Numbers | None = None
    strongest: bool = False

    @property
    def called(self) -> npt.NDArray[np.bool_]:
        """(N, n) what the node says of the studies: the positive findings, or the level that it ranks them by."""
        if self.strongest:
            largest: npt.NDArray[np.bool_] = np.arange(len(self.names)) == self.logits.argmax(axis=1)[:, None]
            return largest
        positive: npt.NDArray[np.bool_] = self.logits > 0
        return positive

    def __post_init__(self) -> None:
        shape = len(self.records), len(self.names)
        shapes = [one.shape for one in (self.logits, self.targets, self.probabilities) if one is not None]
        if any(one != shape for one in shapes):
            raise BadTrainingData("evaluation: studies, outputs and their truth do not fit together")
        if not np.isfinite(self.logits).all():
            raise BadTrainingData("evaluation: the model gives logits that are not finite")

    def at(self, rows: Rows) -> Scored:
        """These studies alone; a study may be there more than once."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        records = tuple(self.records[row] for row in rows)
        return replace(
            self, records=records, logits=self.logits[rows], targets=self.targets[rows], probabilities=probabilities
        )

    def where(self, wanted: Callable[[StudyRecord], bool]) -> Scored:
        """The studies whose record is wanted."""
        return self.at(np.array([row for row, record in enumerate(self.records) if wanted(record)], np.int64))


def resamples(records: Sequence[StudyRecord], count: int, seed: int = 0) -> list[Rows]:
    """Bootstrap samples of the studies' rows, drawn by patient: studies of one patient are not independent."""
    rows_of: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        rows_of.setdefault(record.patient, []).append(row)
    patients = [np.array(rows, np.int64) for rows in rows_of.values()]
    random = np.random.default_rng(seed)
    return [
        np.concatenate([patients[n] for n in random.integers(len(patients), size=len(patients))]) for _ in range(count)
    ]
