"""CLIP training: it learns one batch by heart, resumes, leaves the right things out, and knows equal reports.

Studies are made up (tests/support/training_cohort.py). Several processes are in tests/integration.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prima_core.bundle import expected_tensors
from support.training_cohort import CLIP, FINDINGS, TEXT, cohort, tiny, tokenized
from training.base.cohort import StudyLabels
from training.base.curve import read_curve
from training.base.errors import BadTrainingData
from training.base.splits import Split
from training.stages.clip import ClipStage, Cohort, read_study_model, read_text_tower, train_clip
from training.stages.contrastive import contrastive
from training.stages.study_model import NOTHING, Dropout, StudyModel, series_tokens, study_tokens
from training.stages.text_tower import make_text_tower

SETTINGS, LOOP = CLIP, CLIP.loop


@pytest.fixture
def studies(tmp_path: Path) -> Cohort:
    return cohort(tmp_path / "store")


@pytest.fixture
def text(tmp_path: Path, studies: Cohort) -> Path:
    make_text_tower(studies.reports.values(), tmp_path / "text", TEXT)
    return tmp_path / "text"


def test_one_batch_is_learned_by_heart(tmp_path: Path, studies: Cohort, text: Path) -> None:
    one_batch = replace(studies, split=Split(studies.split.train[:6], (), ()))
    settings = replace(SETTINGS, loop=replace(LOOP, steps=60), abnormal_extra=0, label_weight=1.0)
    figures = train_clip(one_batch, tiny(), text, tmp_path / "clip", settings)
    first, *_, last = read_curve(tmp_path / "clip/curve.csv")
    assert first["clip"] > 1.5
    assert last["clip"] < 0.05
    assert last["labels"] < 0.1 < first["labels"]
    assert last["series_labels"] < 0.1 < first["series_labels"]
    assert figures["losses"]["clip"] == last["clip"]


def test_places_of_findings_are_learned_by_heart(tmp_path: Path, studies: Cohort, text: Path) -> None:
    """Every study's first patch shows its tumour, if it has one; where studies say nothing, nothing is asked."""
    tokens = {study: studies.tokens.read(study) for study in studies.split.train[:6]}
    for study, one in tokens.items():
        share = float(studies.labels[study].diagnosis["tumour"])
        series = tuple(
            replace(each, shares=np.eye(len(each.latents), 1, dtype=np.float16) * share) for each in one.series
        )
        tokens[study] = replace(one, series=series, located=("tumour",))

    class Located(dict):  # type: ignore[type-arg]
        about: ClassVar = {"encoder": "made up"}
        read = dict.__getitem__

    located = replace(studies, tokens=Located(tokens), split=Split(studies.split.train[:6], (), ()))
    settings = replace(SETTINGS, loop=replace(LOOP, steps=80), learning_rate=1e-2, place_weight=5.0)
    train_clip(located, tiny(), text, tmp_path / "clip", settings)
    first, *_, last = read_curve(tmp_path / "clip/curve.csv")
    assert last["places"] < 0.5 * first["places"]
    nowhere = replace(located, tokens=studies.tokens)
    train_clip(nowhere, tiny(), text, tmp_path / "nowhere", replace(settings, loop=replace(LOOP, steps=2)))
    assert all(row["places"] == 0 for row in read_curve(tmp_path / "nowhere/curve.csv"))


def test_unlabelled_studies_do_not_weaken_the_labels_of_others(studies: Cohort, text: Path) -> None:
    settings = replace(SETTINGS, label_weight=1.0)
    known = studies.split.train[0]
    alone = replace(studies, labels={known: studies.labels[known]})
    stage = ClipStage(alone, tiny(), text, settings, None)
    one = next(item for step in range(9) for item in stage.draw(step, range(6)) if item.study == 0)
    others = [item for item in stage.draw(0, range(6)) if item.study != 0][:2]
    expected = stage.losses(stage.outputs([one, one]))["labels"].item()
    found = stage.losses(stage.outputs([one, *others]))["labels"].item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_every_level_of_the_priority_is_a_label(studies: Cohort, text: Path) -> None:
    levels = ("high", "low", None)
    labels = {
        study: replace(studies.labels[study], priority=levels[n % 3]) for n, study in enumerate(studies.split.train)
    }
    stage = ClipStage(replace(studies, labels=labels), tiny(), text, replace(SETTINGS, label_weight=1.0), None)
    rows = {item.study: item.labels for item in stage.draw(0, range(6)) + stage.draw(1, range(6))}
    expected = {0: (1.0, 0.0), 1: (0.0, 1.0)}
    for number, row in rows.items():
        assert len(row) == 3, "tumour, high, low"
        assert row[1:] == expected[number % 3] if number % 3 < 2 else np.isnan(row[1:]).all()


