"""The whole evaluation of a small model: figures, subgroups, difficulty, retrieval, scaling, and the page."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.base.cohort import StudyLabels, StudyRecord
from training.base.embeddings import Embeddings
from training.base.loop import LoopSettings
from training.base.splits import split_by_patient
from training.evaluate.page import PHANTOM_WARNING, write_page
from training.evaluate.record import EvaluationSet, evaluation_record, judge_set, score
from training.evaluate.scaling import scaling_curve
from training.stages.fit import FitSettings
from training.stages.heads import HeadsSettings, train_heads
from training.stages.zero_shot import ZeroShotHead, plain_prompts, zero_shot_head

LEVELS = ("none", "low", "medium", "high")
SETTINGS = HeadsSettings(FitSettings(LoopSettings(60, 64, device="cpu", validate_every=30), (), 2e-2), levels=LEVELS)
STUDIES = 400


def zero_shot(width: int) -> ZeroShotHead:
    def encode(texts: Any) -> np.ndarray:
        return np.stack([np.eye(width, dtype=np.float32)[0] * (-1 if " no " in text else 1) for text in texts])

    return zero_shot_head({"glioma": plain_prompts(["glioma"])}, encode, 5.0)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(STUDIES, 12)).astype(np.float32)
    records = tuple(
        StudyRecord(f"{n:016x}", f"p{n}", date(2026, 1, 1) + timedelta(days=n), 30.0 + n % 50, "FM"[n % 2], "AB"[n % 2])
        for n in range(STUDIES)
    )
    ranks = np.digitize(vectors[:, 2], (-1, 0, 1))
    labels = {
        one.study: StudyLabels({"glioma": bool(v[0] > 0.5), "<i>cyst": bool(v[1] > 1)}, {}, LEVELS[rank])
        for one, v, rank in zip(records, vectors, ranks, strict=True)
    }
    truth = {
        study: json.dumps(
            {"findings": [{"diagnoses": ["glioma"], "size_mm": 15, "contrast_to_noise": 3}] * one.diagnosis["glioma"]}
        )
        for study, one in labels.items()
    }
    clip = vectors[:, :6] / np.linalg.norm(vectors[:, :6], axis=1, keepdims=True)
    embeddings = Embeddings(tuple(one.study for one in records), vectors, clip)
    split = split_by_patient(records, 0.2, 0.4)
    folder = tmp_path_factory.mktemp("heads")
    heads = train_heads(embeddings, labels, split, folder / "heads", SETTINGS)
    rows = embeddings.rows(split.test)
    given = EvaluationSet(
        tuple(records[row] for row in rows),
        Embeddings(split.test, vectors[rows], clip[rows]),
        labels,
        truth,
        clip[rows],
        [f"report {row}" for row in rows],
    )
    curve = scaling_curve(embeddings, labels, split, records, given, folder / "scaling", SETTINGS, (0.25, 1.0))
    assert score(heads, given)["priority"].logits.shape == (len(rows), 4)
    found = judge_set(heads, given, zero_shot(6), count=20)
    return evaluation_record({"unseen patients": found}, scaling=[asdict(point) for point in curve])


def test_the_record_is_json_and_says_what_the_model_can(record: dict[str, Any]) -> None:
    again = json.loads(json.dumps(record, allow_nan=False))
    found = again["sets"]["unseen patients"]
    assert again["studies"] == found["studies"] > 100
    assert again["auroc"]["glioma"] > 0.9
    assert again["mean_auroc"] == pytest.approx(np.mean(list(again["auroc"].values())))
    high = next(one for one in found["priority"]["outputs"] if one["name"] == "high")
    assert high["auroc"]["value"] > 0.9
    assert high["brier"] < 0.2
    assert found["zero_shot"]["outputs"][0]["auroc"]["value"] > 0.7
    assert found["retrieval"]["report_of_image_top1"] == 1.0
    assert [bin["positives"] > 0 for bin in found["by_contrast"]] == [False, True, False, False]


def test_the_curve_holds_growing_shares(record: dict[str, Any]) -> None:
    first, last = record["scaling"]
    assert first["studies"] < last["studies"]


def test_the_curve_compares_the_same_findings_at_every_share(tmp_path: Path) -> None:
    """A finding that only the whole training part has is left out of every point."""
    random = np.random.default_rng(1)
    studies = tuple(f"{n:016x}" for n in range(200))
    vectors = random.normal(size=(200, 4)).astype(np.float32)
    records = tuple(StudyRecord(study, study) for study in studies)
    split = split_by_patient(records, 0.2, 0.4)
    first = split_by_patient([one for one in records if one.study in set(split.train)], 0.0, 0.75, seed=1).train
    labels = {
        study: StudyLabels({"glioma": bool(v[0] > 0), "rare": bool(v[1] > 0) and study not in first})
        for study, v in zip(studies, vectors, strict=True)
    }
    embeddings = Embeddings(studies, vectors, np.zeros((200, 0), np.float32))
    rows = embeddings.rows(split.test)
    own = Embeddings(split.test, vectors[rows], embeddings.clip[rows])
    given = EvaluationSet(tuple(records[row] for row in rows), own, labels)
    settings = replace(SETTINGS, fit=replace(SETTINGS.fit, loop=replace(SETTINGS.fit.loop, steps=10)))
    points = scaling_curve(embeddings, labels, split, records, given, tmp_path, settings, (0.25, 1.0))
    assert [point.outputs for point in points] == [1, 1]
    assert points[0].studies == len(first)


def test_the_page_needs_no_network_and_escapes_names(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "report.html"
    write_page(path, record, "a & b", PHANTOM_WARNING)
    text = path.read_text("utf-8")
    assert text.count("<svg") >= 4
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)", text)
    assert "<i>cyst" not in text
    assert "a &amp; b" in text
    assert PHANTOM_WARNING in text
    assert "report of a study" in text


def test_a_page_of_a_set_with_little_known_still_opens(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", evaluation_record({"none": {"studies": 0, "patients": 0}}), "x")
    assert "0 studies of 0 patients" in (tmp_path / "page.html").read_text("utf-8")
