"""A run's test part: the studies that nothing was trained on, as they are judged, and where the figures go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.base.checkpoint import DONE, write_json
from training.base.cohort import StudyLabels, StudyRecord
from training.base.embeddings import Embeddings
from training.base.errors import BadTrainingData
from training.base.splits import Split
from training.base.trained_on import refuse_seen
from training.evaluate.page import PHANTOM_WARNING, write_page
from training.evaluate.record import EvaluationSet
from training.prepare.store import TokenStore
from training.run_folder import TRAINED, RunFolder
from training.stages.clip import read_text_tower
from training.stages.text_tower import TextTower

TEST_PART = "test part"
RECORD, PAGE = "evaluation.json", "report.html"


def held_out(run: RunFolder) -> EvaluationSet:
    """The labelled studies of the test part, with the truth and the reports' vectors where the run has them.

    Raises BadTrainingData when there are none: what cannot be judged is not put to use; and when a stage of the run was
    trained on one of their patients.
    """
    everybody, part, labels = run.records(), set(run.split().test), run.labels()
    records = tuple(one for one in everybody if one.study in part and _says_something(labels.get(one.study)))
    if not records:
        raise BadTrainingData("no study of the test part has a label; add labelled studies of more patients")
    refuse_seen((run / stage for stage in TRAINED), everybody, part)
    store = run.store() if (run / "store").is_dir() else None
    # A text tower that is not the run's own may lie anywhere, and is not judged.
    own = (run / "clip" / DONE).exists() and (run / "text").is_dir()
    tower = read_text_tower(run / "clip", run / "text") if own else None
    return evaluation_set(records, run.embeddings(), labels, store, tower)


def evaluation_set(
    records: tuple[StudyRecord, ...],
    embeddings: Embeddings,
    labels: Mapping[str, StudyLabels],
    store: TokenStore | None,
    tower: TextTower | None,
) -> EvaluationSet:
    """These studies with all that is known of them. store, tower: None where there are none."""
    studies = tuple(record.study for record in records)
    rows = embeddings.rows(studies)
    own = Embeddings(studies, embeddings.study[rows], embeddings.clip[rows])
    if store is None:
        return EvaluationSet(records, own, labels)
    reports = store.reports()
    texts = [reports[study].text if study in reports else "" for study in studies]
    if tower is None or not any(texts):
        return EvaluationSet(records, own, labels, store.truth())
    return EvaluationSet(records, own, labels, store.truth(), tower.vectors(texts), texts)


def is_prospective(records: Iterable[StudyRecord], split: Split) -> bool:
    """Whether every study of the test part is later than all that train and validate."""
    day_of = {record.study: record.day for record in records}
    before, after = ([day_of[study] for study in part] for part in ((*split.train, *split.validation), split.test))
    known = [day for day in before if day], [day for day in after if day]
    complete = all(before) and all(after) and bool(before) and bool(after)
    return complete and max(known[0]) < min(known[1])


def write_evaluation(run: RunFolder, record: Mapping[str, Any], title: str) -> Path:
    """evaluation/evaluation.json and its page; the page's path. Raises NoSpace."""
    write_json(run / "evaluation" / RECORD, dict(record))
    page = run / "evaluation" / PAGE
    write_page(page, record, title, PHANTOM_WARNING if record.get("training_state") == "phantom" else "")
    return page


def _says_something(labels: StudyLabels | None) -> bool:
    return labels is not None and bool(labels.diagnosis or labels.referral or labels.priority)
