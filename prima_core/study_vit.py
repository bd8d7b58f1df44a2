"""The study ViT: the series embeddings of one study and its description → the study embedding.

There is no position among series: their order must not matter.

Legend of the suffixes: S series of all studies, B studies, D series embedding width, P study embedding width,
V width of the CLIP vector.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import normalize

from prima_core.base.attention import ClassTokenPooling
from prima_core.base.config import VitShape


class StudyVit(nn.Module):
    """Series of many studies at once, packed; each study attends only to itself."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.pooling = ClassTokenPooling(shape)
        self.clip = nn.Linear(shape.pooled_width, shape.output)

    def forward(self, description_BD: Tensor, series_SD: Tensor, series_counts: Sequence[int]) -> Tensor:
        """Returns the study embeddings (B, P)."""
        result: Tensor = self.pooling(description_BD, series_SD, series_counts)
        return result

    def clip_vector(self, study_BP: Tensor) -> Tensor:
        """The image vectors of the CLIP space, of unit length: (B, V)."""
        return normalize(self.clip(study_BP), dim=1)
