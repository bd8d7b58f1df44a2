"""The whole model: prepared studies → predictions. Tokenizer, sequence ViT, study ViT and heads, in this order.

Several studies go through every stage at once; a study's prediction does not depend on its company. Each stage is a
method of its own, so that a test can look at what lies between. No method changes its input.

Legend of the suffixes: S series of all studies, B studies, D series embedding width, P study embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prima_core.base.config import Architecture
from prima_core.base.device import Runtime
from prima_core.base.errors import PrimaError
from prima_core.base.types import PreparedSeries, PreparedStudy, StudyPrediction
from prima_core.name_encoder import NameEncoder
from prima_core.names import name_codes
from prima_core.sequence_vit import SequenceVit
from prima_core.study_vit import StudyVit
from prima_core.task_heads import TaskHeads, Thresholds
from prima_core.vit_input import vit_input
from prima_core.volume_tokenizer import PatchSet, Progress, VolumeTokenizer

NOT_FINITE = "the model's result is not finite: the input or the weights are unusable"


class LatentStore(Protocol):
    """Where the latents of series that were encoded before are found, exactly as they were, if they are found.

    Neither method raises: what ails a store is no trouble of a study.
    """

    def find(self, series: PreparedSeries) -> npt.NDArray[np.float32] | None:
        """(U, C, z, y, x) the latents of this series' patches, in their order, or None."""

    def keep(self, series: PreparedSeries, latents: npt.NDArray[np.float32]) -> None:
        """Take latents that were just computed."""


