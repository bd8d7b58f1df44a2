"""An answer explained on the images: which series it rests on, where in them, and the slices that show it best.

    explained = explain(model, study, files, questions, ExplanationSettings())

files: the path of each SOP Instance UID that the study was prepared from. Only the slices of explained series are read
again. Where memory does not suffice for the wanted number of samples, half as many are tried, and it is noted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.explanation import SAMPLES, Attribution, Explainer, Question, agreement
from prima_core.prima import Prima
from prima_core.volume.geometry import read_slice
from prima_core.volume.headers import read_image_header
from prima_core.volume.heat_map import HeatMap, heat_map
from prima_core.volume.series import Slice, choose_volume
from prima_core.volume_tokenizer import Progress

FEWEST_SAMPLES = 32
GRADIENT = "gradient of the score"
STRONG = 0.5  # of the strongest patch's value: patches from here on are the region that is shown

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExplanationSettings:
    """How answers are explained.

    series: of each question, those that it rests on most. slices: shown of each series. samples, seed: of LIME.
    """

    method: Literal["lime", "gradient"] = "lime"
    series: int = 2
    slices: int = 2
    samples: int = SAMPLES
    seed: int = 0


@dataclass(frozen=True)
class KeySlice:
    """One slice of the source. position: in the stack, from 0."""

    plane: Slice
    position: int
    pixels: Values
    heat: Values

    @property
    def sop_instance_uid(self) -> str:
        """The image that it is, or is a frame of."""
        return self.plane.image.sop_instance_uid

    @property
    def frame_number(self) -> int | None:
        """Its frame, from 1, where the image has several."""
        several = len({frame.index for frame in self.plane.image.frames}) > 1
        return self.plane.frame.index + 1 if several else None


@dataclass(frozen=True)
class ExplainedSeries:
    """Where in one series an answer comes from.

    share: by how much the logit falls without the series. method: how the explanation was made, in words. samples:
    masks that were answered, 0 for a gradient. fit: R² of the linear fit. agreement: rank correlation of LIME with the
    gradient. heat: what each patch adds to the logit. slices: those of the whole stack, in its order. key: those that
    show it best, the best one first.
    """

    question: Question
    series: PreparedSeries
    share: float
    method: str
    samples: int
    fit: float | None
    agreement: float | None
    heat: HeatMap
    slices: tuple[Slice, ...]
    key: tuple[KeySlice, ...]

    @property
    def strongest(self) -> float:
        """The highest value of a patch; not positive where nothing in the series speaks for the answer."""
        return float(np.nanmax(self.heat.value_ZYX))

    def region(self, plane: Slice) -> npt.NDArray[np.bool_]:
        """(rows, columns) pixels of a slice that lie in patches of at least STRONG of the strongest one's value."""
        return self.heat.on(plane.frame) >= max(STRONG * self.strongest, np.finfo(float).tiny)


def explain(
    model: Prima,
    study: PreparedStudy,
    files: Mapping[str, Path],
    questions: Sequence[Question],
    settings: ExplanationSettings,
    progress: Progress | None = None,
) -> list[ExplainedSeries]:
    """For each question, in their order, the series that speak for it, the weightiest first; perhaps none.

    progress: hears of every chunk of work; what it raises ends the work. Raises MemoryError or torch.OutOfMemoryError
    where not even FEWEST_SAMPLES fit, UnusableSeries or OSError when a source image cannot be read again.
    """
    explainer = Explainer(model, study, progress)
    shares_SQ = explainer.series_shares(questions)
    chosen = [_weightiest(shares_S, settings.series) for shares_S in shares_SQ.T]
    found: dict[tuple[int, int], ExplainedSeries] = {}
    for number in sorted({one for series in chosen for one in series}):
        asked = [n for n, series in enumerate(chosen) if number in series]
        attributions, samples = _attributions(explainer, number, [questions[n] for n in asked], settings, progress)
        slopes = explainer.gradient(number, [questions[n] for n in asked])
        slices = source_slices(study.series[number], files)
        for n, attribution, slope in zip(asked, attributions, slopes, strict=True):
            heat = heat_map(study.series[number], attribution.value_U)
            found[n, number] = ExplainedSeries(
                question=questions[n],
                series=study.series[number],
                share=float(shares_SQ[number, n]),
                method=_in_words(samples, settings),
                samples=samples,
                fit=attribution.fit,
                agreement=agreement(attribution, slope) if samples else None,
                heat=heat,
                slices=slices,
                key=key_slices(heat, slices, settings.slices),
            )
    return [found[n, number] for n, series in enumerate(chosen) for number in series]


def _weightiest(shares_S: Values, count: int) -> list[int]:
    """The series whose absence lowers a logit, the most first; the only one of a study in any case."""
    order = [int(number) for number in np.argsort(-shares_S, kind="stable")[:count]]
    return order if len(shares_S) == 1 else [number for number in order if shares_S[number] > 0]


def source_slices(series: PreparedSeries, files: Mapping[str, Path]) -> tuple[Slice, ...]:
    """The slices that a series was prepared from, in the order of their stack."""
    return choose_volume([read_image_header(files[uid]) for uid in series.sop_instance_uids]).slices


def key_slices(heat: HeatMap, slices: Sequence[Slice], count: int) -> tuple[KeySlice, ...]:
    """The slices through the strongest patches, at most `count`, none through a patch that another one shows."""
    planes = [_offset_along_normal(plane) for plane in slices]
    apart = heat.patch[int(np.argmin(heat.patch))] / 2
    chosen: list[int] = []
    order = np.argsort(-np.nan_to_num(heat.value_ZYX, nan=-np.inf).ravel(), kind="stable")
    for cell in zip(*np.unravel_index(order, heat.value_ZYX.shape), strict=True):
        if len(chosen) == count or not heat.value_ZYX[cell] > 0:
            break
        along = float(heat.centre(cell) @ _normal(slices[0]))
        nearest = int(np.argmin([abs(offset - along) for offset in planes]))
        if all(abs(nearest - other) > apart for other in chosen):
            chosen.append(nearest)
    return tuple(KeySlice(slices[n], n, read_slice(slices[n]), heat.on(slices[n].frame)) for n in chosen)


def _attributions(
    explainer: Explainer,
    series: int,
    questions: Sequence[Question],
    settings: ExplanationSettings,
    progress: Progress | None,
) -> tuple[list[Attribution], int]:
    """The attributions, and the number of samples they rest on."""
    if settings.method == "gradient":
        return explainer.gradient(series, questions), 0
    samples = settings.samples
    while True:
        try:
            return explainer.lime(series, questions, samples, settings.seed, progress), samples
        except (MemoryError, torch.OutOfMemoryError):
            if samples // 2 < FEWEST_SAMPLES:
                raise
            samples //= 2


def _in_words(samples: int, settings: ExplanationSettings) -> str:
    if not samples:
        return GRADIENT
    words = f"LIME, {samples} samples, seed {settings.seed}"
    fewer = f"; fewer samples than configured: {settings.samples} (memory)"
    return words if samples == settings.samples else words + fewer


def _normal(plane: Slice) -> Values:
    row, column = np.reshape(np.array(plane.frame.orientation), (2, 3))
    return np.cross(row, column)


def _offset_along_normal(plane: Slice) -> float:
    return float(np.array(plane.frame.position) @ _normal(plane))
