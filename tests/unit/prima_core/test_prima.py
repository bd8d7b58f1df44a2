"""The whole model on the golden tensors, stage by stage; and what must hold for any weights: order of series, company
in a batch, repeated patches, untouched input, finite results, bf16 close to fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from prima_core.base import winograd
from prima_core.base.checkpoint import TorchArchive
from prima_core.base.errors import PrimaError
from prima_core.base.types import PreparedStudy, StudyPrediction
from prima_core.bundle import Bundle, build_model
from prima_core.prima import Prima
from prima_core.vit_input import sinusoids
from support.golden import GoldenStudy

STAGE_BAR, LOGIT_BAR = 1e-4, 1e-5


def worst(result: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    assert result.shape == expected.shape
    return float(np.abs(result - expected).max())


def rows(golden: GoldenStudy, number: int) -> npt.NDArray[np.int64]:
    return np.unique(golden.study.series[number].token_ids, return_inverse=True)[1]


def logits(prediction: StudyPrediction) -> npt.NDArray[np.float64]:
    parts = (prediction.diagnosis, prediction.referral, prediction.priority)
    return np.array([value for part in parts for value in part.values()])


def assert_same(left: StudyPrediction, right: StudyPrediction, bar: float = 1e-5) -> None:
    assert worst(left.study_embedding, right.study_embedding) < bar
    assert worst(left.clip_image_vector, right.clip_image_vector) < bar
    assert np.abs(logits(left) - logits(right)).max() < bar


def test_latents(golden_model: Prima, golden: GoldenStudy) -> None:
    for number, latents in enumerate(golden_model.latents([golden.study])):
        expected = golden.tensors[f"series{number}.latents_kept"]
        assert worst(latents.numpy()[rows(golden, number)], expected) < STAGE_BAR


def test_latents_by_winograd(golden_bundle: Bundle, golden: GoldenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 16)
    model = build_model(golden_bundle, "cpu", "fp32")
    assert any(isinstance(part, winograd.WinogradConv3d) for part in model.modules())
    for number, latents in enumerate(model.latents([golden.study])):
        expected = golden.tensors[f"series{number}.latents_kept"]
        assert worst(latents.numpy()[rows(golden, number)], expected) < STAGE_BAR


def test_vit_input(golden_model: Prima, golden: GoldenStudy) -> None:
    tokens = golden_model.vit_inputs([golden.study], golden_model.latents([golden.study]))
    for number, one in enumerate(tokens):
        assert worst(one.numpy(), golden.tensors[f"series{number}.vit_input"]) < STAGE_BAR


def test_series_embedding(golden_model: Prima, golden: GoldenStudy) -> None:
    embeddings = golden_model.series_embeddings([golden.study], golden_model.latents([golden.study]))
    for number, embedding in enumerate(embeddings):
        assert worst(embedding.numpy(), golden.tensors[f"series{number}.embedding"]) < STAGE_BAR


def test_study_embedding_clip_vector_and_logits(golden_model: Prima, golden: GoldenStudy) -> None:
    prediction = golden_model.predict_one(golden.study)
    assert worst(prediction.study_embedding, golden.tensors["study_embedding"][0]) < STAGE_BAR
    assert worst(prediction.clip_image_vector, golden.tensors["clip_image_vector"][0]) < STAGE_BAR
    for task in ("diagnosis", "referral", "priority"):
        expected = {key.split(".")[1]: float(v[0]) for key, v in golden.tensors.items() if key.startswith(f"{task}.")}
        assert getattr(prediction, task) == pytest.approx(expected, abs=LOGIT_BAR, rel=0)
    assert prediction.precision == "fp32"
    assert set(prediction.seconds) == {"tokenize", "study_model", "heads"}


def test_name_positions_are_those_of_the_checkpoint(shared_data: Path) -> None:
    with TorchArchive(shared_data / "prima_golden" / "primafullmodel.pt") as archive:
        encoder = archive.load().module("clipmodel.visual_model.studyencoder")
        table = encoder.get("p_enc").read()
    assert worst(sinusoids(torch.arange(200), 10).numpy(), table) < 1e-5


def test_order_of_series_does_not_matter(golden_model: Prima, golden: GoldenStudy) -> None:
    turned = replace(golden.study, series=golden.study.series[::-1])
    assert_same(golden_model.predict_one(golden.study), golden_model.predict_one(turned))


def test_company_in_a_batch_does_not_matter(golden_model: Prima, golden_studies: list[GoldenStudy]) -> None:
    studies = [one.study for one in golden_studies]
    short = replace(studies[0], series=studies[0].series[:1], description="")
    batch = golden_model.predict([*studies, short, studies[0]])
    for study, together in zip((*studies, short, studies[0]), batch, strict=True):
        alone = golden_model.predict_one(study)
        assert isinstance(together, StudyPrediction)
        assert together.study_instance_uid == study.study_instance_uid
        assert_same(alone, together)
        assert (alone.batch_studies, alone.batch_tokens) == (1, study.tokens_kept)
        tokens = sum(one.tokens_kept for one in (*studies, short, studies[0]))
        assert (together.batch_studies, together.batch_tokens) == (len(batch), tokens)


def test_a_repeated_token_is_encoded_once_and_counts_twice(
    golden_model: Prima, golden_studies: list[GoldenStudy]
) -> None:
    study = golden_studies[0].study
    series = study.series[0]
    repeated = replace(
        series,
        token_ids=np.append(series.token_ids, series.token_ids[3]),
        coordinates=np.concatenate((series.coordinates, series.coordinates[3:4])),
    )
    twice = replace(study, series=(repeated,))
    (latents,) = golden_model.latents([twice])
    (tokens,) = golden_model.vit_inputs([twice], [latents])
    assert len(latents) == len(series.patches)
    assert torch.equal(tokens[-1], tokens[3])


def test_input_is_not_changed(golden_model: Prima, golden_studies: list[GoldenStudy]) -> None:
    series = golden_studies[0].study.series[0]
    before = [array.copy() for array in (series.patches, series.token_ids, series.coordinates)]
    golden_model.predict([golden_studies[0].study])
    for array, copy in zip((series.patches, series.token_ids, series.coordinates), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_progress_counts_patches_up_to_all_of_them(golden_model: Prima, golden_studies: list[GoldenStudy]) -> None:
    heard: list[tuple[int, int]] = []
    golden_model.predict([one.study for one in golden_studies], lambda done, total: heard.append((done, total)))
    patches = sum(len(series.patches) for one in golden_studies for series in one.study.series)
    assert heard[-1] == (patches, patches)
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})


def test_bf16_stays_close_to_fp32(golden_bundle: Bundle, golden_model: Prima, golden: GoldenStudy) -> None:
    exact = golden_model.predict_one(golden.study)
    rounded = build_model(golden_bundle, "cpu", "bf16").predict_one(golden.study)
    norms = np.linalg.norm(exact.study_embedding) * np.linalg.norm(rounded.study_embedding)
    assert exact.study_embedding @ rounded.study_embedding / norms > 0.999
    assert rounded.precision == "bf16"
    assert not np.array_equal(exact.study_embedding, rounded.study_embedding), "bf16 was not used"


def without_patches(study: PreparedStudy) -> PreparedStudy:
    series = study.series[0]
    return replace(study, series=(replace(series, patches=series.patches[1:]), *study.series[1:]))


def with_nan(study: PreparedStudy) -> PreparedStudy:
    patches = study.series[0].patches.copy()
    patches[0, 0, 0, 0] = np.nan
    return replace(study, series=(replace(study.series[0], patches=patches), *study.series[1:]))


BROKEN: dict[str, tuple[Callable[[PreparedStudy], PreparedStudy], str]] = {
    "a voxel that is no number": (with_nan, "not finite"),
    "no series": (lambda study: replace(study, series=()), "no series"),
    "a patch too few": (without_patches, "do not fit its patches"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_study_without_a_result_takes_none_from_its_companions(
    golden_model: Prima, golden_studies: list[GoldenStudy], kind: str
) -> None:
    break_it, reason = BROKEN[kind]
    studies = [one.study for one in golden_studies]
    broken = break_it(studies[0])
    failed, *others = golden_model.predict([broken, *studies])
    assert isinstance(failed, PrimaError)
    assert reason in str(failed)
    for study, together in zip(studies, others, strict=True):
        assert isinstance(together, StudyPrediction)
        assert_same(golden_model.predict_one(study), together)
    with pytest.raises(PrimaError, match=reason):
        golden_model.predict_one(broken)


def test_what_progress_raises_ends_the_whole_batch(golden_model: Prima, golden_studies: list[GoldenStudy]) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        golden_model.predict([one.study for one in golden_studies], stop)
