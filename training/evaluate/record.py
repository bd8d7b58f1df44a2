"""Everything that is known of a model's worth on a set of studies, as one JSON document.

`judge_set` is one set (unseen patients; other scanners); `evaluation_record` joins sets to the document that goes
beside the bundle. The node activates no bundle without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from scipy.special import expit, logsumexp, softmax

from training.base.cohort import StudyLabels, StudyRecord
from training.base.embeddings import Embeddings
from training.evaluate.difficulty import by_contrast, by_size
from training.evaluate.figures import RESAMPLES, TaskFigures, judge
from training.evaluate.retrieval import Vectors, retrieve
from training.evaluate.scored import Scored
from training.evaluate.subgroups import compare, compare_all
from training.stages.heads import TrainedHeads, head_logits
from training.stages.targets import Numbers, flags, levels
from training.stages.zero_shot import ZeroShotHead

SCHEMA_VERSION = 1
TASKS = ("diagnosis", "referral", "priority")


@dataclass(frozen=True)
class EvaluationSet:
    """Studies that were not trained on, with what is known of them.

    embeddings: of exactly these records, in their order. truth: JSON of simulated studies. report_vectors, texts: of
    the studies' reports in the records' order, "" for a study without one.
    """

    records: tuple[StudyRecord, ...]
    embeddings: Embeddings
    labels: Mapping[str, StudyLabels]
    truth: Mapping[str, str] = field(default_factory=dict)
    report_vectors: Vectors | None = None
    texts: Sequence[str] = ()


def score(heads: TrainedHeads, given: EvaluationSet) -> dict[str, Scored]:
    """Each task's logits beside the truth."""
    studies = [record.study for record in given.records]
    answered = head_logits(heads, given.embeddings)
    names = {
        task: tuple(name for shape in heads.shapes if shape.task == task for name in shape.outputs) for task in answered
    }
    scored = {}
    for task, logits in answered.items():
        temperature = heads.temperatures.get(task)
        if task == "priority":
            left_out = [name.removeprefix("priority.") for name in heads.left_out]
            targets = _one_of(levels(given.labels, studies, names[task], left_out), len(names[task]))
            probabilities = None if temperature is None else softmax(logits / temperature, axis=1)
            against = _against_the_rest(logits)
            scored[task] = Scored(names[task], given.records, against, targets, probabilities, strongest=True)
        else:
            targets = flags(given.labels, studies, task, names[task])
            cuts = np.array([heads.thresholds[task][name] for name in names[task]])
            probabilities = None if temperature is None else expit((logits + cuts) / temperature)
            scored[task] = Scored(names[task], given.records, logits, targets, probabilities)
    return scored


def judge_set(
    heads: TrainedHeads, given: EvaluationSet, zero_shot: ZeroShotHead | None = None, count: int = RESAMPLES
) -> dict[str, Any]:
    """All figures of one set, as JSON. count: bootstrap samples."""
    scored = score(heads, given)
    document: dict[str, Any] = {
        "studies": len(given.records),
        "patients": len({record.patient for record in given.records}),
        **{task: asdict(judge(one, count)) for task, one in scored.items()},
    }
    if diagnosis := scored.get("diagnosis"):
        document["subgroups"] = [asdict(one) for one in compare_all(diagnosis, max(count // 5, 1))]
        document["subgroups"].append(asdict(_by_period(diagnosis, max(count // 5, 1))))
        if given.truth:
            document["by_contrast"] = [asdict(one) for one in by_contrast(diagnosis, given.truth)]
            document["by_size"] = [asdict(one) for one in by_size(diagnosis, given.truth)]
    if zero_shot is not None:
        document["zero_shot"] = asdict(_zero_shot(zero_shot, given, count))
    if given.report_vectors is not None:
        found = retrieve(given.embeddings.clip, given.report_vectors, given.texts)
        document["retrieval"] = None if found is None else asdict(found)
    return document


def evaluation_record(sets: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """The document. sets: by name, the first is the one whose figures stand for the model. more: such as scaling."""
    first = next(iter(sets.values()))
    diagnosis = first.get("diagnosis", {"mean_auroc": None, "outputs": []})
    return {
        "schema_version": SCHEMA_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "studies": first["studies"],
        "mean_auroc": diagnosis["mean_auroc"] and diagnosis["mean_auroc"]["value"],
        "auroc": {one["name"]: one["auroc"]["value"] for one in diagnosis["outputs"] if one["auroc"]},
        "sets": dict(sets),
        **more,
    }


def _zero_shot(head: ZeroShotHead, given: EvaluationSet, count: int) -> TaskFigures:
    """Thresholds of prompts are nobody's choice, so 0 stands: more like "there is" than like "there is no"."""
    studies = [record.study for record in given.records]
    targets = flags(given.labels, studies, head.shape.task, head.shape.outputs)
    return judge(Scored(head.shape.outputs, given.records, head.logits(given.embeddings.clip), targets), count)


def _by_period(scored: Scored, count: int) -> Any:
    """The earlier and the later half of the days: does a model trained on the past hold?"""
    days = sorted(record.day for record in scored.records if record.day)
    middle = days[len(days) // 2] if days else date.min
    return compare(
        scored,
        "period",
        lambda record: "" if record.day is None else "earlier half" if record.day < middle else "later half",
        count,
    )


def _one_of(level: Numbers, count: int) -> Numbers:
    """(N, 1) positions → (N, count) 1, 0 or NaN."""
    return np.where(np.isfinite(level), (level == np.arange(count)).astype(float), np.nan)


def _against_the_rest(logits: Numbers) -> Numbers:
    """Each level's log odds against all others together."""
    rest = [logsumexp(np.delete(logits, n, axis=1), axis=1) for n in range(logits.shape[1])]
    result: Numbers = logits - np.stack(rest, axis=1)
    return result
