"""The contrastive loss of the CLIP stages.

Legend of the suffixes: B rows, V width of the common space.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

SCALE = 1 / 0.07  # of cosines, where it is not learned


def contrastive(left_BV: Tensor, right_BV: Tensor, key_B: Tensor, scale: Tensor | float = SCALE) -> Tensor:
    """Symmetric cross-entropy of row i of the left with row i of the right; rows of the same key are no negatives."""
    logits_BB = scale * left_BV @ right_BV.T
    same_BB = (key_B[:, None] == key_B[None]).fill_diagonal_(False)
    logits_BB = logits_BB.masked_fill(same_BB, -torch.inf)
    target_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (cross_entropy(logits_BB, target_B) + cross_entropy(logits_BB.T, target_B)) / 2


def text_key(text: str) -> int:
    """A key of what a text says."""
    return zlib.crc32(text.encode())
