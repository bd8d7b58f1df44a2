"""Frozen value types that cross a border inside `prima_core` and out of it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SetAside:
    """A series (or a part of one) that the model does not use, and why, in words for an administrator."""

    series_instance_uid: str
    reason: str


@dataclass(frozen=True)
class PreparedSeries:
    """One series as the tokenizer takes it.

    patches: (U, 32, 32, 32) float32 with 4 instead of 32 on `thin_axis`: the distinct kept patches, ascending by id,
        scaled to 0…1 by the volume's maximum.
    token_ids: (T,) int64, the kept patches in the model's order. Patches may repeat; sorted and without repeats they
        are the rows of `patches`.
    coordinates: (T, 3) int64, first voxel (z, y, x) of each kept token in the padded volume.
    thin_axis: 0, 1 or 2: the acquisition's slice axis in (z, y, x) after reorientation to LPS.
    tokens_total: number of patches in the padded volume.
    sop_instance_uids: the images that the tokens were made of, in the order of their slices; thinned ones are not.
    notes: what was left out on the way and why (thinned slices, images of a minority size …).
    affine: (4, 4), voxel (z, y, x) of the padded volume → patient (x, y, z) in LPS millimetres; None where unknown.
    """

    series_instance_uid: str
    name: str
    patches: npt.NDArray[np.float32]
    token_ids: npt.NDArray[np.int64]
    coordinates: npt.NDArray[np.int64]
    thin_axis: int
    tokens_total: int
    sop_instance_uids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    affine: npt.NDArray[np.float64] | None = None

    @property
    def tokens_kept(self) -> int:
        """Length of the token sequence, duplicates counted."""
        return len(self.token_ids)


@dataclass(frozen=True)
class PreparedStudy:
    """All usable series of one study, ready for the model.

    description: StudyDescription as it is. age_years: the age that the scope check went by, None when unknown. seconds:
    what reading and preparing it took; 0 where nobody measured.
    """

    study_instance_uid: str
    description: str
    series: tuple[PreparedSeries, ...]
    set_aside: tuple[SetAside, ...] = ()
    age_years: float | None = field(default=None, repr=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def tokens_kept(self) -> int:
        """Tokens of all series, duplicates counted."""
        return sum(series.tokens_kept for series in self.series)


@dataclass(frozen=True)
class StudyPrediction:
    """What the model says of one study.

    diagnosis, referral: name → logit after the head's threshold was subtracted; above 0 is positive.
    priority: level name → logit (an argmax head, no threshold).
    study_embedding: (clsnum · D,) float32. clip_image_vector: unit length, float32.
    seconds: {tokenize, study_model, heads} of the whole batch, which was of `batch_studies` with `batch_tokens` in all.
    """

    study_instance_uid: str
    diagnosis: dict[str, float]
    referral: dict[str, float]
    priority: dict[str, float]
    study_embedding: npt.NDArray[np.float32]
    clip_image_vector: npt.NDArray[np.float32]
    precision: str
    seconds: dict[str, float] = field(default_factory=dict)
    batch_studies: int = 1
    batch_tokens: int = 0
