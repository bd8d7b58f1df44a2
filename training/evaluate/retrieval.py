"""Finding a study's report among all reports, and a report's study among all studies, by the CLIP vectors.

Studies whose reports are the same words count once: no model could tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import top_k_accuracy_score

from training.base.errors import BadTrainingData

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Retrieval:
    """Share of hits among the first one and five. studies: in the gallery; chance is 1 and 5 of them."""

    studies: int
    report_of_image_top1: float
    report_of_image_top5: float
    image_of_report_top1: float
    image_of_report_top5: float


def retrieve(images: Vectors, reports: Vectors, texts: Sequence[str]) -> Retrieval | None:
    """images, reports: (N, V) of unit length; texts: the reports, "" where a study has none.

    None with five different reports or fewer.

    Raises BadTrainingData when the numbers differ.
    """
    if not len(images) == len(reports) == len(texts):
        raise BadTrainingData("retrieval: the numbers of images, reports and texts differ")
    first = {text: row for row, text in reversed(list(enumerate(texts))) if text}
    rows = np.array(sorted(first.values()), np.int64)
    if len(rows) <= 5:
        return None
    similarity = images[rows].astype(np.float64) @ reports[rows].T.astype(np.float64)
    own = np.arange(len(rows))

    def top(scores: npt.NDArray[np.float64], k: int) -> float:
        return float(top_k_accuracy_score(own, scores, k=k, labels=own))

    return Retrieval(len(rows), top(similarity, 1), top(similarity, 5), top(similarity.T, 1), top(similarity.T, 5))