def test_studies_never_seen_find_reports_like_theirs(tmp_path: Path, studies: Cohort, text: Path) -> None:
    settings = replace(SETTINGS, loop=replace(LOOP, steps=60, batch=12, validate_every=20))
    figures = train_clip(studies, tiny(), text, tmp_path / "clip", settings)
    chance = np.log(6)
    assert figures["best"] < 0.7 * chance


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = ClipStage.draw

    def until(stage: ClipStage, now: int, positions: range) -> list[object]:
        if now == step:
            raise KeyboardInterrupt
        return list(draw(stage, now, positions))

    monkeypatch.setattr(ClipStage, "draw", until)


@pytest.mark.parametrize("step", [1, 5])
def test_a_killed_run_ends_with_the_same_files(
    tmp_path: Path, studies: Cohort, text: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, loop=replace(LOOP, validate_every=3), label_weight=0.5)
    train_clip(studies, tiny(), text, tmp_path / "whole", settings)
    with monkeypatch.context() as patched:
        killed_at(step, patched)
        with pytest.raises(KeyboardInterrupt):
            train_clip(studies, tiny(), text, tmp_path / "killed", settings)
    assert not (tmp_path / "killed/done.json").exists()
    with pytest.raises(BadTrainingData, match="not ended"):
        read_study_model(tmp_path / "killed")
    train_clip(studies, tiny(), text, tmp_path / "killed", settings)
    whole, killed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "killed")
    )
    assert whole == killed
    assert "checkpoint.safetensors" not in whole


def test_the_files_are_what_a_bundle_and_zero_shot_take(tmp_path: Path, studies: Cohort, text: Path) -> None:
    train_clip(studies, tiny(), text, tmp_path / "clip", SETTINGS)
    architecture, state = read_study_model(tmp_path / "clip")
    assert architecture == tiny()
    expected = {n: s for n, s in expected_tensors(architecture).items() if not n.startswith(("tokenizer.", "heads."))}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected
    tower = read_text_tower(tmp_path / "clip", text)
    assert tower(["There is tumour."]).shape == (1, architecture.study_vit.output)
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_other_labels_or_reports_are_not_mixed_into_a_run(tmp_path: Path, studies: Cohort, text: Path) -> None:
    train_clip(studies, tiny(), text, tmp_path / "clip", SETTINGS)
    study = studies.split.train[0]
    changed = replace(studies, labels={**studies.labels, study: StudyLabels({"tumour": True})})
    with pytest.raises(BadTrainingData, match="labels"):
        train_clip(changed, tiny(), text, tmp_path / "clip", SETTINGS)


