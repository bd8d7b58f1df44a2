"""Explanations: a head that reads one patch is traced to that patch; what is removed is gone; the same seed agrees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prima_core.base.attention import ClassTokenPooling
from prima_core.base.config import HeadShape
from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.bundle import build_model, load_bundle
from prima_core.explanation import Attribution, Explainer, Question, agreement, linear_fit, random_masks
from prima_core.prima import Prima
from prima_core.random_weights import demo, write_random_bundle

PLANTED = Question("diagnosis", "planted")
PATCHES = 24


def study() -> PreparedStudy:
    """Two series of 24 and 5 patches; the first lists its patch 3 twice."""
    draw = np.random.default_rng(0)

    def series(number: int, count: int, ids: list[int]) -> PreparedSeries:
        grid = np.stack(np.unravel_index(np.array(ids), (4, 4, 4)), axis=1) * np.array([4, 32, 32])
        patches = draw.random((count, 4, 32, 32), np.float32)
        return PreparedSeries(f"1.{number}", f"T{number}", patches, np.array(ids), grid, 0, 64, ())

    first = series(1, PATCHES, [*range(PATCHES), 3])
    return PreparedStudy("1", "MR head", (first, series(2, 5, list(range(5)))))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Prima:
    """One diagnosis whose head is a single linear layer."""
    architecture = replace(demo(), heads=(HeadShape("diagnosis", (256,), ("other", "planted")), *demo().heads[1:]))
    folder: Path = tmp_path_factory.mktemp("bundle") / "planted"
    write_random_bundle(folder, architecture)
    return build_model(load_bundle(folder), "cpu", "fp32")


GAIN, STEADY = 10.0, 10.0


@torch.no_grad()
def plant(model: Prima, series: int, patch: int) -> None:
    """Have the head read one token: whether this patch of this series is there, and nothing else.

    Attention is even everywhere, so a class token gathers the mean of what tokens show in one direction. In the
    sequence ViT this is the direction in which only the planted token differs from zero; further on it is the first
    axis. The second axis holds a constant, by which the norms can tell a small value from a large one.
    """
    explainer = Explainer(model, study())
    rows = torch.cat([explainer._name_SD, *explainer._tokens])
    normed = torch.nn.functional.layer_norm(rows, rows.shape[1:])
    start = len(explainer._name_SD) + sum(map(len, explainer._tokens[:series])) + patch
    others = [row for row in range(len(rows)) if not torch.equal(rows[row], rows[start])]
    _gather(model.sequence_vit.pooling, torch.linalg.pinv(normed[[start, *others]])[:, 0])
    model.sequence_vit.output.weight.zero_()
    model.sequence_vit.output.weight[0, 0] = 1
    model.sequence_vit.output.bias.zero_()
    model.sequence_vit.output.bias[1] = STEADY
    first = torch.zeros(model.study_vit.pooling.class_tokens.shape[1])
    first[0] = 1
    _gather(model.study_vit.pooling, first)
    layer = model.heads.mlps[0].layers[0]
    layer.weight.zero_()
    layer.weight[1, 0] = 1


def _gather(pooling: ClassTokenPooling, direction: torch.Tensor) -> None:
    """The first block adds what normed rows show in a direction to the first axis; the others do nothing."""
    for norm in (one for one in pooling.modules() if isinstance(one, torch.nn.LayerNorm)):
        norm.weight.fill_(1)
        norm.bias.zero_()
    for number, block in enumerate(pooling.transformer.blocks):
        for linear in (block.attention.out, block.feed_forward.down):
            for parameter in linear.parameters():
                parameter.zero_()
        block.attention.qkv.weight.zero_()
        if number == 0:
            values = block.attention.qkv.weight[-len(block.attention.qkv.weight) // 3 :]
            values[0] = direction * (GAIN if isinstance(block.attention.out, torch.nn.Identity) else 1)
            if not isinstance(block.attention.out, torch.nn.Identity):
                block.attention.out.weight[0, 0] = GAIN
    pooling.class_tokens.zero_()
    pooling.class_tokens[:, 1] = STEADY


@pytest.mark.parametrize(("series", "patch"), [(0, 0), (0, 3), (0, 17), (1, 2)])
def test_the_patch_that_the_head_reads_comes_first(model: Prima, series: int, patch: int) -> None:
    plant(model, series, patch)
    explainer = Explainer(model, study())
    [found] = explainer.lime(series, [PLANTED], 256)
    assert found.first(1) == [patch]
    assert found.value_U[patch] > 5 * np.abs(np.delete(found.value_U, patch)).max()
    assert found.fit is not None
    assert found.fit > 0.8
    [slope] = explainer.gradient(series, [PLANTED])
    assert slope.first(1) == [patch]
    shares_S = explainer.series_shares([PLANTED])[:, 0]
    assert shares_S.argmax() == series
    assert shares_S[series] > 0


def test_the_logit_of_the_whole_is_the_models_own(model: Prima) -> None:
    explainer = Explainer(model, study())
    said = model.predict_one(study()).diagnosis["planted"]
    assert explainer.lime(0, [PLANTED], 8)[0].logit == pytest.approx(said, abs=1e-5)
    assert explainer.gradient(0, [PLANTED])[0].logit == pytest.approx(said, abs=1e-5)


def test_a_patch_left_out_is_gone(model: Prima) -> None:
    whole = study()
    mask = np.ones((1, PATCHES), np.bool_)
    mask[0, 3] = False
    [[found]] = Explainer(model, whole).logits(0, [PLANTED], mask)
    first = whole.series[0]
    left = first.token_ids != 3
    less = replace(
        first,
        patches=np.delete(first.patches, 3, axis=0),
        token_ids=first.token_ids[left],
        coordinates=first.coordinates[left],
    )
    assert found == pytest.approx(
        model.predict_one(replace(whole, series=(less, whole.series[1]))).diagnosis["planted"], abs=1e-5
    )


def test_the_same_seed_gives_the_same_answer(model: Prima) -> None:
    explainer = Explainer(model, study())
    first, again, other = (explainer.lime(0, [PLANTED], 64, seed)[0].value_U for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_chunks_change_nothing(model: Prima, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(model, study())
    mask = random_masks(PATCHES, 30, np.random.default_rng(0))
    whole = explainer.logits(0, [PLANTED], mask)
    monkeypatch.setattr("prima_core.explanation.TOKENS_AT_ONCE", 40)
    np.testing.assert_allclose(explainer.logits(0, [PLANTED], mask), whole, atol=1e-5)


def test_masks_keep_half_and_never_nothing() -> None:
    masks = random_masks(3, 400, np.random.default_rng(0))
    assert masks[0].all()
    assert masks.any(axis=1).all()
    assert 0.4 < random_masks(100, 200, np.random.default_rng(0))[1:].mean() < 0.6


def test_the_fit_finds_a_linear_answer() -> None:
    draw = np.random.default_rng(0)
    masks, truth = random_masks(20, 400, draw), draw.standard_normal(20)
    slope, fit = linear_fit(masks, masks @ truth + 5)
    assert np.corrcoef(slope, truth)[0, 1] > 0.99
    assert fit > 0.9
    assert linear_fit(masks, np.zeros(400))[1] == 1.0


def test_a_question_without_an_output_is_refused(model: Prima) -> None:
    with pytest.raises(ValueError, match="no output 'tumour'"):
        Explainer(model, study()).lime(0, [Question("diagnosis", "tumour")], 4)


def test_one_pass_answers_all_questions(model: Prima) -> None:
    explainer, other = Explainer(model, study()), Question("priority", "high")
    both = explainer.lime(0, [PLANTED, other], 32)
    for found, question in zip(both, (PLANTED, other), strict=True):
        [alone] = explainer.lime(0, [question], 32)
        np.testing.assert_allclose(found.value_U, alone.value_U, atol=1e-6)


def test_a_study_without_one_series_answers_as_if_it_never_had_it(model: Prima) -> None:
    whole = study()
    shares = Explainer(model, whole).series_shares([PLANTED])
    said = [
        model.predict_one(replace(whole, series=part)).diagnosis["planted"]
        for part in (whole.series, whole.series[1:], whole.series[:1])
    ]
    np.testing.assert_allclose(shares[:, 0], [said[0] - said[1], said[0] - said[2]], atol=1e-5)
    alone = replace(whole, series=whole.series[:1])
    assert Explainer(model, alone).series_shares([PLANTED]).tolist() == [[0.0]]


def test_agreement_is_that_of_the_ranks() -> None:
    def of(*values: float) -> Attribution:
        return Attribution(np.array(values), 0.0)

    assert agreement(of(1, 2, 3), of(10, 20, 300)) == pytest.approx(1)
    assert agreement(of(1, 2, 3), of(3, 2, 1)) == pytest.approx(-1)
    assert agreement(of(1, 2, 3), of(5, 5, 5)) == 0
