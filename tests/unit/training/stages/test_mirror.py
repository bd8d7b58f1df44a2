"""The mirror image of a study is what another patient's images would have given, and its report says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from support.training_cohort import CLIP, TEXT, cohort, tiny
from training.base.cohort import StudyReport
from training.prepare.store import TokenizedSeries
from training.stages.clip import ClipStage
from training.stages.mirror import mirrored_text, mirrored_tokens
from training.stages.study_model import NOTHING, SeriesTokens, series_tokens, study_tokens
from training.stages.text_tower import make_text_tower

EDGES = {0: (4, 32, 32), 1: (32, 4, 32), 2: (32, 32, 4)}


def tokens_of(volume: npt.NDArray[np.float16], thin_axis: int) -> TokenizedSeries:
    """A volume cut into patches, each of which is its own latents."""
    edges = EDGES[thin_axis]
    grid = [range(0, size, edge) for size, edge in zip(volume.shape, edges, strict=True)]
    coordinates = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int64)
    patches = [volume[z : z + edges[0], y : y + edges[1], x : x + edges[2]] for z, y, x in coordinates]
    return TokenizedSeries("T1", np.stack(patches)[:, None], np.arange(len(patches)), coordinates, thin_axis)


def by_place(tokens: SeriesTokens) -> dict[tuple[int, ...], bytes]:
    return {
        tuple(place.tolist()): np.ascontiguousarray(one).tobytes()
        for place, one in zip(tokens.coordinates, tokens.latents, strict=True)
    }


@pytest.mark.parametrize("thin_axis", [0, 1, 2])
def test_mirrored_tokens_are_those_of_the_mirrored_volume(thin_axis: int) -> None:
    volume = np.random.default_rng(3).standard_normal((64, 64, 96)).astype(np.float16)
    series, other = tokens_of(volume, thin_axis), tokens_of(volume[:, :, ::-1], thin_axis)
    draw = np.random.default_rng(0)
    whole, expected = series_tokens(series, NOTHING, draw), series_tokens(other, NOTHING, draw)
    found = mirrored_tokens(whole, series)
    assert by_place(found) == by_place(expected)
    assert by_place(mirrored_tokens(found, series)) == by_place(whole)
    assert by_place(found) != by_place(whole)


def test_some_of_the_tokens_go_where_all_of_them_would() -> None:
    series = tokens_of(np.random.default_rng(3).standard_normal((8, 64, 96)).astype(np.float16), 0)
    whole = series_tokens(series, NOTHING, np.random.default_rng(0))
    part = replace(whole, latents=whole.latents[5:7], coordinates=whole.coordinates[5:7])
    assert by_place(mirrored_tokens(part, series)).items() <= by_place(mirrored_tokens(whole, series)).items()


@pytest.mark.parametrize(
    ("statement", "mirrored"),
    [
        ("In the left frontal lobe.", "In the right frontal lobe."),
        ("RIGHT MCA infarct; Left-sided weakness.", "LEFT MCA infarct; Right-sided weakness."),
        ("Shift to the right, leftward herniation.", "Shift to the left, rightward herniation."),
        ("A bright cleft, leftover blood, upright.", "A bright cleft, leftover blood, upright."),
    ],
)
def test_sides_are_exchanged_in_words(statement: str, mirrored: str) -> None:
    assert mirrored_text(statement) == mirrored
    assert mirrored_text(mirrored) == statement


def test_clip_sees_both_sides_in_training_and_one_in_validation(tmp_path: Path) -> None:
    studies = cohort(tmp_path / "store")
    reports = {study: StudyReport((f"Something left {study}.",)) for study in studies.reports}
    studies = replace(studies, reports=reports)
    make_text_tower(reports.values(), tmp_path / "text", TEXT)
    settings = replace(CLIP, dropout=NOTHING, abnormal_extra=0, mirrored=0.5)
    stage = ClipStage(studies, tiny(), tmp_path / "text", settings, None)
    seen = set()
    for item in stage.draw(0, range(24)):
        study = studies.tokens.read(studies.split.train[item.study])
        mirrored = "right" in item.text
        expected = study_tokens(study, NOTHING, np.random.default_rng(0), mirrored)
        assert [by_place(one) for one in item.tokens.series] == [by_place(one) for one in expected.series]
        seen.add(mirrored)
    assert seen == {True, False}
    texts: list[str] = []
    stage.module.text.register_forward_pre_hook(lambda _, given: texts.extend(given[0]))
    with torch.no_grad():
        assert stage.validate() is not None
    assert texts
    assert all("left" in text for text in texts)
