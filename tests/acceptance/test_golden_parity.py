"""From DICOM files to logits on the golden studies: every tensor of the reference, in one pass as a node runs it.

Covers reading, geometry, patches, selection, names, tokenizer, both ViTs and heads together, in fp32. Does not cover
the released widths (their weights are not here) nor bf16's quality on trained weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.bundle import build_model
from prima_core.names import name_codes
from prima_core.prepare import prepare_study
from prima_core.prima import Prima
from support.golden import STUDIES, import_golden

STAGE_BAR, LOGIT_BAR = 1e-4, 1e-5
FOLDERS = {"GOLD0001": "prima_golden/GOLD0001.study", "BRAINIX": "brainix"}


@pytest.fixture(scope="module")
def model(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prima:
    return build_model(import_golden(shared_data, tmp_path_factory.mktemp("golden") / "bundle"), "cpu", "fp32")


@pytest.fixture(scope="module", params=STUDIES)
def case(request: pytest.FixtureRequest, shared_data: Path) -> tuple[PreparedStudy, dict[str, np.ndarray]]:
    files = sorted(path for path in (shared_data / FOLDERS[request.param]).rglob("*") if path.is_file())
    tensors = load_file(shared_data / "prima_golden" / f"{request.param}.safetensors")
    return prepare_study(files), tensors


def golden_number(series: PreparedSeries, tensors: dict[str, np.ndarray]) -> int:
    """The golden series with this name; the node orders series by their numbers, the reference by folder."""
    codes = name_codes(series.name)
    matches = [
        n
        for n in range(3)
        if (expected := tensors.get(f"series{n}.name_codes")) is not None
        and np.array_equal(expected[: len(codes)], codes)
        and not expected[len(codes) :].any()
    ]
    assert len(matches) == 1, "no golden series of this name"
    return matches[0]


def test_every_stage_from_dicom(model: Prima, case: tuple[PreparedStudy, dict[str, np.ndarray]]) -> None:
    study, tensors = case
    numbers = [golden_number(series, tensors) for series in study.series]
    assert sorted(numbers) == list(range(len([key for key in tensors if key.endswith(".embedding")])))
    latents = model.latents([study])
    tokens = model.vit_inputs([study], latents)
    embeddings = model.series_embeddings([study], latents)
    for n, series, patch_latents, token, embedding in zip(
        numbers, study.series, latents, tokens, embeddings, strict=True
    ):
        np.testing.assert_array_equal(series.token_ids, tensors[f"series{n}.kept_token_ids"])
        np.testing.assert_array_equal(series.coordinates, tensors[f"series{n}.kept_token_coords"])
        rows = np.unique(series.token_ids, return_inverse=True)[1]
        np.testing.assert_allclose(patch_latents[rows], tensors[f"series{n}.latents_kept"], rtol=0, atol=STAGE_BAR)
        np.testing.assert_allclose(token, tensors[f"series{n}.vit_input"], rtol=0, atol=STAGE_BAR)
        np.testing.assert_allclose(embedding, tensors[f"series{n}.embedding"], rtol=0, atol=STAGE_BAR)


def test_prediction_from_dicom(model: Prima, case: tuple[PreparedStudy, dict[str, np.ndarray]]) -> None:
    study, tensors = case
    prediction = model.predict_one(study)
    np.testing.assert_array_equal(name_codes(study.description), tensors["study_description_codes"])
    np.testing.assert_allclose(prediction.study_embedding, tensors["study_embedding"][0], rtol=0, atol=STAGE_BAR)
    np.testing.assert_allclose(prediction.clip_image_vector, tensors["clip_image_vector"][0], rtol=0, atol=STAGE_BAR)
    for task in ("diagnosis", "referral", "priority"):
        expected = {key.split(".")[1]: float(v[0]) for key, v in tensors.items() if key.startswith(f"{task}.")}
        assert getattr(prediction, task) == pytest.approx(expected, abs=LOGIT_BAR, rel=0)
