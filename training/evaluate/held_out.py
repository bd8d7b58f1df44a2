"""A run's test part: the studies that nothing was trained on, judged, as a record and a page in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.base.checkpoint import write_json
from training.base.cohort import StudyLabels
from training.base.embeddings import Embeddings
from training.base.errors import BadTrainingData
from training.evaluate.page import PHANTOM_WARNING, write_page
from training.evaluate.record import EvaluationSet
from training.evaluate.retrieval import Vectors
from training.run_folder import RunFolder

TEST_PART = "test part"
RECORD, PAGE = "evaluation.json", "report.html"
TEXTS_AT_ONCE = 64


def held_out(run: RunFolder) -> EvaluationSet:
    """The labelled studies of the test part, with the truth and the reports' vectors where the run has them.

    Raises BadTrainingData when there are none: what cannot be judged is not put to use.
    """
    part, labels = set(run.split().test), run.labels()
    records = tuple(one for one in run.records() if one.study in part and _says_something(labels.get(one.study)))
    if not records:
        raise BadTrainingData("no study of the test part has a label; add labelled studies of more patients")
    studies = tuple(record.study for record in records)
    embeddings = run.embeddings()
    rows = embeddings.rows(studies)
    own = Embeddings(studies, embeddings.study[rows], embeddings.clip[rows])
    if not (run / "store").is_dir():
        return EvaluationSet(records, own, labels)
    store = run.store()
    reports = store.reports()
    texts = [reports[study].text for study in studies if study in reports]
    vectors = _report_vectors(run, texts) if len(texts) == len(studies) else None
    return EvaluationSet(records, own, labels, store.truth(), vectors, texts if vectors is not None else ())


def write_evaluation(run: RunFolder, record: Mapping[str, Any], title: str) -> Path:
    """evaluation/evaluation.json and its page; the page's path. Raises NoSpace."""
    write_json(run / "evaluation" / RECORD, dict(record))
    page = run / "evaluation" / PAGE
    write_page(page, record, title, PHANTOM_WARNING if record.get("training_state") == "phantom" else "")
    return page


def _says_something(labels: StudyLabels | None) -> bool:
    return labels is not None and bool(labels.diagnosis or labels.referral or labels.priority)


def _report_vectors(run: RunFolder, texts: Sequence[str]) -> Vectors | None:
    """Of the trained text tower; None where the run has none of its own."""
    if not (run / "clip" / "done.json").exists() or not (run / "text").is_dir():
        return None
    import torch

    from training.stages.clip import read_text_tower

    tower = read_text_tower(run / "clip", run / "text")
    with torch.inference_mode():
        parts = [tower(texts[start : start + TEXTS_AT_ONCE]).numpy() for start in range(0, len(texts), TEXTS_AT_ONCE)]
    return np.concatenate(parts)
