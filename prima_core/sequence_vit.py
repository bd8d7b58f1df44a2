"""The sequence ViT: the tokens of one series and its name → one series embedding.

Legend of the suffixes: N tokens of all series, S series, D token width, O embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from prima_core.base.attention import ClassTokenPooling
from prima_core.base.config import VitShape


class SequenceVit(nn.Module):
    """Tokens of many series at once, packed; each series attends only to itself."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.pooling = ClassTokenPooling(shape)
        self.output = nn.Linear(shape.pooled_width, shape.output)

    def forward(self, name_SD: Tensor, tokens_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """Returns the series embeddings (S, O)."""
        result: Tensor = self.output(self.pooling(name_SD, tokens_ND, lengths))
        return result
