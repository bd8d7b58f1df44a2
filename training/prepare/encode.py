"""Kept patches → what a store holds: latents of an encoder, or a sample of the patches themselves."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from prima_core.base.config import TokenizerShape, to_json
from prima_core.base.types import PreparedSeries, PreparedStudy
from training.base.errors import BadTrainingData
from training.prepare.finding_map import FindingMap
from training.prepare.store import TokenizedSeries, TokenizedStudy

if TYPE_CHECKING:
    from prima_core.volume_tokenizer import VolumeTokenizer

_TOKENS_PER_CHUNK = 32  # on a CPU; small encoders, whose buffers stay in the cache, lose time on smaller ones
_SMALL = 64  # channels
_PREFIX = "tokenizer."


@dataclass(frozen=True)
class Encoder:
    """A volume tokenizer's encoder: its shape, its weights (`tokenizer.*` of a bundle) and the device it runs on."""

    shape: TokenizerShape
    weights: Path
    device: str = "cpu"

    def about(self) -> dict[str, Any]:
        """What tells two encoders apart, as JSON."""
        with self.weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"encoder": {"shape": to_json(self.shape), "sha256": digest}}

    def load(self) -> VolumeTokenizer:
        """Ready to encode in fp32. Raises BadTrainingData when the weights do not fit the shape."""
        import torch

        from prima_core.base.device import resolve
        from prima_core.volume_tokenizer import VolumeTokenizer

        tokenizer = VolumeTokenizer(self.shape)
        state = {name.removeprefix(_PREFIX): torch.from_numpy(a) for name, a in load_file(self.weights).items()}
        try:
            tokenizer.load_state_dict(state)
        except RuntimeError as error:
            raise BadTrainingData(f"{self.weights}: not the weights of such an encoder") from error
        tokenizer.eval().requires_grad_(False)
        tokenizer.place(resolve(self.device, "fp32"))
        return tokenizer

    @property
    def tokens_per_chunk(self) -> int | None:
        """Tokens that go through together; None leaves it to the tokenizer."""
        small = self.device == "cpu" and max(self.shape.channels) <= _SMALL
        return _TOKENS_PER_CHUNK if small else None


def tokenize(
    study: str,
    prepared: PreparedStudy,
    tokenizer: VolumeTokenizer,
    tokens_per_chunk: int | None = None,
    findings: FindingMap | None = None,
) -> TokenizedStudy:
    """The tokens of one study. findings: where they lie, if anybody knows."""
    from prima_core.volume_tokenizer import PatchSet

    latents = tokenizer.encode(
        [PatchSet(series.patches, series.thin_axis) for series in prepared.series], tokens_per_chunk=tokens_per_chunk
    )
    with np.errstate(over="ignore"):  # the store refuses what is not finite
        halves = [one.cpu().numpy().astype(np.float16) for one in latents]
    shares = [findings.shares(one) if findings else None for one in prepared.series]
    series = tuple(
        TokenizedSeries(one.name, half, one.token_ids, one.coordinates, one.thin_axis, share)
        for one, half, share in zip(prepared.series, halves, shares, strict=True)
    )
    return TokenizedStudy(study, prepared.description, series, findings.located if findings else None)


def sample_patches(study: str, prepared: PreparedStudy, a_series: int, seed: int) -> npt.NDArray[np.float16]:
    """(N, 4, 32, 32) at most `a_series` distinct kept patches of each series, drawn by the seed and the study alone.

    The thin axis comes first by changing places with the first axis, as in `prima_core.vit_input`.
    """
    draw = np.random.default_rng([seed, zlib.crc32(study.encode())])
    parts = [_sampled(series, a_series, draw) for series in prepared.series]
    return np.concatenate(parts)


def _sampled(series: PreparedSeries, most: int, draw: np.random.Generator) -> npt.NDArray[np.float16]:
    count = len(series.patches)
    rows = np.sort(draw.choice(count, min(most, count), replace=False))
    return series.patches[rows].swapaxes(1, 1 + series.thin_axis).astype(np.float16)
