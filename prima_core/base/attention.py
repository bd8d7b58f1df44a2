"""The transformer block of the model, for sequences of different lengths in one packed tensor.

Linear layers and norms run on the packed rows of all sequences at once; attention runs inside each sequence, equal
lengths together in one call. Nothing is padded, so nothing has to be masked.

Legend of the suffixes: N rows of all sequences, B sequences, L rows of one sequence, D model width, H heads,
E width of a head, K class tokens, R rows that are read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

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
        if len(rows) == 1:  # all equally long: nothing has to be picked out and put back
            mixed_NHE = self._attend(qkv_N3HE.unflatten(0, rows[0].shape)).flatten(0, 1)
        else:
            mixed_NHE = torch.empty_like(qkv_N3HE[:, 0])
            for rows_BL in rows:
                mixed_NHE[rows_BL] = self._attend(qkv_N3HE[rows_BL])
        result_ND: Tensor = x_ND + self.out(mixed_NHE.flatten(1))
        return result_ND

    @staticmethod
    def _attend(qkv_BL3HE: Tensor) -> Tensor:
        """(B, L, H, E)"""
        q_BHLE, k_BHLE, v_BHLE = qkv_BL3HE.permute(2, 0, 3, 1, 4)
        return scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE).transpose(1, 2)

    def read(self, x_ND: Tensor, rows: Sequence[Tensor], count: int) -> Tensor:
        """As `forward`, for the first `count` rows of every sequence alone: (R, D), in the order of `rows`."""
        normed_ND, read_R = self.norm(x_ND), torch.cat([rows_BL[:, :count].flatten() for rows_BL in rows])
        weight: Tensor = self.qkv.weight
        query, key_value = weight[: len(weight) // 3], weight[len(weight) // 3 :]
        q_RHE = linear(normed_ND[read_R], query).reshape(len(read_R), self.heads, -1)
        kv_N2HE = linear(normed_ND, key_value).reshape(len(x_ND), 2, self.heads, -1)
        mixed = []
        for rows_BL, q_QHE in zip(rows, torch.split(q_RHE, [count * len(rows_BL) for rows_BL in rows]), strict=True):
            picked = kv_N2HE.reshape(*rows_BL.shape, 2, self.heads, -1) if len(rows) == 1 else kv_N2HE[rows_BL]
            k_BHLE, v_BHLE = picked.permute(2, 0, 3, 1, 4)
            q_BHKE = q_QHE.reshape(len(rows_BL), count, self.heads, -1).transpose(1, 2)
            mixed.append(scaled_dot_product_attention(q_BHKE, k_BHLE, v_BHLE).transpose(1, 2).flatten(0, 1))
        result_RD: Tensor = x_ND[read_R] + self.out(torch.cat(mixed).flatten(1))
        return result_RD


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

    def read(self, x_ND: Tensor, rows: Sequence[Tensor], count: int) -> Tensor:
        """As `SelfAttention.read`, through the whole block."""
        result_RD: Tensor = self.feed_forward(self.attention.read(x_ND, rows, count))
        return result_RD


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
    """[class tokens] ⊕ [name vector] ⊕ [tokens] → transformer → the class tokens, normed, laid end to end.

    Nobody reads the other rows of the last block, so it computes none: the result is the same.
    """

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.class_tokens = nn.Parameter(torch.empty(shape.class_tokens, shape.transformer.width))
        self.transformer = Transformer(shape.transformer)
        self.norm = nn.LayerNorm(shape.transformer.width, eps=NORM_EPSILON)

    def forward(self, name_BD: Tensor, tokens_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """name_BD: one vector a sequence; tokens_ND: packed tokens of sequences of `lengths`. Returns (B, K · D)."""
        return self.read(self.look(name_BD, tokens_ND, lengths), lengths)

    def look(self, name_BD: Tensor, tokens_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """What the last block reads: for every sequence its class tokens, its name and its tokens, packed."""
        pieces: list[Tensor] = []
        for one_name_D, one_tokens_LD in zip(name_BD, torch.split(tokens_ND, list(lengths)), strict=True):
            pieces += [self.class_tokens, one_name_D[None], one_tokens_LD]
        x_ND = torch.cat(pieces)
        rows = rows_by_length(self._whole(lengths), x_ND.device)
        for block in self.transformer.blocks[:-1]:
            x_ND = block(x_ND, rows)
        return x_ND

    def read(self, x_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """The last block on what `look` gave: (B, K · D)."""
        rows = rows_by_length(self._whole(lengths), x_ND.device)
        last: Block = self.transformer.blocks[-1]  # type: ignore[assignment]
        pooled_RD = last.read(x_ND, rows, len(self.class_tokens))
        order_B = torch.cat([rows_BL[:, 0] for rows_BL in rows]).argsort()
        pooled_BKD = pooled_RD.reshape(len(lengths), len(self.class_tokens), -1)[order_B]
        result: Tensor = self.norm(pooled_BKD).flatten(1)
        return result

    def _whole(self, lengths: Sequence[int]) -> list[int]:
        return [len(self.class_tokens) + 1 + length for length in lengths]