class Prima(nn.Module):
    """The model of one bundle; `bundle.build_model` makes it ready to run."""

    def __init__(self, architecture: Architecture, thresholds: Thresholds) -> None:
        super().__init__()
        self.tokenizer = VolumeTokenizer(architecture.tokenizer)
        self.series_name = NameEncoder(architecture.series_name)
        self.study_description = NameEncoder(architecture.study_description)
        self.sequence_vit = SequenceVit(architecture.sequence_vit)
        self.study_vit = StudyVit(architecture.study_vit)
        self.heads = TaskHeads(architecture.heads, thresholds)
        self.runtime = Runtime(torch.device("cpu"), "fp32")
        self.store: LatentStore | None = None  # only what is given one reuses latents

    def place(self, runtime: Runtime) -> Prima:
        """Move to the runtime's device, tokenizer in its precision, for inference only. Returns itself."""
        self.runtime = runtime
        self.eval().requires_grad_(False).to(runtime.device)
        self.tokenizer.place(runtime)
        return self

    def predict_one(self, study: PreparedStudy, progress: Progress | None = None) -> StudyPrediction:
        """As `predict`, for one study. Raises its PrimaError."""
        (outcome,) = self.predict([study], progress)
        if isinstance(outcome, PrimaError):
            raise outcome
        return outcome

    def predict(
        self, studies: Sequence[PreparedStudy], progress: Progress | None = None
    ) -> list[StudyPrediction | PrimaError]:
        """What the model says of each study, in their order; a PrimaError for one of which it can say nothing.

        Such a study (malformed, or a result that is not finite) leaves its companions as they are. `progress(done,
        total)` hears of tokens as they are encoded. `seconds` {tokenize, study_model, heads} are those of the whole
        batch. Raises only what says nothing of a single study: memory, the device, what `progress` raises.
        """
        flaws = [_flaw(study) for study in studies]
        sound = [study for study, flaw in zip(studies, flaws, strict=True) if not flaw]
        predictions = iter(self._predict(sound, progress) if sound else [])
        return [PrimaError(flaw) if flaw else next(predictions) for flaw in flaws]

    @torch.inference_mode()
    def _predict(
        self, studies: Sequence[PreparedStudy], progress: Progress | None
    ) -> list[StudyPrediction | PrimaError]:
        clock = _Clock(self.runtime)
        latents = self.latents(studies, progress)
        clock.lap("tokenize")
        study_BP = self.study_embeddings(studies, self.series_embeddings(studies, latents))
        clip_BV = self.study_vit.clip_vector(study_BP)
        clock.lap("study_model")
        logits = self.heads(study_BP, clip_BV)
        clock.lap("heads")
        predictions = [
            StudyPrediction(
                study_instance_uid=study.study_instance_uid,
                diagnosis=tasks.get("diagnosis", {}),
                referral=tasks.get("referral", {}),
                priority=tasks.get("priority", {}),
                study_embedding=embedding.numpy(),
                clip_image_vector=clip.numpy(),
                precision=self.runtime.precision,
                seconds=dict(clock.seconds),
                batch_studies=len(studies),
                batch_tokens=sum(one.tokens_kept for one in studies),
            )
            for study, tasks, embedding, clip in zip(studies, logits, study_BP.cpu(), clip_BV.cpu(), strict=True)
        ]
        return [prediction if _finite(prediction) else PrimaError(NOT_FINITE) for prediction in predictions]

    @torch.inference_mode()
    def latents(self, studies: Sequence[PreparedStudy], progress: Progress | None = None) -> list[Tensor]:
        """Latents of each series' distinct patches, series of all studies in order; kept ones are not computed."""
        store, every = self.store, _all_series(studies)
        kept = [store.find(series) if store else None for series in every]
        missing = [series for series, latents in zip(every, kept, strict=True) if latents is None]
        encoded = self.tokenizer.encode([PatchSet(series.patches, series.thin_axis) for series in missing], progress)
        if store:
            for series, latents in zip(missing, encoded, strict=True):
                store.keep(series, latents.cpu().numpy())
        computed = iter(encoded)
        return [next(computed) if latents is None else self.runtime.take(latents) for latents in kept]

    @torch.inference_mode()
    def vit_inputs(self, studies: Sequence[PreparedStudy], latents: Sequence[Tensor]) -> list[Tensor]:
        """The sequence ViT's tokens of each series; repeated tokens share their patch's latents."""
        return [
            vit_input(
                patch_latents[_patch_rows(series).to(patch_latents.device)],
                torch.from_numpy(series.coordinates.copy()).to(patch_latents.device),
                series.thin_axis,
            )
            for series, patch_latents in zip(_all_series(studies), latents, strict=True)
        ]

    @torch.inference_mode()
    def series_embeddings(self, studies: Sequence[PreparedStudy], latents: Sequence[Tensor]) -> Tensor:
        """(S, D) float32: series of all studies in order."""
        tokens = self.vit_inputs(studies, latents)
        name_SD = self.series_name([name_codes(series.name) for series in _all_series(studies)])
        result: Tensor = self.sequence_vit(name_SD, torch.cat(tokens), [len(one) for one in tokens])
        return result

    @torch.inference_mode()
    def study_embeddings(self, studies: Sequence[PreparedStudy], series_SD: Tensor) -> Tensor:
        """(B, P) float32."""
        description_BD = self.study_description([name_codes(study.description) for study in studies])
        result: Tensor = self.study_vit(description_BD, series_SD, [len(study.series) for study in studies])
        return result


def _flaw(study: PreparedStudy) -> str:
    """Why the model cannot be run on a study, or an empty string."""
    if not study.series:
        return "the study has no series"
    if any(len(np.unique(series.token_ids)) != len(series.patches) for series in study.series):
        return "the study has a series whose tokens do not fit its patches"
    return ""


def _finite(prediction: StudyPrediction) -> bool:
    logits = [*prediction.diagnosis.values(), *prediction.referral.values(), *prediction.priority.values()]
    vectors = prediction.study_embedding, prediction.clip_image_vector
    return bool(np.isfinite(logits).all() and all(np.isfinite(vector).all() for vector in vectors))


def _all_series(studies: Sequence[PreparedStudy]) -> list[PreparedSeries]:
    return [series for study in studies for series in study.series]


def _patch_rows(series: PreparedSeries) -> Tensor:
    """The row in `patches` of every token."""
    return torch.from_numpy(np.unique(series.token_ids, return_inverse=True)[1])


class _Clock:
    """Seconds of successive stages."""

    def __init__(self, runtime: Runtime) -> None:
        self.seconds: dict[str, float] = {}
        self._runtime = runtime
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        self._runtime.synchronize()
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
