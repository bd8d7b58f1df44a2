"""3×3×3 convolution by Winograd's minimal filtering in the two long axes, for CPUs.

Why: the tokenizer's residual convolutions are 97 % of a study's arithmetic, and the library's direct kernels already
run at the processor's peak. Winograd's algorithm needs 4 × (tiles of 4) or 2.25 × (tiles of 2) fewer multiplications
in a plane, and what remains is matrix multiplication. Source: Lavin and Gray, "Fast algorithms for convolutional
neural networks", arXiv 1509.09308. The thin axis keeps its three taps: with 2 or 4 samples there is nothing to save.

Rounding: with tiles of 4 in float32 the error is 3 · 10⁻⁶ of the output's norm (direct: 1 · 10⁻⁶). In bf16 tiles of 4
would cost 4 % and tiles of 2 cost 0.6 % (direct: 0.3 %), hence `TILE_BY_DTYPE`.

Legend of the suffixes: B batch, C input and O output channels, Z thin axis, Y and X long axes, F frequencies of a tile
(the tile and its border, squared), P tiles of the whole batch in one Z plane, K kernel taps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, pad

TILE_BY_DTYPE = {torch.float32: 4, torch.bfloat16: 2}
FEWEST_CHANNELS = 64  # below, transforming costs more than it saves

# tile size → (input, kernel, output) transforms of one axis
_TRANSFORMS: dict[int, tuple[list[list[float]], list[list[float]], list[list[float]]]] = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}


class WinogradConv3d(nn.Conv3d):
    """An inference twin of a 3×3×3, stride 1, padding 1 convolution: same parameters, same keys, same result.

    The weights stay float32; the arithmetic is in the input's dtype.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self._kernel: tuple[tuple[int, torch.dtype], Tensor] | None = None

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
        if x_BZYXC.shape[2] % tile or x_BZYXC.shape[3] % tile:
            bias = None if self.bias is None else self.bias.to(x_BCZYX.dtype)
            return conv3d(x_BCZYX, self.weight.to(x_BCZYX.dtype), bias, padding=1)
        product_FZPO = self._multiply(_to_frequencies(x_BZYXC, tile), axis)
        shape = (x_BCZYX.shape[0], self.out_channels, *x_BCZYX.shape[2:])
        y_BOZYX = torch.empty(shape, dtype=x_BCZYX.dtype, memory_format=torch.channels_last_3d)
        y_BZYXO = _in_tiles(_thin_axis_first(y_BOZYX, axis), tile)
        torch.add(_from_frequencies(product_FZPO, y_BZYXO.shape), 0.0 if self.bias is None else self.bias, out=y_BZYXO)
        return y_BOZYX

    def _multiply(self, x_FZPC: Tensor, axis: int) -> Tensor:
        """One matrix product a frequency and tap of the thin axis; taps outside the volume are left out."""
        kernel_KFCO = self._kernel_frequencies(axis, x_FZPC.dtype)
        planes, tiles = x_FZPC.shape[1:3]
        x = x_FZPC.flatten(1, 2)
        y = torch.bmm(x, kernel_KFCO[1])
        if planes > 1:
            y[:, tiles:].baddbmm_(x[:, :-tiles], kernel_KFCO[0])
            y[:, :-tiles].baddbmm_(x[:, tiles:], kernel_KFCO[2])
        return y.view(len(y), planes, tiles, -1)

    def _kernel_frequencies(self, axis: int, dtype: torch.dtype) -> Tensor:
        """The transformed kernel (K, F, C, O) for this thin axis; kept, since tokens come ordered by axis."""
        if self._kernel is None or self._kernel[0] != (axis, dtype):
            g = torch.tensor(_TRANSFORMS[TILE_BY_DTYPE[dtype]][1])
            taps = self.weight.transpose(2, 2 + axis)
            frequencies = torch.einsum("py,qx,oczyx->zpqco", g, g, taps).flatten(1, 2)
            self._kernel = (axis, dtype), frequencies.to(dtype).contiguous()
        return self._kernel[1]


def _thin_axis_first(x_BCZYX: Tensor, axis: int) -> Tensor:
    return x_BCZYX.transpose(2, 2 + axis).permute(0, 2, 3, 4, 1)


def _to_frequencies(x_BZYXC: Tensor, tile: int) -> Tensor:
    planes, channels = x_BZYXC.shape[1], x_BZYXC.shape[4]
    bordered = pad(x_BZYXC, (0, 0, 1, 1, 1, 1))
    tiles = bordered.unfold(2, tile + 2, tile).unfold(3, tile + 2, tile)  # B Z Y/tile X/tile C f f
    gathered = tiles.permute(5, 6, 1, 0, 2, 3, 4).reshape((tile + 2) ** 2, -1)
    return (_both_axes(_TRANSFORMS[tile][0], gathered.dtype) @ gathered).view((tile + 2) ** 2, planes, -1, channels)


def _from_frequencies(y_FZPO: Tensor, shape: torch.Size) -> Tensor:
    """To (B, Z, Y/tile, tile, X/tile, tile, O), the order of the output's memory."""
    batch, planes, rows, tile, columns, _, channels = shape
    y = _both_axes(_TRANSFORMS[tile][2], y_FZPO.dtype) @ y_FZPO.flatten(1)
    return y.view(tile, tile, planes, batch, rows, columns, channels).permute(3, 2, 4, 0, 5, 1, 6)


def _in_tiles(x_BZYXC: Tensor, tile: int) -> Tensor:
    """A view (B, Z, Y/tile, tile, X/tile, tile, C)."""
    batch, planes, height, width, channels = x_BZYXC.shape
    return x_BZYXC.view(batch, planes, height // tile, tile, width // tile, tile, channels)


def _both_axes(transform: list[list[float]], dtype: torch.dtype) -> Tensor:
    one = torch.tensor(transform)
    return torch.kron(one, one).to(dtype)
