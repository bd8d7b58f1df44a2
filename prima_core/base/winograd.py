"""3×3×3 convolution by Winograd's minimal filtering in the two long axes, for CPUs.

Why: the tokenizer's residual convolutions are 97 % of a study's arithmetic, and the library's direct kernels already
run at the processor's peak. Winograd's algorithm needs 4 × (tiles of 4 × 4) or 3 × (4 × 2) fewer multiplications in a
plane, and what remains is matrix multiplication. The thin axis keeps its three taps: with 2 or 4 samples there is
little to save. Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv 1509.09308.

Rounding, as error of one convolution relative to its output's norm: float32 with tiles of 4 × 4 1 · 10⁻⁶ (direct:
0.3 · 10⁻⁶). bf16 with tiles of 4 × 2 0.9 %, with 2 × 2 0.6 %, direct 0.3 %. The usual points 0, ±1, ±2 would double
the error of tiles of 4; those below are better balanced, and all transforms of 4 × 2 tiles are exact in bf16.

Legend of the suffixes: B batch, C input and O output channels, Z thin axis, Y and X long axes, F frequencies of a tile
with its border, P tiles of the whole batch in one Z plane, K kernel taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, pad

TILE_BY_DTYPE = {torch.float32: (4, 4), torch.bfloat16: (4, 2)}  # on the two long axes
# Thin axes for which a kernel is kept: of the released width 9 MB each in bf16, 28 MB in float32. Tokens come by axis;
# at the border of two axes threads that need different ones make some of them again.
KERNELS_KEPT = {torch.float32: 1, torch.bfloat16: 3}
FEWEST_CHANNELS = 64  # below, transforming costs more than it saves

_POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}


@dataclass(frozen=True)
class _Transforms:
    """Of one axis: samples, taps and products to and from the frequencies of a tile."""

    samples: Tensor
    taps: Tensor
    products: Tensor


def _cook_toom(tile: int) -> _Transforms:
    """Three-tap filtering of `tile` samples through polynomial values at `_POINTS` and at infinity."""
    points = _POINTS[tile]
    others = [[other for other in points if other != point] for point in points]
    weights = [prod(point - other for other in rest) for point, rest in zip(points, others, strict=True)]
    samples = [[*_polynomial(rest), Fraction(0)] for rest in others] + [_polynomial(points)]
    taps = [[point**k / weight for k in range(3)] for point, weight in zip(points, weights, strict=True)]
    products = [[*(point**row for point in points), Fraction(row == tile - 1)] for row in range(tile)]
    return _Transforms(_tensor(samples), _tensor([*taps, [Fraction(0), Fraction(0), Fraction(1)]]), _tensor(products))


def _polynomial(roots: list[Fraction] | tuple[Fraction, ...]) -> list[Fraction]:
    """Coefficients of ∏ (x − root), constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        raised, lowered = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [high - root * low for high, low in zip(raised, lowered, strict=True)]
    return coefficients


def _tensor(rows: list[list[Fraction]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows])


_TRANSFORMS = {tile: _cook_toom(tile) for tile in _POINTS}


