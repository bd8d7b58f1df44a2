"""Learning where findings lie: patches that show one are told from others, and CLIP starts from what was learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.killed_training import killed_at
from support.training_cohort import CLIP, TEXT, tiny, tokenized
from training.base.cohort import StudyLabels, StudyRecord, StudyReport
from training.base.curve import read_curve
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.base.splits import Split
from training.prepare.store import TOKENS, StoreWriter, StudyEntry, TokenizedSeries, TokenStore
from training.stages import places
from training.stages.clip import ClipStage, Cohort
from training.stages.localise import LocaliseSettings, LocaliseStage, train_localise
from training.stages.start import begin_from, read_start
from training.stages.text_tower import make_text_tower

LOOP = LoopSettings(60, 24, warmup=5, device="cpu", checkpoint_every=10)
SETTINGS = LocaliseSettings(LOOP, most_tokens=8, learning_rate=1e-2)
STUDIES = 12


def marked(series: TokenizedSeries, marks: dict[int, int]) -> TokenizedSeries:
    """Patch → which mark its latents bear, out of the two diagnoses that are located."""
    latents = np.random.default_rng(len(series.latents)).standard_normal(series.latents.shape)
    shares = np.zeros((len(latents), 2), np.float16)
    for patch, mark in marks.items():
        latents[patch] = np.sign(np.random.default_rng(mark).standard_normal(latents.shape[1:])) * 2
        shares[patch, mark] = 0.3
    return replace(series, latents=latents.astype(np.float16), shares=shares)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    """Study n has a cyst (in its patch 1) if n is even, a tumour (in patch 2) by threes, a shift by fours; the last
    two do not say where anything is."""
    with StoreWriter(tmp_path / "store", TOKENS, {"encoder": "made up"}) as writer:
        for n in range(STUDIES):
            has = {"cyst": n % 2 == 0, "shift": n % 4 == 0, "tumour": n % 3 == 0}
            marks = {1 + mark: mark for mark, name in enumerate(("cyst", "tumour")) if has[name]}
            study = tokenized(n)
            if n < STUDIES - 2:
                series = tuple(marked(one, marks) for one in study.series)
                study = replace(study, series=series, located=("cyst", "tumour"))
            writer.add(StudyEntry(StudyRecord(study.study, study.study), study, StudyLabels(has)))
    return TokenStore(tmp_path / "store")


def names(store: TokenStore) -> tuple[str, ...]:
    return tuple(record.study for record in store.records)


def stage(store: TokenStore, settings: LocaliseSettings = SETTINGS) -> LocaliseStage:
    return LocaliseStage(store, store.labels(), names(store)[: STUDIES - 2], tiny(), settings)


@pytest.mark.parametrize("muon", [0.0, 1e-2])
def test_tokens_and_series_are_learned_by_heart(tmp_path: Path, store: TokenStore, muon: float) -> None:
    settings = replace(SETTINGS, muon=muon)
    figures = train_localise(store, store.labels(), names(store), tiny(), tmp_path / "localise", settings)
    first, *_, last = read_curve(tmp_path / "localise/curve.csv")
    assert last["token"] < 0.15 * first["token"]
    assert last["series"] < 0.3 * first["series"]
    assert figures["losses"]["token"] == last["token"]
    assert train_localise(store, store.labels(), names(store), tiny(), tmp_path / "localise", settings) == figures


def test_the_matrices_have_a_decay_of_their_own(store: TokenStore) -> None:
    groups = stage(store, replace(SETTINGS, muon=1e-2, muon_decay=0.25)).optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [SETTINGS.weight_decay, 0.25]


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, store: TokenStore) -> None:
    settings = replace(SETTINGS, loop=replace(LOOP, steps=8, checkpoint_every=3))
    train_localise(store, store.labels(), names(store), tiny(), tmp_path / "whole", settings)
    with killed_at(LocaliseStage, 5):
        train_localise(store, store.labels(), names(store), tiny(), tmp_path / "killed", settings)
    train_localise(store, store.labels(), names(store), tiny(), tmp_path / "killed", settings)
    assert (tmp_path / "killed/start.safetensors").read_bytes() == (tmp_path / "whole/start.safetensors").read_bytes()


def test_clip_starts_from_it_and_it_from_another(tmp_path: Path, store: TokenStore) -> None:
    settings = replace(SETTINGS, loop=replace(LOOP, steps=2))
    train_localise(store, store.labels(), names(store), tiny(), tmp_path / "first", settings)
    reports = {study: StudyReport((f"Finding {n}.",)) for n, study in enumerate(names(store))}
    make_text_tower(reports.values(), tmp_path / "text", TEXT)
    cohort = Cohort(store, reports, store.labels(), Split(names(store), (), ()))
    clip = ClipStage(cohort, tiny(), tmp_path / "text", CLIP, tmp_path / "first")
    again = stage(store)
    begin_from(again.module, tmp_path / "first")
    for name, tensor in read_start(tmp_path / "first").items():
        assert torch.equal(clip.module.image.state_dict()[name], tensor)
        assert torch.equal(again.module.state_dict()[name], tensor)
    train_localise(store, store.labels(), names(store), tiny(), tmp_path / "second", settings, start=tmp_path / "first")
    first, second = (read_curve(tmp_path / name / "curve.csv")[0] for name in ("first", "second"))
    assert first["loss"] != second["loss"]


def test_places_are_learned_on_both_sides(store: TokenStore) -> None:
    plain, mirrored = (
        stage(store, replace(SETTINGS, names=0.0, mirrored=share)).draw(0, range(24)) for share in (0.0, 1.0)
    )
    for one, other in zip(plain, mirrored, strict=True):
        np.testing.assert_array_equal(one.shown_Tn, other.shown_Tn)
        np.testing.assert_array_equal(one.tokens.latents[..., ::-1], other.tokens.latents)
    assert any(
        (one.tokens.coordinates != other.tokens.coordinates).any() for one, other in zip(plain, mirrored, strict=True)
    )


def test_the_reason_for_a_priority_is_asked_where_it_is_located(tmp_path: Path) -> None:
    """Study n is urgent for its cyst if n is even, and because of nothing that has a place otherwise."""
    with StoreWriter(tmp_path / "store", TOKENS, {"encoder": "made up"}) as writer:
        for n in range(8):
            study, urgent = tokenized(n), n % 2 == 0
            series = tuple(marked(one, {1: 0, 2: 1} if urgent else {}) for one in study.series)
            study = replace(study, series=series, located=("cyst", "high") if urgent else ("cyst", "tumour"))
            labels = StudyLabels({"cyst": urgent, "tumour": False}, priority="high" if urgent else "low")
            writer.add(StudyEntry(StudyRecord(study.study, study.study), study, labels))
    store = TokenStore(tmp_path / "store")
    chosen = LocaliseStage(store, store.labels(), names(store), tiny(), SETTINGS)
    items = chosen.draw(0, range(48))
    assert {item.shown_Tn.shape[1] for item in items} == {3}  # cyst, tumour, high; that somebody is low has no place
    shows_it = [item.shown_Tn[:, 2].max() for item in items]
    assert set(shows_it) == {0.0, 1.0}
    assert [item.present_n[2] for item in items] == shows_it
    assert all((item.shown_Tn[:, 0] * item.shown_Tn[:, 2]).max() == 0 for item in items)


def test_what_is_asked_of_a_series(store: TokenStore) -> None:
    for item in stage(store, replace(SETTINGS, most_tokens=4)).draw(0, range(48)):
        cyst, shift, tumour = item.shown_Tn.T
        assert set(np.unique(cyst)) <= {0.0, 1.0}
        assert set(np.unique(tumour)) <= {0.0, 1.0}
        assert np.isnan(shift).all() or (shift == 0).all(), "a shift lies nowhere: unknown, or absent from the study"
        assert item.present_n.tolist() == [cyst.max(), float(np.isnan(shift).any()), tumour.max()]


def test_the_smallest_finding_is_there(tmp_path: Path) -> None:
    """One of the points that are looked at is enough."""
    study = tokenized(0)
    shares = np.zeros((len(study.series[0].latents), 1), np.float16)
    shares[0] = 1 / 256
    first = replace(study.series[0], shares=shares)
    rest = tuple(replace(one, shares=np.zeros((len(one.latents), 1), np.float16)) for one in study.series[1:])
    with StoreWriter(tmp_path / "small", TOKENS, {"encoder": "made up"}) as writer:
        content = replace(study, series=(first, *rest), located=("cyst",))
        writer.add(StudyEntry(StudyRecord(study.study, study.study), content, StudyLabels({"cyst": True})))
    small = TokenStore(tmp_path / "small")
    settings = replace(SETTINGS, most_tokens=3, focus=1.0)
    drawn = LocaliseStage(small, small.labels(), (study.study,), tiny(), settings).draw(0, range(12))
    assert {float(item.present_n[0]) for item in drawn} == {0.0, 1.0}, "the first series has it, the others have not"
    assert sum(item.present_n[0] for item in drawn) == 12 / len(study.series), "it is always drawn"


def test_findings_are_seen_more_often_than_they_occur(store: TokenStore) -> None:
    def shown(focus: float) -> float:
        drawn = stage(store, replace(SETTINGS, most_tokens=3, focus=focus)).draw(0, range(200))
        return float(np.mean([np.nan_to_num(item.shown_Tn).max(axis=1).mean() for item in drawn]))

    assert shown(1.0) > 1.3 * shown(0.0)


def test_names_are_dropped_as_often_as_asked(store: TokenStore) -> None:
    drawn = stage(store, replace(SETTINGS, names=0.25)).draw(0, range(400))
    assert 0.18 < np.mean([item.tokens.name == "unk" for item in drawn]) < 0.32


def test_without_places_there_is_nothing_to_learn(tmp_path: Path, store: TokenStore) -> None:
    unplaced = names(store)[STUDIES - 2 :]
    assert [store.located(study) for study in unplaced] == [None, None]
    with pytest.raises(BadTrainingData, match="where their findings lie"):
        train_localise(store, store.labels(), unplaced, tiny(), tmp_path / "localise", SETTINGS)


def test_another_cohort_is_another_run(tmp_path: Path, store: TokenStore) -> None:
    settings = replace(SETTINGS, loop=replace(LOOP, steps=2))
    train_localise(store, store.labels(), names(store), tiny(), tmp_path / "localise", settings)
    before = (tmp_path / "localise/start.safetensors").read_bytes()
    others = {study: StudyLabels({"cyst": True, "shift": False, "tumour": False}) for study in names(store)}
    with pytest.raises(BadTrainingData):
        train_localise(store, others, names(store), tiny(), tmp_path / "localise", settings)
    assert (tmp_path / "localise/start.safetensors").read_bytes() == before


def test_the_whole_share_counts_once(monkeypatch: pytest.MonkeyPatch, store: TokenStore) -> None:
    monkeypatch.setattr(places, "WHOLE", 0.6)
    shown = [np.nan_to_num(item.shown_Tn).max() for item in stage(store).draw(0, range(24))]
    assert max(shown) == pytest.approx(0.5, abs=1e-3), "0.3 of a patch is half of what counts as whole"
