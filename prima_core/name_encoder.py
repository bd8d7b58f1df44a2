"""Names → vectors: a small transformer over letters, read out at the end mark.

Legend of the suffixes: N letters of all names, B names, D encoder width, O output width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prima_core.base.attention import Transformer
from prima_core.base.config import NAME_POSITION_VALUES, NameEncoderShape
from prima_core.names import CODES
from prima_core.vit_input import sinusoids


class NameEncoder(nn.Module):
    """Embedding ⊕ position → transformer → the vector at the end mark → Linear."""

    def __init__(self, shape: NameEncoderShape) -> None:
        super().__init__()
        self.letters = nn.Embedding(CODES, shape.transformer.width - NAME_POSITION_VALUES)
        self.transformer = Transformer(shape.transformer)
        self.output = nn.Linear(shape.transformer.width, shape.output)

    def forward(self, names: Sequence[npt.NDArray[np.int64]]) -> Tensor:
        """names: the codes of each name, end mark included (`names.name_codes`). Returns (B, O) float32."""
        device = self.letters.weight.device
        lengths = [len(codes) for codes in names]
        codes_N = torch.from_numpy(np.concatenate(names)).to(device)
        position_N = torch.cat([torch.arange(length, device=device) for length in lengths])
        x_ND = torch.cat((self.letters(codes_N), sinusoids(position_N, NAME_POSITION_VALUES)), dim=1)
        ends = torch.tensor(lengths, device=device).cumsum(0) - 1
        result: Tensor = self.output(self.transformer(x_ND, lengths)[ends])
        return result