class WinogradConv3d(nn.Conv3d):
    """An inference twin of a 3×3×3, stride 1, padding 1 convolution: same parameters, same keys, same result.

    The weights stay float32; the arithmetic is in the input's dtype.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self._kernels: dict[tuple[int, torch.dtype], Tensor] = {}

    @staticmethod
    def suits(conv: nn.Conv3d) -> bool:
        """Whether this convolution has the form, and channels enough to gain from it."""
        form = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        same = form == ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
        return same and min(conv.in_channels, conv.out_channels) >= FEWEST_CHANNELS

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        axis = min(range(3), key=lambda axis: x_BCZYX.shape[2 + axis])
        tile = TILE_BY_DTYPE[x_BCZYX.dtype]
        x_BZYXC = _thin_axis_first(x_BCZYX, axis)
        if x_BZYXC.shape[2] % tile[0] or x_BZYXC.shape[3] % tile[1]:
            bias = None if self.bias is None else self.bias.to(x_BCZYX.dtype)
            return conv3d(x_BCZYX, self.weight.to(x_BCZYX.dtype), bias, padding=1)
        product_FZPO = self._multiply(_to_frequencies(x_BZYXC, tile), axis)
        shape = (x_BCZYX.shape[0], self.out_channels, *x_BCZYX.shape[2:])
        y_BOZYX = torch.empty(shape, dtype=x_BCZYX.dtype, memory_format=torch.channels_last_3d)
        y_BZYXO = _in_tiles(_thin_axis_first(y_BOZYX, axis), tile)
        torch.add(_from_frequencies(product_FZPO, y_BZYXO.shape), 0.0 if self.bias is None else self.bias, out=y_BZYXO)
        return y_BOZYX

    def _multiply(self, x_FZPC: Tensor, axis: int) -> Tensor:
        """One matrix product a frequency and tap of the thin axis; taps outside the volume are left out.

        A frequency's three products follow each other, while what they read and write is in the cache.
        """
        kernel_KFCO = self._kernel_frequencies(axis, x_FZPC.dtype)
        planes, tiles = x_FZPC.shape[1:3]
        y_FZPO = x_FZPC.new_empty(*x_FZPC.shape[:3], kernel_KFCO.shape[-1])
        for x, y, before, here, after in zip(x_FZPC.flatten(1, 2), y_FZPO.flatten(1, 2), *kernel_KFCO, strict=True):
            torch.mm(x, here, out=y)
            if planes > 1:
                y[tiles:].addmm_(x[:-tiles], before)
                y[:-tiles].addmm_(x[tiles:], after)
        return y_FZPO

    def _kernel_frequencies(self, axis: int, dtype: torch.dtype) -> Tensor:
        """The transformed kernel (K, F, C, O) for this thin axis; kept, as making it costs as much as some tokens."""
        kept = self._kernels.get((axis, dtype))
        if kept is None:
            made = list(self._kernels)  # at once: other threads add and take away
            for oldest in made[: max(0, len(made) + 1 - KERNELS_KEPT[dtype])]:
                self._kernels.pop(oldest, None)
            rows, columns = (_TRANSFORMS[tile].taps for tile in TILE_BY_DTYPE[dtype])
            taps = self.weight.transpose(2, 2 + axis)
            frequencies = torch.einsum("py,qx,oczyx->zpqco", rows, columns, taps).flatten(1, 2)
            self._kernels[axis, dtype] = kept = frequencies.to(dtype).contiguous()
        return kept


def _thin_axis_first(x_BCZYX: Tensor, axis: int) -> Tensor:
    return x_BCZYX.transpose(2, 2 + axis).permute(0, 2, 3, 4, 1)


def _to_frequencies(x_BZYXC: Tensor, tile: tuple[int, int]) -> Tensor:
    (height, width), planes, channels = tile, x_BZYXC.shape[1], x_BZYXC.shape[4]
    bordered = pad(x_BZYXC, (0, 0, 1, 1, 1, 1))
    tiles = bordered.unfold(2, height + 2, height).unfold(3, width + 2, width)  # B Z rows columns C y x
    gathered = tiles.permute(5, 6, 1, 0, 2, 3, 4).reshape((height + 2) * (width + 2), -1)
    rows, columns = (_TRANSFORMS[size].samples for size in tile)
    return (torch.kron(rows, columns).to(gathered.dtype) @ gathered).view(len(gathered), planes, -1, channels)


def _from_frequencies(y_FZPO: Tensor, shape: torch.Size) -> Tensor:
    """To (B, Z, rows, y, columns, x, O), the order of the output's memory."""
    batch, planes, tiles_down, height, tiles_across, width, channels = shape
    rows, columns = (_TRANSFORMS[size].products for size in (height, width))
    y = torch.kron(rows, columns).to(y_FZPO.dtype) @ y_FZPO.flatten(1)
    split = y.view(height, width, planes, batch, tiles_down, tiles_across, channels)
    return split.permute(3, 2, 4, 0, 5, 1, 6)


def _in_tiles(x_BZYXC: Tensor, tile: tuple[int, int]) -> Tensor:
    """A view (B, Z, rows of tiles, y in tile, columns of tiles, x in tile, C)."""
    batch, planes, height, width, channels = x_BZYXC.shape
    return x_BZYXC.view(batch, planes, height // tile[0], tile[0], width // tile[1], tile[1], channels)
