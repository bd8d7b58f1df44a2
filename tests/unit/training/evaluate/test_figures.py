"""Figures against scikit-learn and against what they must be by construction; intervals that cover; honest gaps."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from training.base.cohort import StudyRecord
from training.base.errors import BadTrainingData
from training.evaluate.difficulty import by_contrast, by_size
from training.evaluate.figures import judge, mean_auroc
from training.evaluate.retrieval import retrieve
from training.evaluate.scored import Scored, resamples
from training.evaluate.subgroups import compare, compare_all


def scored(studies: int = 300, seed: int = 0, patients: int | None = None) -> Scored:
    """Three outputs: informative, useless, and one without a positive."""
    random = np.random.default_rng(seed)
    targets = (random.random((studies, 3)) < [0.3, 0.3, 0.0]).astype(float)
    logits = random.normal(size=(studies, 3)) + targets * [1.5, 0, 0] - 0.75
    records = tuple(
        StudyRecord(
            f"{n:016x}",
            f"p{n % (patients or studies)}",
            date(2026, 1, 5) + timedelta(days=n % 7),
            float(20 + n % 60),
            "FM"[n % 2],
            ("A", "B", "C")[n % 3],
        )
        for n in range(studies)
    )
    return Scored(("glioma", "cyst", "abscess"), records, logits, targets, expit(logits))


def test_figures_are_those_of_scikit_learn_with_an_interval_around_them() -> None:
    one = scored()
    figures = judge(one, count=60)
    glioma = figures.outputs[0]
    assert glioma.auroc is not None
    assert glioma.auroc.value == roc_auc_score(one.targets[:, 0], one.logits[:, 0])
    assert glioma.auroc.low < glioma.auroc.value < glioma.auroc.high
    called, present = one.logits[:, 0] > 0, one.targets[:, 0] == 1
    assert glioma.sensitivity == pytest.approx((called & present).sum() / present.sum())
    assert glioma.specificity == pytest.approx((~called & ~present).sum() / (~present).sum())
    assert glioma.balanced_accuracy == pytest.approx((glioma.sensitivity + glioma.specificity) / 2)


def test_an_output_without_positives_has_no_figures_and_is_named() -> None:
    figures = judge(scored(), count=20)
    assert figures.left_out == ("abscess",)
    assert figures.outputs[2].auroc is None
    assert figures.outputs[2].sensitivity is None
    assert figures.mean_auroc is not None
    known = [one.auroc.value for one in figures.outputs if one.auroc]
    assert figures.mean_auroc.value == pytest.approx(np.mean(known))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """True AUROC of two unit normals 1.5 apart: Φ(1.5 / √2) = 0.8556."""
    covered = 0
    for seed in range(25):
        one = scored(200, seed)
        alone = Scored(("glioma",), one.records, one.logits[:, :1], one.targets[:, :1])
        interval = judge(alone, count=60, seed=seed).outputs[0].auroc
        assert interval is not None
        covered += interval.low <= 0.8556 <= interval.high
    assert covered >= 20  # 24 expected; P(fewer than 20) < 1 %


def test_studies_of_one_patient_are_drawn_together() -> None:
    one = scored(100, patients=10)
    for rows in resamples(one.records, 20):
        counts = np.bincount(rows, minlength=100).reshape(10, 10)
        assert (counts == counts[0]).all()


def test_unknown_truth_is_left_out_of_the_figures() -> None:
    one = scored()
    targets = one.targets.copy()
    targets[:150, 0] = np.nan
    half = judge(Scored(one.names, one.records, one.logits, targets), count=10).outputs[0]
    assert half.auroc is not None
    assert half.auroc.value == roc_auc_score(one.targets[150:, 0], one.logits[150:, 0])
    assert half.positives + half.negatives == 150
    assert half.calibration_error is None


def test_calibration_error_is_the_planted_one() -> None:
    random = np.random.default_rng(0)
    said = np.repeat([0.25, 0.75], 20_000)[:, None]
    truth = (random.random((40_000, 1)) < said - 0.1).astype(float)
    records = tuple(StudyRecord(f"{n:016x}", str(n)) for n in range(40_000))
    found = judge(Scored(("x",), records, said - 0.5, truth, said), count=0).outputs[0]
    assert found.calibration_error == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("fault", [{"logits": np.zeros((2, 3))}, {"logits": np.full((3, 1), np.nan)}])
def test_what_cannot_be_judged_is_refused(fault: dict[str, np.ndarray]) -> None:
    records = tuple(StudyRecord(str(n), str(n)) for n in range(3))
    with pytest.raises(BadTrainingData):
        Scored(("x",), records, **{"logits": np.zeros((3, 1)), "targets": np.zeros((3, 1))} | fault)


def test_a_model_that_fails_one_subgroup_shows_a_gap_and_a_fair_one_hardly_any() -> None:
    one = scored(600)
    fair = compare(one, "sex", lambda record: record.sex, count=25)
    blind = one.logits.copy()
    women = np.array([record.sex == "F" for record in one.records])
    blind[women, 0] = np.random.default_rng(1).normal(size=women.sum())
    unfair = compare(Scored(one.names, one.records, blind, one.targets), "sex", lambda record: record.sex, count=25)
    assert fair.outputs == ("glioma", "cyst")
    assert fair.gap is not None
    assert unfair.gap is not None
    assert unfair.gap.low > 0.05
    assert fair.gap.value < unfair.gap.value
    assert [group.studies for group in unfair.subgroups] == [300, 300]


def test_subgroups_too_small_to_judge_are_listed_without_a_figure() -> None:
    one = scored(60)
    weekday = next(c for c in compare_all(one, count=5) if c.attribute == "weekday")
    assert len(weekday.subgroups) == 7
    assert all(group.auroc is None for group in weekday.subgroups)
    assert weekday.gap is None


def test_faint_findings_are_told_apart_from_plain_ones() -> None:
    random = np.random.default_rng(0)
    studies = 400
    positive = np.arange(studies) < 200
    contrast = np.where(np.arange(studies) < 100, 1.0, 8.0)
    logits = random.normal(size=studies) + np.where(positive, np.where(contrast > 5, 3, 0), 0) - 1.5
    records = tuple(StudyRecord(f"{n:016x}", str(n)) for n in range(studies))
    finding = {"diagnoses": ["glioma"], "size_mm": 0.0}
    truth = {
        record.study: json.dumps({"findings": [finding | {"contrast_to_noise": contrast[n]}] if positive[n] else []})
        for n, record in enumerate(records)
    }
    one = Scored(("glioma",), records, logits[:, None], positive[:, None].astype(float))
    faint, none, plain, _ = by_contrast(one, truth)
    assert faint.auroc is not None
    assert plain.auroc is not None
    assert faint.auroc < 0.6
    assert plain.auroc > 0.95
    assert (faint.positives, none.positives, plain.positives) == (100, 0, 100)
    assert none.auroc is None
    assert all(size.positives == 0 for size in by_size(one, truth))


def test_a_level_is_called_where_it_is_the_strongest_as_the_node_does() -> None:
    """Of three levels the strongest may have less than half of the probability, so below 0 against the rest."""
    logits = np.array([[-0.2, -0.9, -1.2]] * 6 + [[-1.0, -0.1, -2.0]] * 6)
    targets = np.repeat([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 6, axis=0)
    records = tuple(StudyRecord(f"{n:016x}", str(n)) for n in range(12))
    levels = judge(Scored(("none", "low", "high"), records, logits, targets, strongest=True), count=2)
    assert [one.sensitivity for one in levels.outputs] == [1.0, 1.0, None]
    assert [one.specificity for one in levels.outputs] == [1.0, 1.0, 1.0]
    findings = judge(Scored(("none", "low", "high"), records, logits, targets), count=2)
    assert [one.sensitivity for one in findings.outputs] == [0.0, 0.0, None]


def test_studies_without_a_report_are_not_searched_for() -> None:
    vectors = np.eye(12, dtype=np.float32)
    texts = ["" if n < 3 else f"report {n}" for n in range(12)]
    found = retrieve(vectors, np.where(np.arange(12)[:, None] < 3, 1, vectors), texts)
    assert found is not None
    assert (found.studies, found.report_of_image_top1) == (9, 1.0)


def test_retrieval_counts_hits_both_ways_and_equal_reports_once() -> None:
    vectors = np.eye(12, dtype=np.float32)
    shifted = np.roll(vectors, 1, axis=0)
    texts = [f"report {n}" for n in range(12)]
    perfect = retrieve(vectors, vectors, texts)
    assert perfect is not None
    assert (perfect.report_of_image_top1, perfect.image_of_report_top5) == (1.0, 1.0)
    wrong = retrieve(vectors, shifted, texts)
    assert wrong is not None
    assert wrong.report_of_image_top1 == 0.0
    twice = retrieve(vectors, vectors, ["same"] * 2 + texts[2:])
    assert twice is not None
    assert twice.studies == 11
    assert retrieve(vectors[:5], vectors[:5], texts[:5]) is None


def test_mean_auroc_is_none_where_nothing_can_be_judged() -> None:
    assert mean_auroc(scored().at(np.array([], np.int64))) is None
