"""The transformer block of the model, for sequences of different lengths in one packed tensor.

Linear layers and norms run on the packed rows of all sequences at once; attention runs inside each sequence, equal
lengths together in one call. Nothing is padded, so nothing has to be masked.

Legend of the suffixes: N rows of all sequences, B sequences, L rows of one sequence, D model width, H heads,
E width of a head, K class tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from prima_core.base.config import TransformerShape, VitShape

NORM_EPSILON = 1e-5


def rows_by_length(lengths: Sequence[int], device: torch.device) -> list[Tensor]:
    """The rows of equally long sequences in a packed tensor: one int64 (B, L) index for each distinct length."""
    starts: dict[int, list[int]] = {}
    start = 0
    for length in lengths:
        starts.setdefault(length, []).append(start)
        start += length
    return [
        torch.tensor(first, device=device)[:, None] + torch.arange(length, device=device)
        for length, first in starts.items()
    ]


class SelfAttention(nn.Module):
    """x + Attention(LayerNorm(x)), every sequence by itself."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        inner = shape.heads * shape.head_width
        self.heads = shape.heads
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPSILON)
        self.qkv = nn.Linear(shape.width, 3 * inner, bias=False)
        # The reference leaves the output projection out where one head has the model's own width.
        alone = shape.heads == 1 and shape.head_width == shape.width
        self.out: nn.Module = nn.Identity() if alone else nn.Linear(inner, shape.width)

    def forward(self, x_ND: Tensor, rows: Sequence[Tensor]) -> Tensor:
        qkv_N3HE = self.qkv(self.norm(x_ND)).unflatten(1, (3, self.heads, -1))
        mixed_NHE = torch.empty_like(qkv_N3HE[:, 0])
        for rows_BL in rows:
            q_BHLE, k_BHLE, v_BHLE = qkv_N3HE[rows_BL].permute(2, 0, 3, 1, 4)
            attended_BHLE = scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE)
            mixed_NHE[rows_BL] = attended_BHLE.transpose(1, 2)
        result_ND: Tensor = x_ND + self.out(mixed_NHE.flatten(1))
        return result_ND


class FeedForward(nn.Module):
    """x + MLP(LayerNorm(x)) with exact GELU."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPSILON)
        self.up = nn.Linear(shape.width, shape.mlp_width)
        self.down = nn.Linear(shape.mlp_width, shape.width)

    def forward(self, x_ND: Tensor) -> Tensor:
        result_ND: Tensor = x_ND + self.down(gelu(self.up(self.norm(x_ND))))
        return result_ND


class Block(nn.Module):
    """One pre-norm block."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.feed_forward = FeedForward(shape)

    def forward(self, x_ND: Tensor, rows: Sequence[Tensor]) -> Tensor:
        result_ND: Tensor = self.feed_forward(self.attention(x_ND, rows))
        return result_ND


class Transformer(nn.Module):
    """A stack of blocks without a final norm."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))

    def forward(self, x_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """x_ND: the packed rows of sequences of `lengths` (their sum is N). Returns the same shape."""
        rows = rows_by_length(lengths, x_ND.device)
        for block in self.blocks:
            x_ND = block(x_ND, rows)
        return x_ND


class ClassTokenPooling(nn.Module):
    """[class tokens] ⊕ [name vector] ⊕ [tokens] → transformer → the class tokens, normed, laid end to end."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.class_tokens = nn.Parameter(torch.empty(shape.class_tokens, shape.transformer.width))
        self.transformer = Transformer(shape.transformer)
        self.norm = nn.LayerNorm(shape.transformer.width, eps=NORM_EPSILON)

    def forward(self, name_BD: Tensor, tokens_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """name_BD: one vector a sequence; tokens_ND: packed tokens of sequences of `lengths`. Returns (B, K · D)."""
        classes = len(self.class_tokens)
        pieces: list[Tensor] = []
        for one_name_D, one_tokens_LD in zip(name_BD, torch.split(tokens_ND, list(lengths)), strict=True):
            pieces += [self.class_tokens, one_name_D[None], one_tokens_LD]
        whole = [classes + 1 + length for length in lengths]
        x_ND = self.transformer(torch.cat(pieces), whole)
        pooled_BKD = torch.stack([sequence[:classes] for sequence in torch.split(x_ND, whole)])
        result: Tensor = self.norm(pooled_BKD).flatten(1)
        return result
