"""The model on a GPU gives what it gives on the CPU, whose results the golden tensors hold.

Small and released widths of seeded random weights. Does not cover speed (tests/benchmarks/gpu_speed.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from prima_core.base.types import PreparedSeries, PreparedStudy, StudyPrediction
from prima_core.bundle import Bundle, build_model
from prima_core.explanation import Explainer, Question
from prima_core.prima import Prima
from prima_core.random_weights import demo, released, write_random_bundle
from prima_core.volume_tokenizer import PatchSet

SERIES = ((11, 0), (30, 1), (9, 2))  # patches and thin axis
QUESTION = Question("diagnosis", "tumor_adult_meningioma")


@pytest.fixture(scope="module", params=["small", "released"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    shape = demo() if request.param == "small" else released()
    return write_random_bundle(tmp_path_factory.mktemp("model") / "bundle", shape)


@pytest.fixture(scope="module")
def on_cpu(bundle: Bundle) -> Prima:
    return build_model(bundle, "cpu", "fp32")


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """The GPU gives this process so many bytes more than it holds already."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def study(seed: int = 0) -> PreparedStudy:
    draw = np.random.default_rng(seed)

    def series(count: int, axis: int) -> PreparedSeries:
        ids = np.arange(count)
        return PreparedSeries(
            series_instance_uid=f"1.{seed}.{axis}",
            name=f"AX T{axis}",
            patches=draw.random((count, *(4 if a == axis else 32 for a in range(3))), np.float32),
            token_ids=ids,
            coordinates=np.stack(np.unravel_index(ids, (8, 8, 64)), axis=1) * 32,
            thin_axis=axis,
            tokens_total=count,
            sop_instance_uids=(),
        )

    return PreparedStudy(f"1.{seed}", "MR head", tuple(series(*one) for one in SERIES))


def logits(prediction: StudyPrediction) -> npt.NDArray[np.float64]:
    return np.array([*prediction.diagnosis.values(), *prediction.referral.values(), *prediction.priority.values()])


def cosine(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_fp32_is_that_of_the_cpu(bundle: Bundle, on_cpu: Prima) -> None:
    """No TF32: it would move logits by some 1e-3."""
    ours, theirs = build_model(bundle, "cuda", "fp32").predict_one(study()), on_cpu.predict_one(study())
    np.testing.assert_allclose(logits(ours), logits(theirs), rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.study_embedding, theirs.study_embedding, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_short_numbers_change_little(bundle: Bundle, on_cpu: Prima, precision: str) -> None:
    ours, theirs = build_model(bundle, "cuda", precision).predict_one(study()), on_cpu.predict_one(study())
    assert ours.precision == precision
    assert cosine(ours.study_embedding, theirs.study_embedding) > 0.999
    assert cosine(ours.clip_image_vector, theirs.clip_image_vector) > 0.999


def test_a_gpu_takes_bf16_where_it_may_choose(bundle: Bundle) -> None:
    runtime = build_model(bundle, "auto", "auto").runtime
    assert (runtime.device.type, runtime.precision) == ("cuda", "bf16")


def test_studies_in_company_are_what_they_are_alone(bundle: Bundle) -> None:
    """Copies run beside the computation: what is copied next must not overwrite what is still read."""
    model, studies = build_model(bundle, "cuda", "fp32"), [study(seed) for seed in range(6)]
    for alone, together in zip(map(model.predict_one, studies), model.predict(studies), strict=True):
        assert isinstance(together, StudyPrediction)
        np.testing.assert_allclose(logits(together), logits(alone), rtol=0, atol=1e-4)


def test_too_little_memory_means_smaller_chunks(tmp_path: Path) -> None:
    """Of released width, where 512 patches at once need gigabytes."""
    tokenizer = build_model(write_random_bundle(tmp_path / "bundle", released()), "cuda", "fp32").tokenizer
    patches = PatchSet(np.random.default_rng(0).random((512, 4, 32, 32), np.float32), 0)
    sizes: list[int] = []
    forward = tokenizer.forward

    def counted(patches_TZYX: torch.Tensor, thin_axis: int) -> torch.Tensor:
        latents = forward(patches_TZYX, thin_axis)
        sizes.append(len(patches_TZYX))
        return latents

    tokenizer.forward = counted  # type: ignore[method-assign]
    with torch.inference_mode(), at_most(768 << 20):
        (cramped,) = tokenizer.encode([patches], tokens_per_chunk=512)
        (small,) = tokenizer.encode([patches], tokens_per_chunk=8)
    assert max(sizes[: -512 // 8]) < 512
    torch.testing.assert_close(cramped, small, rtol=0, atol=1e-4)


def test_explanations_are_those_of_the_cpu(bundle: Bundle, on_cpu: Prima) -> None:
    ours, theirs = (Explainer(model, study()) for model in (build_model(bundle, "cuda", "fp32"), on_cpu))
    np.testing.assert_allclose(ours.series_shares([QUESTION]), theirs.series_shares([QUESTION]), rtol=0, atol=1e-4)
    for how in ("gradient", "lime"):
        mine, other = (getattr(explainer, how)(1, [QUESTION])[0] for explainer in (ours, theirs))
        np.testing.assert_allclose(mine.value_U, other.value_U, rtol=0, atol=1e-4)