def test_small_pieces_see_every_negative(tmp_path: Path, studies: Cohort, text: Path) -> None:
    for name, micro in (("whole", 0), ("pieces", 2)):
        settings = replace(SETTINGS, loop=replace(LOOP, steps=4, micro_batch=micro), label_weight=0.5)
        train_clip(studies, tiny(), text, tmp_path / name, settings)
    whole, pieces = (read_curve(tmp_path / name / "curve.csv") for name in ("whole", "pieces"))
    for one, other in zip(whole, pieces, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_equal_reports_are_no_negatives_of_each_other() -> None:
    vectors = torch.eye(4)
    keys = torch.tensor([1, 2, 3, 4])
    apart = contrastive(vectors, vectors.roll(1, 0), keys, 10.0)
    swapped = contrastive(vectors[[1, 0, 2, 3]], vectors, torch.tensor([7, 7, 3, 4]), 10.0)
    assert apart > 5
    assert swapped == pytest.approx(np.log1p(2) / 2, rel=1e-3)  # two rows of three equal cosines, two that are right
    assert contrastive(vectors, vectors.roll(1, 0), torch.zeros(4), 10.0) == 0


def test_reports_in_another_order_count_as_equal(studies: Cohort, text: Path) -> None:
    stage = ClipStage(studies, tiny(), text, SETTINGS, None)
    items = [item for step in range(80) for item in stage.draw(step, range(6))]
    texts, keys = {item.text for item in items}, {item.report for item in items}
    assert len(keys) == len(FINDINGS)
    assert len(texts) == 2 * len(FINDINGS)


def test_abnormal_studies_come_three_extra_times(studies: Cohort, text: Path) -> None:
    stage = ClipStage(studies, tiny(), text, SETTINGS, None)
    # 12 training studies, two of them with a tumour: 18 draws a round, 3 batches of 6.
    seen = Counter(item.study for step in range(30) for item in stage.draw(step, range(6)))
    assert [seen[n] for n in range(12)] == [40 if n % 6 == 1 else 10 for n in range(12)]


def test_what_is_dropped_follows_the_shares() -> None:
    draw = np.random.default_rng(0)
    whole = tokenized(1)
    drawn = [study_tokens(whole, Dropout(tokens=0.3, series=0.2, names=0.1), draw) for _ in range(2000)]
    series = [one for study in drawn for one in study.series]
    assert len(series) / (2000 * 3) == pytest.approx(0.8 + 0.008 / 3, abs=0.02)
    assert np.mean([one.name == "unk" for one in series]) == pytest.approx(0.1, abs=0.02)
    assert {len(one.coordinates) for one in series} == {8}  # 70 % of 12 tokens, to the next multiple of 8
    everything = study_tokens(whole, NOTHING, draw)
    for before, after in zip(whole.series, everything.series, strict=True):
        np.testing.assert_array_equal(after.latents, before.latents[before.rows])
        np.testing.assert_array_equal(after.coordinates, before.coordinates)
        assert (after.name, after.thin_axis) == (before.name, before.thin_axis)
    few = study_tokens(whole, replace(NOTHING, most_tokens=5), draw)
    assert {len(one.coordinates) for one in few.series} == {5}


@pytest.mark.parametrize(("tokens", "kept"), [(1, 1), (3, 3), (12, 8), (100, 96), (400, 384)])
def test_a_short_series_keeps_its_tokens(tokens: int, kept: int) -> None:
    one = tokenized(1).series[0]
    series = replace(one, token_ids=np.zeros(tokens, np.int64), coordinates=np.zeros((tokens, 3), np.int64))
    assert len(series_tokens(series, Dropout(), np.random.default_rng(0)).coordinates) == kept


def test_series_names_that_are_not_done_are_refused(tmp_path: Path, studies: Cohort, text: Path) -> None:
    (tmp_path / "names").mkdir()
    with pytest.raises(BadTrainingData, match="names: this stage has not ended"):
        train_clip(studies, tiny(), text, tmp_path / "clip", SETTINGS, tmp_path / "names")


def test_the_trained_tower_is_read_with_its_own_vocabulary_alone(tmp_path: Path, studies: Cohort, text: Path) -> None:
    train_clip(studies, tiny(), text, tmp_path / "clip", replace(SETTINGS, most_report_tokens=7))
    tower = read_text_tower(tmp_path / "clip", text)
    seen: list[torch.Tensor] = []
    tower.model.register_forward_pre_hook(lambda _m, _a, named: seen.append(named["input_ids"]), with_kwargs=True)
    tower(["tumour " * 100])
    assert seen[0].shape == (1, 7), "reports are cut as in training"
    make_text_tower(studies.reports.values(), tmp_path / "other", replace(TEXT, seed=1))
    with pytest.raises(BadTrainingData, match="not made from"):
        read_text_tower(tmp_path / "clip", tmp_path / "other")


def test_a_tokens_latents_and_place_stay_together() -> None:
    whole = tokenized(1)
    place_of = {
        (one.thin_axis, row.tobytes()): one.latents[n].tobytes()
        for one in whole.series
        for row, n in zip(one.coordinates, one.rows, strict=True)
    }
    for one in study_tokens(whole, Dropout(tokens=0.3), np.random.default_rng(1)).series:
        for row, latents in zip(one.coordinates, one.latents, strict=True):
            assert place_of[one.thin_axis, row.tobytes()] == latents.tobytes()


def test_nothing_is_left_of_a_study_only_when_nothing_was_there() -> None:
    all_of_it = Dropout(tokens=1.0, series=1.0)
    study = study_tokens(tokenized(1), all_of_it, np.random.default_rng(0))
    assert [len(one.coordinates) for one in study.series] == [1]


def test_a_studys_vector_does_not_depend_on_its_company() -> None:
    torch.manual_seed(0)
    model = StudyModel(tiny()).eval()
    draw = np.random.default_rng(0)
    studies = [study_tokens(tokenized(number), NOTHING, draw) for number in range(4)]
    with torch.inference_mode():
        together = model(studies)[1]
        for n, study in enumerate(studies):
            torch.testing.assert_close(model([study])[1][0], together[n], rtol=1e-4, atol=1e-5)


def test_every_weight_of_the_study_model_learns(tmp_path: Path, studies: Cohort, text: Path) -> None:
    train_clip(studies, tiny(), text, tmp_path / "clip", replace(SETTINGS, loop=replace(LOOP, steps=3)))
    stage = ClipStage(studies, tiny(), text, SETTINGS, None)
    before, after = stage.module.image.state_dict(), load_file(tmp_path / "clip/study_model.safetensors")
    assert [name for name, tensor in before.items() if torch.equal(tensor, after[name])] == []


def test_studies_without_a_report_are_left_out(studies: Cohort, text: Path) -> None:
    few = replace(studies, reports=dict(list(studies.reports.items())[:1]))
    with pytest.raises(BadTrainingData, match="at least two"):
        ClipStage(few, tiny(), text, SETTINGS, None)
