"""Transfer heads: a number and a yes/no from embeddings that hold them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.base.cohort import StudyLabels, StudyRecord
from training.base.embeddings import Embeddings
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.base.splits import split_by_patient
from training.stages.fit import FitSettings
from training.stages.transfer import TransferSettings, train_transfer

random = np.random.default_rng(0)
NAMES = tuple(f"{n:016x}" for n in range(400))
VECTORS = random.normal(size=(400, 16)).astype(np.float32)
LABELS = {
    name: StudyLabels(value={"age_years": 50 + 15 * float(v[0]), "dementia": float(v[1] > 1)})
    for name, v in zip(NAMES, VECTORS, strict=True)
}
EMBEDDINGS = Embeddings(NAMES, VECTORS, np.zeros((400, 0), np.float32))
SPLIT = split_by_patient([StudyRecord(name, name) for name in NAMES], 0.2, 0.3)
FIT = FitSettings(LoopSettings(150, 64, device="cpu", validate_every=50), (), 2e-2)


def test_brain_age_comes_out_in_years(tmp_path: Path) -> None:
    figures = train_transfer(EMBEDDINGS, LABELS, SPLIT, tmp_path, TransferSettings("value.age_years", FIT))
    assert figures.error is not None
    assert figures.baseline is not None
    assert figures.error < figures.baseline / 3
    assert figures.r2 is not None
    assert figures.r2 > 0.8
    assert train_transfer(EMBEDDINGS, LABELS, SPLIT, tmp_path, TransferSettings("value.age_years", FIT)) == figures


def test_other_labels_embeddings_or_test_studies_are_noticed(tmp_path: Path) -> None:
    settings = TransferSettings("value.age_years", FIT)
    train_transfer(EMBEDDINGS, LABELS, SPLIT, tmp_path, settings)
    first, second = SPLIT.train[0], SPLIT.test[0]
    swapped = replace(SPLIT, train=(second, *SPLIT.train[1:]), test=(first, *SPLIT.test[1:]))
    for embeddings, labels, split, what in (
        (replace(EMBEDDINGS, study=VECTORS + 1), LABELS, SPLIT, "embeddings"),
        (EMBEDDINGS, LABELS | {first: StudyLabels(value={"age_years": 1.0})}, SPLIT, "labels"),
        (EMBEDDINGS, LABELS, swapped, "split"),
    ):
        with pytest.raises(BadTrainingData, match=f"made with {what}"):
            train_transfer(embeddings, labels, split, tmp_path, settings)


def test_a_flag_is_separated(tmp_path: Path) -> None:
    figures = train_transfer(EMBEDDINGS, LABELS, SPLIT, tmp_path, TransferSettings("flag.dementia", FIT))
    assert figures.auroc is not None
    assert figures.auroc > 0.95


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("value.weight", "no training study or no test study"),
        ("flag.age_years", "values other than 0 and 1"),
        ("weight", "expected value"),
    ],
)
def test_a_target_that_cannot_be_learned_is_named(tmp_path: Path, target: str, message: str) -> None:
    with pytest.raises(BadTrainingData, match=message):
        train_transfer(EMBEDDINGS, LABELS, SPLIT, tmp_path, TransferSettings(target, FIT))
