"""How much would more studies help? Heads fitted on growing shares of the training patients, judged on the same test.

Only the heads are fitted anew; the embeddings are those of the whole training set. So the curve speaks of labels, and
flatters small shares. Every point is a mean over the same diagnoses, those that the smallest share can teach too.
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
from training.evaluate.scored import Scored
from training.stages.heads import HeadsSettings, train_heads

SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Point:
    """Mean AUROC over `outputs` diagnoses, the same at every point, with `studies` training studies."""

    studies: int
    mean_auroc: float | None
    outputs: int


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
    """One point a share. Resumes in `folder`. Findings that some share has too few of are left out."""
    training = [record for record in records if record.study in set(split.train)]
    found: list[tuple[int, Scored | None]] = []
    for share in shares:
        # The rest goes to "test", which is not looked at: a share is of patients, and each holds the ones before.
        chosen = split_by_patient(training, 0.0, 1 - share, seed=1).train if share < 1 else split.train
        part = replace(split, train=chosen)
        heads = train_heads(embeddings, labels, part, folder / f"{share:g}", replace(settings, leave_out=True))
        found.append((len(chosen), score(heads, test).get("diagnosis")))
    common = set.intersection(*(set(one.names) if one else set() for _, one in found))
    names = [name for name in (found[-1][1].names if found[-1][1] else ()) if name in common]
    return tuple(Point(studies, mean_auroc(one, names) if one else None, len(names)) for studies, one in found)
