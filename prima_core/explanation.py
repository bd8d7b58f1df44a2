"""What of a study an answer rests on: how much every series, and every patch of a series, adds to a logit.

    explainer = Explainer(model, study)
    explainer.series_shares([question])
    explainer.lime(series=2, questions=[Question("diagnosis", "tumor_adult_meningioma")])

LIME (Ribeiro et al. 2016, arXiv 1602.04938; for Prima Lyu et al. 2025, arXiv 2509.18638): the model answers again and
again with random patches of the series left out, and a linear fit says what each one's presence is worth. A patch that
is left out is gone, not black. Latents and the embeddings of the other series are computed once, and one pass of masks
answers all questions.

Legend of the suffixes: M masks, Q questions, U distinct patches of the series, T its tokens, W token width, S series of
the study, D series embedding width, P study embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.names import name_codes
from prima_core.prima import Prima
from prima_core.volume_tokenizer import Progress

SAMPLES = 256
KEPT = 0.5  # of the patches, in each mask
KERNEL_WIDTH = 0.25  # in cosine distance from the whole series, as in LIME for images
RIDGE = 5.0  # of 0.1 to 60 the one whose first patches agree best between seeds, on series of 230 patches
TOKENS_AT_ONCE = 2048

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """One logit. task: diagnosis, referral or priority. output: its name in the bundle."""

    task: str
    output: str


@dataclass(frozen=True)
class Attribution:
    """value_U: what each distinct patch adds to the logit, in the order of `PreparedSeries.patches`.

    logit: of the whole study, its threshold subtracted. fit: R² of the linear fit, weighted; None where there is none.
    """

    value_U: Values
    logit: float
    fit: float | None = None

    def first(self, count: int) -> list[int]:
        """The patches that speak most for the answer, the strongest first."""
        return [int(patch) for patch in np.argsort(-self.value_U, kind="stable")[:count]]


class Explainer:
    """One study and its model; latents and series embeddings are computed once, here.

    Every method raises ValueError for a question that the model has no output for, and MemoryError or
    torch.OutOfMemoryError where the device has too little room.
    """

    def __init__(self, model: Prima, study: PreparedStudy, progress: Progress | None = None) -> None:
        """progress: hears of tokens as they are encoded, as in `Prima.predict`."""
        self._model, self._study = model, study
        latents = model.latents([study], progress)
        # Cloned: what was made for inference alone can have no part in a gradient.
        self._tokens = [tokens.clone() for tokens in model.vit_inputs([study], latents)]
        with torch.no_grad():
            self._name_SD = model.series_name([name_codes(series.name) for series in study.series])
            self._series_SD = model.sequence_vit(self._name_SD, torch.cat(self._tokens), [*map(len, self._tokens)])
            self._description_1D = model.study_description([name_codes(study.description)])

    @torch.no_grad()
    def series_shares(self, questions: Sequence[Question]) -> Values:
        """(S, Q) by how much each logit falls when the study lacks a series; 0 for the only one of a study."""
        count = len(self._series_SD)
        if count == 1:
            return np.zeros((1, len(questions)))
        without = [torch.cat((self._series_SD[:n], self._series_SD[n + 1 :])) for n in range(count)]
        packed = torch.cat((self._series_SD, *without))
        logit_MQ = self._read(packed, [count, *[count - 1] * count], questions).cpu().double().numpy()
        shares_SQ: Values = logit_MQ[0] - logit_MQ[1:]
        return shares_SQ

    def lime(
        self,
        series: int,
        questions: Sequence[Question],
        samples: int = SAMPLES,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> list[Attribution]:
        """By `samples` random masks of one series, an attribution a question. The same seed gives the same answer.

        progress: hears of masks as they are answered.
        """
        draw = np.random.default_rng([seed, series])
        mask_MU = random_masks(len(self._study.series[series].patches), samples, draw)
        logit_MQ = self.logits(series, questions, mask_MU, progress)
        fits = [linear_fit(mask_MU, logit_M) for logit_M in logit_MQ.T]
        return [
            Attribution(value_U, float(logit), fit) for (value_U, fit), logit in zip(fits, logit_MQ[0], strict=True)
        ]

    def gradient(self, series: int, questions: Sequence[Question]) -> list[Attribution]:
        """By each logit's gradient along every token's difference from the series' mean token: one pass, less exact."""
        row_T = _patch_of_token(self._study.series[series])
        token_TW = self._tokens[series].clone().requires_grad_()
        logit_Q = self._answers(series, questions, [token_TW])[0]
        found = []
        for logit in logit_Q:
            [slope_TW] = torch.autograd.grad(logit, token_TW, retain_graph=True)
            share_T = (slope_TW * (token_TW - token_TW.mean(dim=0))).sum(dim=1).detach().cpu().double().numpy()
            values: Values = np.zeros(len(self._study.series[series].patches))
            np.add.at(values, row_T, share_T)
            found.append(Attribution(values, logit.item()))
        return found

    @torch.no_grad()
    def logits(
        self, series: int, questions: Sequence[Question], mask_MU: Mask, progress: Progress | None = None
    ) -> Values:
        """(M, Q) the study's logits when only the patches of each mask are left of the series."""
        found: list[Tensor] = []
        answer = partial(self._masked_answers, series, questions)
        for part in self._model.runtime.map(answer, self._kept(series, mask_MU)):
            found.append(part)
            if progress is not None:
                progress(sum(map(len, found)), len(mask_MU))
        answers: Values = torch.cat(found).cpu().double().numpy()
        return answers

    def _kept(self, series: int, mask_MU: Mask) -> Iterator[list[Tensor]]:
        """The tokens that each mask leaves, as many masks at once as may run together."""
        row_T, tokens = _patch_of_token(self._study.series[series]), self._tokens[series]
        together: list[Tensor] = []
        for mask_U in mask_MU:
            kept = tokens[torch.from_numpy(np.flatnonzero(mask_U[row_T])).to(tokens.device)]
            if together and sum(map(len, together)) + len(kept) > TOKENS_AT_ONCE:
                yield together
                together = []
            together.append(kept)
        yield together

    def _masked_answers(self, series: int, questions: Sequence[Question], kept: list[Tensor]) -> Tensor:
        """In short numbers unless the bundle runs in fp32: what masks are compared for is far larger than the cost."""
        runtime = self._model.runtime
        short = torch.float16 if runtime.precision == "fp16" else torch.bfloat16
        with torch.autocast(runtime.device.type, short, enabled=runtime.precision != "fp32"):
            return self._answers(series, questions, kept)

    def _answers(self, series: int, questions: Sequence[Question], kept: list[Tensor]) -> Tensor:
        count = len(kept)
        name_MD = self._name_SD[series].expand(count, -1)
        masked_MD = self._model.sequence_vit(name_MD, torch.cat(kept), [len(one) for one in kept])
        series_MSD = self._series_SD.expand(count, -1, -1).clone()
        series_MSD[:, series] = masked_MD
        return self._read(series_MSD.flatten(0, 1), [series_MSD.shape[1]] * count, questions)

    def _read(self, series_SD: Tensor, counts: Sequence[int], questions: Sequence[Question]) -> Tensor:
        """(M, Q) logits of studies of so many series each, packed."""
        study_vit, heads = self._model.study_vit, self._model.heads
        study_MP = study_vit(self._description_1D.expand(len(counts), -1), series_SD, counts)
        clip_MV = study_vit.clip_vector(study_MP)
        return torch.stack([heads.logit(one.task, one.output, study_MP, clip_MV) for one in questions], dim=1)


