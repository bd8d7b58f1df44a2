"""The volume tokenizer: patches → the VQ-VAE encoder's continuous latents (before quantisation).

The network is MONAI's VQVAE encoder. Only the patches given are encoded, in chunks of one series each, so that its
latents are the same to the last bit in any company. Convolutions run channels-last, in bf16 where
the runtime says so, and on CPUs the wide 3×3×3 ones by Winograd's algorithm (`base.winograd`) or in 8-bit integers.

Legend of the suffixes: T tokens, C latent channels, ZYX voxels or latent grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prima_core.base.config import TokenizerShape
from prima_core.base.device import Runtime
from prima_core.base.int8 import Int8Conv3d
from prima_core.base.monai import vqvae
from prima_core.base.winograd import WinogradConv3d

Progress = Callable[[int, int], None]  # tokens done, tokens in all

# On a CPU, 8 tokens of the released width share a pass over the weights (75 MB in bf16); malloc reuses their buffers.
TOKENS_PER_CHUNK = {"cpu": 8, "cuda": 128}


@dataclass(frozen=True)
class PatchSet:
    """Patches of one series: (U, z, y, x) float32 with 4 voxels on `thin_axis` and 32 on the others."""

    patches: npt.NDArray[np.float32]
    thin_axis: int


class VolumeTokenizer(nn.Module):
    """MONAI's encoder with the shape of the bundle."""

    def __init__(self, shape: TokenizerShape) -> None:
        super().__init__()
        self.encoder = vqvae().Encoder(
            spatial_dims=3,
            in_channels=1,
            out_channels=shape.latent_channels,
            channels=shape.channels,
            num_res_layers=shape.residual_layers,
            num_res_channels=shape.residual_channels,
            downsample_parameters=shape.downsample,
            dropout=0.0,
            act="RELU",
        )
        self._runtime = Runtime(torch.device("cpu"), "fp32")

    def place(self, runtime: Runtime) -> None:
        """Lay the weights out for inference on the runtime's device; the state's keys stay what they are."""
        self._runtime = runtime
        self.encoder.to(runtime.device)
        parents = [
            (parent, name, child) for parent in self.encoder.modules() for name, child in parent.named_children()
        ]
        for parent, name, child in parents:
            if not isinstance(child, nn.Conv3d):
                continue
            if runtime.device.type == "cpu" and WinogradConv3d.suits(child):
                setattr(parent, name, (Int8Conv3d if runtime.precision == "int8" else WinogradConv3d)(child))
            else:
                child.to(runtime.convolution_dtype)
                child.weight.data = child.weight.data.contiguous(memory_format=torch.channels_last_3d)

    def forward(self, patches_TZYX: Tensor, thin_axis: int) -> Tensor:
        """(T, z, y, x) patches of one thin axis → latents (T, C, z, y, x) float32, 2 on the thin axis, 8 on the others.

        The thin axis enters doubled, each sample twice.
        """
        doubled = patches_TZYX.repeat_interleave(2, dim=1 + thin_axis)[:, None]
        dtype = self._runtime.convolution_dtype
        latents: Tensor = self.encoder(doubled.to(dtype, memory_format=torch.channels_last_3d))
        return latents.float()

    def _encode_chunk(self, chunk: _Chunk) -> Tensor:
        forward: Callable[[Tensor], Tensor] = partial(self, thin_axis=chunk.thin_axis)
        return self._runtime.within_memory(forward, self._runtime.take(chunk.patches))

    def encode(
        self, sets: Sequence[PatchSet], progress: Progress | None = None, tokens_per_chunk: int | None = None
    ) -> list[Tensor]:
        """Latents of each set, in the sets' order. `progress` hears of every chunk."""
        chunks = _chunks(sets, tokens_per_chunk or TOKENS_PER_CHUNK[self._runtime.device.type])
        total = sum(len(one.patches) for one in sets)
        done = 0
        encoded: dict[tuple[int, int], Tensor] = {}
        for chunk, part in zip(chunks, self._runtime.map(self._encode_chunk, chunks), strict=True):
            encoded[chunk.of, chunk.start] = part
            done += len(part)
            if progress:
                progress(done, total)
        starts = [sorted(start for of, start in encoded if of == n) for n in range(len(sets))]
        return [torch.cat([encoded[n, start] for start in of_set]) for n, of_set in enumerate(starts)]


@dataclass(frozen=True)
class _Chunk(PatchSet):
    """Some patches of set number `of`, from its patch number `start` on."""

    of: int
    start: int


def _chunks(sets: Sequence[PatchSet], size: int) -> list[_Chunk]:
    """Every patch once, by thin axis; of each the large chunks first, so that all cores end at about the same time."""
    chunks = [
        _Chunk(one.patches[start : start + size], one.thin_axis, of, start)
        for of, one in enumerate(sets)
        for start in range(0, len(one.patches), size)
    ]
    return sorted(chunks, key=lambda chunk: (chunk.thin_axis, -len(chunk.patches)))
