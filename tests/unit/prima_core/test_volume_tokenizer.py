"""The tokenizer against MONAI's encoder as it is: released widths in every orientation, the golden tokens, chunks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prima_core.base.checkpoint import TorchArchive
from prima_core.base.device import Runtime, has_int8, resolve
from prima_core.base.winograd import WinogradConv3d
from prima_core.bundle import Bundle, build_model
from prima_core.import_prima import tokenizer_tensors
from prima_core.random_weights import _random_tensor, demo, released
from prima_core.volume_tokenizer import PatchSet, VolumeTokenizer


def tokenizer(widths: str) -> VolumeTokenizer:
    shape = (released() if widths == "released" else demo()).tokenizer
    made = VolumeTokenizer(shape).eval().requires_grad_(False)
    for name, tensor in made.state_dict().items():
        tensor.copy_(torch.from_numpy(_random_tensor(name, tuple(tensor.shape), seed=0)))
    return made


def patches(count: int, axis: int) -> np.ndarray:
    shape = [4 if n == axis else 32 for n in range(3)]
    return np.random.default_rng(axis).random((count, *shape), np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_released_widths_equal_the_plain_encoder(axis: int) -> None:
    made, some = tokenizer("released"), patches(2, axis)
    doubled = torch.from_numpy(np.repeat(some, 2, axis=1 + axis))[:, None]
    with torch.inference_mode():
        exact = made.encoder(doubled)
        made.place(resolve("cpu", "fp32"))
        (fast,) = made.encode([PatchSet(some, axis)])
        rounded = tokenizer("released")
        rounded.place(resolve("cpu", "bf16"))
        (bf16,) = rounded.encode([PatchSet(some, axis)])
    assert fast.shape == exact.shape
    assert float((fast - exact).abs().max()) < 1e-4
    assert bf16.dtype == torch.float32
    assert float((bf16 - exact).norm() / exact.norm()) < 0.02
    if has_int8():
        coarse = tokenizer("released")
        coarse.place(resolve("cpu", "int8"))
        with torch.inference_mode():
            (int8,) = coarse.encode([PatchSet(some, axis)])
        assert float((int8 - exact).norm() / exact.norm()) < 0.03


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_precision_as_a_gpu_has_it(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WinogradConv3d, "suits", lambda _: False)  # as on a GPU
    exact, rounded, some = tokenizer("demo"), tokenizer("demo"), PatchSet(patches(2, axis), axis)
    exact.place(Runtime(torch.device("cpu"), "fp32"))
    rounded.place(Runtime(torch.device("cpu"), "fp16"))
    with torch.inference_mode():
        (fp32,), (fp16,) = exact.encode([some]), rounded.encode([some])
    assert fp16.dtype == torch.float32
    assert float((fp16 - fp32).norm() / fp32.norm()) < 0.002


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_chunks_and_company_do_not_matter(chunk: int) -> None:
    made = tokenizer("demo")
    made.place(resolve("cpu", "fp32"))
    sets = [PatchSet(patches(n, axis), axis) for n, axis in ((3, 1), (2, 0), (4, 1), (1, 2))]
    with torch.inference_mode():
        together = made.encode(sets, tokens_per_chunk=chunk)
        for one, latents in zip(sets, together, strict=True):
            torch.testing.assert_close(latents, made.encode([one])[0], rtol=0, atol=1e-5)


def test_golden_tokens(golden_bundle: Bundle, shared_data: Path) -> None:
    golden = load_file(shared_data / "prima_golden" / "vqvae_golden.safetensors")
    with torch.inference_mode():
        latents = build_model(golden_bundle, "cpu", "fp32").tokenizer.encoder(golden["tokens"])
    torch.testing.assert_close(latents, golden["latents"], rtol=0, atol=1e-4)


def test_the_released_state_dict_is_monais_vqvae(shared_data: Path) -> None:
    """Codes, quantised latents and reconstruction come from the same keys; inference uses only the encoder's."""
    from monai.networks.nets.vqvae import VQVAE

    folder = shared_data / "prima_golden"
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["vqvae_config"]
    config["channels"] = config.pop("num_channels")
    del config["ckpt_path"]
    vqvae = VQVAE(**config).eval()
    with TorchArchive(folder / "vqvae.pth") as archive:
        state = {name: torch.from_numpy(tensor.read()) for name, tensor in tokenizer_tensors(archive).items()}
    vqvae.load_state_dict(state)
    golden = load_file(folder / "vqvae_golden.safetensors")
    with torch.inference_mode():
        assert torch.equal(vqvae.index_quantize(golden["tokens"]), golden["codes"])
        quantized, _ = vqvae.quantize(golden["latents"])
        torch.testing.assert_close(quantized, golden["quantized"], rtol=0, atol=1e-5)
        torch.testing.assert_close(vqvae.decode(quantized), golden["reconstruction"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_company_changes_no_bit(precision: str) -> None:
    """What was kept of a series must be what would be computed with it."""
    made = tokenizer("demo")
    made.place(resolve("cpu", precision))
    sets = [PatchSet(patches(n, axis), axis) for n, axis in ((11, 1), (9, 0), (4, 1), (1, 2))]
    with torch.inference_mode():
        together = made.encode(sets)
        assert all(torch.equal(latents, made.encode([one])[0]) for one, latents in zip(sets, together, strict=True))


def test_too_little_memory_means_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, one = tokenizer("demo"), PatchSet(patches(7, 0), 0)
    made.place(resolve("cpu", "fp32"))
    forward = made.forward

    def cramped(patches_TZYX: torch.Tensor, thin_axis: int) -> torch.Tensor:
        if len(patches_TZYX) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(patches_TZYX, thin_axis)

    with torch.inference_mode():
        (roomy,) = made.encode([one])
        monkeypatch.setattr(made, "forward", cramped)
        (small,) = made.encode([one])
    torch.testing.assert_close(small, roomy, rtol=0, atol=1e-6)
