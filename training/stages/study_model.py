"""The part of Prima that is trained on tokens: name encoders, sequence ViT and study ViT, under the bundle's names.

Legend of the suffixes: S series of all studies, B studies, N tokens, D series embedding width, P study embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prima_core.base.config import Architecture
from prima_core.name_encoder import NameEncoder
from prima_core.names import name_codes
from prima_core.sequence_vit import SequenceVit
from prima_core.study_vit import StudyVit
from prima_core.vit_input import vit_input
from training.prepare.store import TokenizedSeries, TokenizedStudy
from training.stages.mirror import mirrored_tokens

STEP = 8  # lengths of series in training are multiples of this
UNKNOWN_NAME = "unk"  # what a name is replaced by in training


@dataclass(frozen=True)
class SeriesTokens:
    """Tokens of one series. latents: (T, C, z, y, x), a row for each token. coordinates: (T, 3) int64.

    shares: (T, n), how much of each token located findings cover; None where nobody knows.
    """

    name: str
    latents: npt.NDArray[np.float16]
    coordinates: npt.NDArray[np.int64]
    thin_axis: int
    shares: npt.NDArray[np.float16] | None = None


@dataclass(frozen=True)
class StudyTokens:
    """Tokens of one study, at least one series. located: what the columns of the series' shares are of."""

    description: str
    series: tuple[SeriesTokens, ...]
    located: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dropout:
    """What is left out of a study in training, as shares: tokens, whole series, names of series (made unknown).

    most_tokens: of a series, drawn at random; 0 for all.
    """

    tokens: float = 0.03
    series: float = 0.08
    names: float = 0.07
    most_tokens: int = 0


# Small, so that what pooling gives is mostly what attention brought, not the class tokens themselves.
CLASS_TOKEN_DEVIATION = 0.02
NOTHING = Dropout(0.0, 0.0, 0.0)


def study_tokens(
    study: TokenizedStudy, dropout: Dropout, draw: np.random.Generator, mirrored: bool = False
) -> StudyTokens:
    """What of a study, or of its mirror image, goes into the model; at least one series, and one token of each."""
    kept = np.flatnonzero(draw.random(len(study.series)) >= dropout.series)
    if not len(kept):
        kept = draw.integers(len(study.series), size=1)
    series = tuple(series_tokens(study.series[n], dropout, draw) for n in kept)
    if mirrored:
        series = tuple(mirrored_tokens(one, study.series[n]) for one, n in zip(series, kept, strict=True))
    return StudyTokens(study.description, series, study.located or ())


def series_tokens(series: TokenizedSeries, dropout: Dropout, draw: np.random.Generator) -> SeriesTokens:
    """What of a series goes into the model."""
    total = len(series.token_ids)
    kept = np.sort(draw.permutation(total)[: _kept(total, dropout)])
    name = UNKNOWN_NAME if draw.random() < dropout.names else series.name
    rows = series.rows[kept]
    shares = None if series.shares is None else series.shares[rows]
    return SeriesTokens(name, series.latents[rows], series.coordinates[kept], series.thin_axis, shares)


def _kept(total: int, dropout: Dropout) -> int:
    """How many of a series' tokens go in. Near a share's worth, so that many series are equally long: attention runs
    once for each length, and its backward pass costs as much for one series as for hundreds."""
    share = total * (1 - dropout.tokens)
    near = round(share / STEP) * STEP or round(share)
    kept = total if dropout.tokens == 0 else min(total, max(1, near))
    return min(kept, dropout.most_tokens or kept)


class StudyModel(nn.Module):
    """Tokens of studies → series and study embeddings. The state's keys are those of `prima_core.prima.Prima`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.series_name = NameEncoder(architecture.series_name)
        self.study_description = NameEncoder(architecture.study_description)
        self.sequence_vit = SequenceVit(architecture.sequence_vit)
        self.study_vit = StudyVit(architecture.study_vit)
        initialise(self)

    def forward(self, studies: Sequence[StudyTokens]) -> tuple[Tensor, Tensor]:
        """Series embeddings (S, D), series of all studies in order, and study embeddings (B, P)."""
        series_SD, study_BP, _ = self.states(studies)
        return series_SD, study_BP

    def states(self, studies: Sequence[StudyTokens]) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """As `forward`, and of each series its tokens (T, width) as the last block of the sequence ViT reads them."""
        series = [one for study in studies for one in study.series]
        series_SD, states = read_series(self.series_name, self.sequence_vit, series)
        description_BD = encode_names(self.study_description, [study.description for study in studies])
        study_BP = self.study_vit(description_BD, series_SD, [len(study.series) for study in studies])
        return series_SD, study_BP, states


def read_series(
    series_name: NameEncoder, sequence_vit: SequenceVit, series: Sequence[SeriesTokens]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Series embeddings (S, D), and of each series its tokens (T, width) as the last block of the ViT reads them."""
    name_SD = encode_names(series_name, [one.name for one in series])
    tokens_ND, lengths = pack_tokens(series, name_SD.device), [len(one.coordinates) for one in series]
    pooling = sequence_vit.pooling
    state_ND = pooling.look(name_SD, tokens_ND, lengths)
    before = len(pooling.class_tokens) + 1  # and the name
    pieces = torch.split(state_ND, [before + length for length in lengths])
    return sequence_vit.output(pooling.read(state_ND, lengths)), tuple(piece[before:] for piece in pieces)


def encode_names(encoder: NameEncoder, names: Sequence[str]) -> Tensor:
    """One vector a name; names that repeat are encoded once."""
    distinct = {name: row for row, name in enumerate(dict.fromkeys(names))}
    vectors: Tensor = encoder([name_codes(name) for name in distinct])
    return vectors[torch.tensor([distinct[name] for name in names], device=vectors.device)]


def pack_tokens(series: Sequence[SeriesTokens], device: torch.device) -> Tensor:
    """The sequence ViT's tokens (N, width) of all series, packed in their order."""
    pieces: dict[int, Tensor] = {}
    for axis in sorted({one.thin_axis for one in series}):  # all series of one thin axis at once, for speed
        members = [n for n, one in enumerate(series) if one.thin_axis == axis]
        latents = torch.from_numpy(np.concatenate([series[n].latents for n in members])).to(device)
        coordinates = torch.from_numpy(np.concatenate([series[n].coordinates for n in members])).to(device)
        packed = vit_input(latents.float(), coordinates, axis)
        lengths = [len(series[n].coordinates) for n in members]
        pieces.update(zip(members, torch.split(packed, lengths), strict=True))
    return torch.cat([pieces[n] for n in range(len(series))])


def initialise(module: nn.Module) -> None:
    """Linear layers keep the variance of what goes through them, tables are normal; norms stay the identity."""
    for name, parameter in module.named_parameters():
        if name.endswith("class_tokens"):
            nn.init.normal_(parameter, std=CLASS_TOKEN_DEVIATION)
        elif name.endswith("letters.weight"):
            nn.init.normal_(parameter)
        elif parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
