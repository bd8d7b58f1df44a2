"""Task heads on embeddings whose answer is known; chance where labels are shuffled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from training.base.cohort import StudyLabels, StudyRecord
from training.base.embeddings import Embeddings
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.base.splits import Split, split_by_patient
from training.evaluate.record import EvaluationSet, score
from training.stages.fit import FitSettings
from training.stages.heads import HeadsSettings, TrainedHeads, read_settings, train_heads

WIDTH, STUDIES = 24, 600
LEVELS = ("none", "low", "medium", "high")
SETTINGS = HeadsSettings(
    FitSettings(LoopSettings(120, 128, device="cpu", validate_every=40), hidden=(), learning_rate=2e-2)
)


def cohort(shuffle: bool = False, tasks: int = 1) -> tuple[Embeddings, dict[str, StudyLabels], Split]:
    """Two directions of the embedding decide two findings, their sum the referral, a third the priority."""
    random = np.random.default_rng(0)
    names = tuple(f"{n:016x}" for n in range(STUDIES))
    vectors = random.normal(size=(STUDIES, WIDTH)).astype(np.float32)
    signs = vectors[random.permutation(STUDIES)] if shuffle else vectors
    labels = {
        name: StudyLabels(
            {"glioma": bool(v[0] > 0.8), "abscess": bool(v[1] > 1.2)},
            {"neurology": bool(v[0] + v[1] > 0)} if tasks == 3 else {},
            LEVELS[int(np.digitize(v[2], [-1, 0, 1]))] if tasks == 3 else None,
        )
        for name, v in zip(names, signs, strict=True)
    }
    split = split_by_patient([StudyRecord(name, name) for name in names], 0.2, 0.3)
    return Embeddings(names, vectors, np.zeros((STUDIES, 0), np.float32)), labels, split


def scores(heads: TrainedHeads, embeddings: Embeddings, studies: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Logits of every output on these studies, by the bundle's own head."""
    from prima_core.task_heads import Head

    found: dict[str, np.ndarray] = {}
    inputs = torch.from_numpy(embeddings.study[embeddings.rows(studies)])
    for number, shape in enumerate(heads.shapes):
        head = Head(shape)
        prefix = f"heads.mlps.{number}."
        head.load_state_dict(
            {k.removeprefix(prefix): torch.from_numpy(v) for k, v in heads.weights.items() if k.startswith(prefix)}
        )
        logits = head(inputs).detach().numpy()
        found |= {f"{shape.task}.{name}": logits[:, n] for n, name in enumerate(shape.outputs)}
    return found


def auroc(heads: TrainedHeads, embeddings: Embeddings, labels: dict[str, StudyLabels], split: Split) -> float:
    logits = scores(heads, embeddings, split.test)["diagnosis.glioma"]
    return float(roc_auc_score([labels[study].diagnosis["glioma"] for study in split.test], logits))


def test_what_the_embedding_holds_is_learned_with_a_working_threshold(tmp_path: Path) -> None:
    embeddings, labels, split = cohort(tasks=3)
    heads = train_heads(embeddings, labels, split, tmp_path, SETTINGS)
    assert [shape.task for shape in heads.shapes] == ["diagnosis", "referral", "priority"]
    assert auroc(heads, embeddings, labels, split) > 0.95
    logits = scores(heads, embeddings, split.test)["diagnosis.glioma"]
    called = logits > heads.thresholds["diagnosis"]["glioma"]
    truth = np.array([labels[study].diagnosis["glioma"] for study in split.test])
    assert (called == truth).mean() > 0.85
    assert all(temperature and temperature > 0 for temperature in heads.temperatures.values())


