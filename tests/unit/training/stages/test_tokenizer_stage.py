"""The tokenizer's training: it learns, resumes, uses its codebook, and its encoder is the one a bundle takes.

Covers no real images; how well those come back is a matter of the run's own figures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prima_core.base.config import TokenizerShape
from prima_core.bundle import expected_tensors
from prima_core.volume_tokenizer import VolumeTokenizer
from training.base.curve import read_curve
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.stages import tokenizer
from training.stages.architecture import small
from training.stages.tokenizer import (
    Patches,
    TokenizerSettings,
    judge,
    read_encoder,
    train_tokenizer,
    vqvae,
)

SHAPE = TokenizerShape((8,), (8,), 1, ((4, 4, 1, 0),), 2)
LOOP = LoopSettings(6, 4, device="cpu", checkpoint_every=2)
SETTINGS = TokenizerSettings(LOOP, SHAPE, codes=16, learning_rate=3e-3)


def blobs(number: int, seed: int = 0) -> Patches:
    """Smooth patches, 0…1."""
    draw = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (4, 32, 32)), indexing="ij")
    centres = draw.uniform(-0.6, 0.6, (number, 3, 1, 1, 1))
    distance = (z - centres[:, 0]) ** 2 + (y - centres[:, 1]) ** 2 + (x - centres[:, 2]) ** 2
    return np.exp(-3 * distance).astype(np.float16)


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    patches = blobs(4)
    torch.manual_seed(0)
    before = judge(vqvae(SETTINGS), patches)
    settings = replace(SETTINGS, loop=replace(LOOP, steps=100))
    after = train_tokenizer(patches, patches, tmp_path, settings)
    assert after.l1 < 0.5 * before.l1
    assert after.psnr > before.psnr + 6
    assert 0.25 < after.codes_used <= 1


@pytest.mark.parametrize("die_at", [1, 5])
def test_a_killed_run_ends_with_the_same_encoder(tmp_path: Path, die_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train_tokenizer(blobs(8), blobs(2, 1), tmp_path / "whole", SETTINGS)
    draw = tokenizer._TokenizerStage.draw
    with monkeypatch.context() as patched:
        patched.setattr(tokenizer._TokenizerStage, "draw", lambda s, step, p: 1 / (die_at - step) and draw(s, step, p))
        with pytest.raises(ZeroDivisionError):
            train_tokenizer(blobs(8), blobs(2, 1), tmp_path / "killed", SETTINGS)
    train_tokenizer(blobs(8), blobs(2, 1), tmp_path / "killed", SETTINGS)
    for name in ("encoder.safetensors", "vqvae.safetensors", "curve.csv", "done.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def test_the_encoder_has_a_bundles_names_and_gives_the_networks_latents_standardised(tmp_path: Path) -> None:
    train_tokenizer(blobs(8), blobs(2, 1), tmp_path, SETTINGS)
    state = read_encoder(tmp_path)
    core = VolumeTokenizer(SHAPE)
    core.load_state_dict({name.removeprefix("tokenizer."): tensor for name, tensor in state.items()})
    whole = vqvae(SETTINGS)
    whole.load_state_dict(tokenizer.load_file(tmp_path / "vqvae.safetensors"))
    patches = torch.from_numpy(blobs(8).astype(np.float32))
    with torch.inference_mode():
        found = core.eval()(patches, 0)
        latents = whole.eval().encode(patches.repeat_interleave(2, dim=1)[:, None])
    axes = (0, 2, 3, 4)
    standard = (latents - latents.mean(axes, keepdim=True)) / latents.std(axes, keepdim=True)
    torch.testing.assert_close(found, standard, rtol=1e-3, atol=1e-3)


def test_the_small_architecture_takes_the_stages_encoder() -> None:
    architecture = small(("a",), ("b",))
    settings = TokenizerSettings(LOOP, architecture.tokenizer, codes=4)
    shapes = {f"tokenizer.{name}": tuple(t.shape) for name, t in vqvae(settings).state_dict().items()}
    expected = {name: shape for name, shape in expected_tensors(architecture).items() if name.startswith("tokenizer.")}
    assert expected.items() <= shapes.items()


def test_small_pieces_change_neither_codebook_nor_weights(tmp_path: Path) -> None:
    for name, micro in (("whole", 0), ("pieces", 3)):
        settings = replace(SETTINGS, loop=replace(LOOP, steps=3, micro_batch=micro))
        train_tokenizer(blobs(8), blobs(2, 1), tmp_path / name, settings)
    whole, pieces = (tokenizer.load_file(tmp_path / name / "vqvae.safetensors") for name in ("whole", "pieces"))
    for name, tensor in whole.items():
        torch.testing.assert_close(pieces[name], tensor, rtol=1e-4, atol=1e-5)


def test_axes_come_in_every_order_and_one_order_a_step() -> None:
    stage = tokenizer._TokenizerStage(blobs(8), SETTINGS)
    orders = [{axes for _, axes in stage.draw(step, range(4))} for step in range(60)]
    assert all(len(one) == 1 for one in orders)
    assert set.union(*orders) == set(tokenizer.AXES)


def test_a_codes_average_is_what_it_stands_for() -> None:
    """After many steps on two latents, the codes in use are those latents, and unused codes have not flown away."""
    stage = tokenizer._TokenizerStage(blobs(8), SETTINGS)
    latents = torch.tensor([[[1.0, 2.0], [-3.0, 0.5]]]).repeat(1, 50, 1)
    with torch.no_grad():
        for step in range(50):
            stage.after_step(step, {"latents": latents})
    codes = stage.module.quantizer.quantizer.embedding.weight
    distances = torch.cdist(codes, latents[0, :2]).min(dim=1).values
    assert distances.max() < 1e-4


def test_what_was_done_is_not_done_again_and_other_settings_are_refused(tmp_path: Path) -> None:
    first = train_tokenizer(blobs(8), blobs(2, 1), tmp_path, SETTINGS)
    steps = len(read_curve(tmp_path / "curve.csv"))
    assert train_tokenizer(blobs(8), blobs(2, 1), tmp_path, SETTINGS) == first
    assert len(read_curve(tmp_path / "curve.csv")) == steps == 6
    with pytest.raises(BadTrainingData, match="codes"):
        train_tokenizer(blobs(8), blobs(2, 1), tmp_path, replace(SETTINGS, codes=32))
    with pytest.raises(BadTrainingData, match="patches"):
        train_tokenizer(blobs(8, 2), blobs(2, 1), tmp_path, SETTINGS)


def test_no_patches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingData, match="patches"):
        train_tokenizer(blobs(8), blobs(0), tmp_path, SETTINGS)
