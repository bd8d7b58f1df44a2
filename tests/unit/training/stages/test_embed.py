"""Embeddings of the store are what the node's model says of the same study.

The store keeps latents as float16. From the same halves the vectors agree to 1e-4; from the float32 latents that the
node has they may differ by 1 % of an embedding's typical value.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.prima import Prima
from support.training_cohort import tiny
from training.base.embeddings import read_embeddings, write_embeddings
from training.base.errors import BadTrainingData
from training.prepare.encode import tokenize
from training.prepare.store import TokenizedStudy
from training.stages.embed import embed_studies, load_study_model
from training.stages.study_model import NOTHING, StudyModel, initialise, study_tokens


class Shelf(dict[str, TokenizedStudy]):
    """A store in memory."""

    about: dict[str, object] = {}  # noqa: RUF012 - as TokenStore has it

    def read(self, study: str) -> TokenizedStudy:
        return self[study]


def prepared(number: int) -> PreparedStudy:
    draw = np.random.default_rng(number)
    series = []
    for axis in range(2 + number % 2):
        shape = [32, 32, 32]
        shape[axis] = 4
        patches = draw.random((6, *shape), np.float32)
        ids = np.array([0, 1, 1, 2, 3, 4, 5, 0])
        edge = np.array([4 if n == axis else 32 for n in range(3)])
        coordinates = draw.integers(0, 5, (8, 3)) * edge
        series.append(PreparedSeries(f"1.{axis}", f"series_{axis}", patches, ids, coordinates, axis, 40, ()))
    return PreparedStudy(f"{number:016x}", "MR head", tuple(series))


@pytest.fixture
def model() -> Prima:
    torch.manual_seed(0)
    whole = Prima(tiny(), {})
    initialise(whole)
    return whole.eval().requires_grad_(False)


def study_state(model: Prima) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items() if not n.startswith(("tokenizer.", "heads."))}


def test_vectors_are_those_that_the_node_computes(model: Prima) -> None:
    studies = [prepared(number) for number in range(5)]
    names = [study.study_instance_uid for study in studies]
    shelf = Shelf({name: tokenize(name, study, model.tokenizer) for name, study in zip(names, studies, strict=True)})
    embedded = embed_studies(load_study_model(tiny(), study_state(model), "cpu"), shelf, names, batch=2)
    assert embedded.studies == tuple(names)
    latents_of = model.latents
    for row, study in enumerate(studies):
        exact = model.predict_one(study)
        model.latents = lambda *a: [one.half().float() for one in latents_of(*a)]  # type: ignore[method-assign]
        halved = model.predict_one(study)
        model.latents = latents_of  # type: ignore[method-assign]
        np.testing.assert_allclose(embedded.study[row], halved.study_embedding, rtol=0, atol=1e-4)
        np.testing.assert_allclose(embedded.clip[row], halved.clip_image_vector, rtol=0, atol=1e-4)
        np.testing.assert_allclose(embedded.study[row], exact.study_embedding, rtol=0, atol=1e-2)
        np.testing.assert_allclose(embedded.clip[row], exact.clip_image_vector, rtol=0, atol=1e-2)
    assert np.abs(embedded.study[0] - embedded.study[1]).max() > 0.05


def test_the_model_that_trains_computes_what_the_node_computes(model: Prima) -> None:
    study = tokenize("a", prepared(1), model.tokenizer)
    trained = StudyModel(tiny()).eval()
    trained.load_state_dict(study_state(model))
    with torch.inference_mode():
        found = trained([study_tokens(study, NOTHING, np.random.default_rng(0))])[1].numpy()
    expected = embed_studies(load_study_model(tiny(), study_state(model), "cpu"), Shelf(a=study), ["a"])
    np.testing.assert_allclose(found, expected.study, rtol=0, atol=1e-4)


def test_embeddings_survive_the_disk(tmp_path: Path, model: Prima) -> None:
    shelf = Shelf(a=tokenize("a", prepared(1), model.tokenizer))
    found = embed_studies(load_study_model(tiny(), study_state(model), "cpu"), shelf, ["a"])
    write_embeddings(tmp_path / "e.safetensors", found)
    read = read_embeddings(tmp_path / "e.safetensors")
    assert read.studies == ("a",)
    np.testing.assert_array_equal(read.study, found.study)
    assert read.study.shape == (1, tiny().study_vit.pooled_width)


def test_weights_that_do_not_fit_are_refused(model: Prima) -> None:
    state = study_state(model)
    with pytest.raises(BadTrainingData, match="extra"):
        load_study_model(tiny(), state | {"extra": torch.ones(1)}, "cpu")
    name = next(iter(state))
    with pytest.raises(BadTrainingData, match=name):
        load_study_model(tiny(), {key: value for key, value in state.items() if key != name}, "cpu")
    wider = replace(tiny(), series_name=replace(tiny().series_name, output=161))
    with pytest.raises(BadTrainingData, match="does not fit"):
        load_study_model(wider, state | {name: torch.ones(3)}, "cpu")


def test_an_embedding_that_is_not_finite_names_its_study(model: Prima) -> None:
    study = tokenize("b", prepared(1), model.tokenizer)
    study.series[0].latents[:] = np.nan
    shelf = Shelf(a=tokenize("a", prepared(1), model.tokenizer), b=study)
    with pytest.raises(BadTrainingData, match="study b"):
        embed_studies(load_study_model(tiny(), study_state(model), "cpu"), shelf, ["a", "b"])