def test_probabilities_are_of_those_who_validate_not_of_a_teaching_collection(tmp_path: Path) -> None:
    embeddings, labels, split = cohort()
    rare = [study for study in split.train if not labels[study].diagnosis["glioma"]]
    taught = replace(split, train=tuple(study for study in split.train if study not in rare[: len(rare) * 4 // 5]))
    heads = train_heads(embeddings, labels, taught, tmp_path, SETTINGS)
    logits = scores(heads, embeddings, split.validation)["diagnosis.glioma"]
    expected = float(expit(logits / heads.temperatures["diagnosis"]).mean())
    taught_share, share = (
        float(np.mean([labels[study].diagnosis["glioma"] for study in part]))
        for part in (taught.train, split.validation)
    )
    assert taught_share > share + 0.2
    assert expected == pytest.approx(share, abs=0.03)


def test_shuffled_labels_teach_nothing(tmp_path: Path) -> None:
    embeddings, labels, split = cohort(shuffle=True)
    found = auroc(train_heads(embeddings, labels, split, tmp_path, SETTINGS), embeddings, labels, split)
    assert 0.35 < found < 0.65  # 180 studies: a standard error of about 0.05


def test_a_second_call_trains_nothing_and_other_labels_are_noticed(tmp_path: Path) -> None:
    embeddings, labels, split = cohort()
    first = train_heads(embeddings, labels, split, tmp_path, SETTINGS)
    written = (tmp_path / "heads.safetensors").stat().st_mtime_ns
    again = train_heads(embeddings, labels, split, tmp_path, SETTINGS)
    assert (tmp_path / "heads.safetensors").stat().st_mtime_ns == written
    assert all(np.array_equal(first.weights[key], again.weights[key]) for key in first.weights)
    with pytest.raises(BadTrainingData, match="labels"):
        train_heads(embeddings, labels | {split.train[0]: StudyLabels()}, split, tmp_path, SETTINGS)


def test_a_finding_without_a_positive_is_named_or_left_out(tmp_path: Path) -> None:
    embeddings, labels, split = cohort()
    labels = {study: replace(one, diagnosis=one.diagnosis | {"lymphoma": False}) for study, one in labels.items()}
    with pytest.raises(BadTrainingData, match=r"diagnosis: fewer than 1 .* of lymphoma"):
        train_heads(embeddings, labels, split, tmp_path, SETTINGS)
    assert not (tmp_path / "done.json").exists()
    heads = train_heads(embeddings, labels, split, tmp_path, replace(SETTINGS, leave_out=True))
    assert heads.left_out == ("diagnosis.lymphoma",)
    assert "lymphoma" not in heads.shapes[0].outputs


def test_a_level_without_a_study_is_named_or_left_out(tmp_path: Path) -> None:
    embeddings, labels, split = cohort(tasks=3)
    training = {study: labels[study] for study in split.train if labels[study].priority != "high"}
    rare = labels | {study: replace(labels[study], priority=None) for study in set(split.train) - set(training)}
    with pytest.raises(BadTrainingData, match=r"priority: fewer than 1 .* of high"):
        train_heads(embeddings, rare, split, tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir()), "nothing is trained before this is known"
    heads = train_heads(embeddings, rare, split, tmp_path, replace(SETTINGS, leave_out=True))
    assert (heads.shapes[-1].outputs, heads.left_out) == (("none", "low", "medium"), ("priority.high",))
    rows = embeddings.rows(split.test)
    records = tuple(StudyRecord(study, study) for study in split.test)
    given = EvaluationSet(records, Embeddings(split.test, embeddings.study[rows], embeddings.clip[rows]), labels)
    known = np.isfinite(score(heads, given)["priority"].targets).all(axis=1)
    assert known.tolist() == [labels[study].priority != "high" for study in split.test]


def test_the_priority_may_be_fitted_otherwise_than_the_rest(tmp_path: Path) -> None:
    embeddings, labels, split = cohort(tasks=3)
    held = replace(SETTINGS, priority=replace(SETTINGS.fit, hidden=(8,), weight_decay=1.0))
    usual, other = (
        train_heads(embeddings, labels, split, tmp_path / name, settings)
        for name, settings in (("usual", SETTINGS), ("other", held))
    )
    assert [shape.widths for shape in usual.shapes] == [(WIDTH,)] * 3
    assert [shape.widths for shape in other.shapes] == [(WIDTH,), (WIDTH,), (WIDTH, 8)]
    for number in (0, 1):
        name = f"heads.mlps.{number}.layers.0.weight"
        np.testing.assert_array_equal(usual.weights[name], other.weights[name])
    assert read_settings(tmp_path / "usual") == SETTINGS
    assert read_settings(tmp_path / "other") == held


def test_decay_holds_the_weights(tmp_path: Path) -> None:
    embeddings, labels, split = cohort()
    free, held = (
        train_heads(embeddings, labels, split, tmp_path / str(decay), HeadsSettings(fit)).weights
        for decay, fit in ((decay, replace(SETTINGS.fit, weight_decay=decay)) for decay in (0.0, 1.0))
    )
    name = "heads.mlps.0.layers.0.weight"
    assert np.linalg.norm(held[name]) < np.linalg.norm(free[name]) / 2


def test_unknown_labels_are_no_negatives(tmp_path: Path) -> None:
    embeddings, labels, split = cohort()
    known = {
        study: one if n % 2 else StudyLabels({}, one.referral, one.priority)
        for n, (study, one) in enumerate(labels.items())
    }
    assert auroc(train_heads(embeddings, known, split, tmp_path, SETTINGS), embeddings, labels, split) > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: {study: StudyLabels() for study in labels}, "no training study has a label"),
        (lambda labels: {s: replace(one, priority="now") for s, one in labels.items()}, "unknown priority 'now'"),
    ],
)
def test_labels_that_cannot_be_used_end_it(tmp_path: Path, change: object, message: str) -> None:
    embeddings, labels, split = cohort()
    with pytest.raises(BadTrainingData, match=message):
        train_heads(embeddings, change(labels), split, tmp_path, SETTINGS)  # type: ignore[operator]


def test_a_study_without_an_embedding_is_named(tmp_path: Path) -> None:
    embeddings, labels, split = cohort()
    with pytest.raises(BadTrainingData, match="1 studies have no embedding, the first is ghost"):
        train_heads(embeddings, labels, replace(split, train=(*split.train, "ghost")), tmp_path, SETTINGS)