def random_masks(patches: int, samples: int, draw: np.random.Generator) -> Mask:
    """(samples, patches) which are kept: the first mask keeps all, no mask keeps none."""
    mask_MU: Mask = draw.random((samples, patches)) < KEPT
    mask_MU[0] = True
    mask_MU[np.arange(samples), draw.integers(patches, size=samples)] = True
    return mask_MU


def linear_fit(mask_MU: Mask, logit_M: Values) -> tuple[Values, float]:
    """(U,) slopes of a ridge regression, masks weighted by how near they are to the whole series, and its R²."""
    distance_M = 1 - np.sqrt(mask_MU.mean(axis=1))  # cosine distance from the mask that keeps all
    weight_M = np.exp(-((distance_M / KERNEL_WIDTH) ** 2))
    x_MU: Values = mask_MU - np.average(mask_MU, axis=0, weights=weight_M)
    y_M = logit_M - np.average(logit_M, weights=weight_M)
    weighted_UM = (x_MU * weight_M[:, None]).T
    slope_U = np.linalg.solve(weighted_UM @ x_MU + RIDGE * np.eye(mask_MU.shape[1]), weighted_UM @ y_M)
    left, total = (np.average(one**2, weights=weight_M) for one in (y_M - x_MU @ slope_U, y_M))
    return slope_U, float(1 - left / total) if total > 0 else 1.0


def agreement(one: Attribution, other: Attribution) -> float:
    """Spearman's rank correlation of two attributions of the same patches, −1…1; 0 where one tells nothing apart."""
    ranks = [np.argsort(np.argsort(of.value_U, kind="stable"), kind="stable") for of in (one, other)]
    if any(np.ptp(of.value_U) == 0 for of in (one, other)):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _patch_of_token(series: PreparedSeries) -> npt.NDArray[np.int64]:
    """(T,) the patch of every token."""
    return np.unique(series.token_ids, return_inverse=True)[1]
