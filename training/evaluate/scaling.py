"""How much would more studies help? Heads fitted on growing shares of the training patients, judged on the same test.

Only the heads are fitted anew; the embeddings are those of the whole training set. So the curve speaks of labels, and
flatters small shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.base.cohort import StudyLabels, StudyRecord
from training.base.embeddings import Embeddings
from training.base.splits import Split, split_by_patient
from training.evaluate.figures import mean_auroc
from training.evaluate.record import EvaluationSet, score
from training.stages.heads import HeadsSettings, train_heads

SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Point:
    """Mean AUROC over the diagnoses with `studies` training studies."""

    studies: int
    mean_auroc: float | None


def scaling_curve(
    embeddings: Embeddings,
    labels: Mapping[str, StudyLabels],
    split: Split,
    records: Sequence[StudyRecord],
    test: EvaluationSet,
    folder: Path,
    settings: HeadsSettings,
    shares: Sequence[float] = SHARES,
) -> tuple[Point, ...]:
    """One point a share. Resumes in `folder`. Findings that a share has too few of are left out there."""
    training = [record for record in records if record.study in set(split.train)]
    points = []
    for share in shares:
        # The rest goes to "test", which is not looked at: a share is of patients, and each holds the ones before.
        chosen = split_by_patient(training, 0.0, 1 - share, seed=1).train if share < 1 else split.train
        part = replace(split, train=chosen)
        heads = train_heads(embeddings, labels, part, folder / f"{share:g}", replace(settings, leave_out=True))
        diagnosis = score(heads, test).get("diagnosis")
        points.append(Point(len(chosen), None if diagnosis is None else mean_auroc(diagnosis)))
    return tuple(points)
