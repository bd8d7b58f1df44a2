"""Labels of many studies as arrays: what a head is asked for, and what of it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from training.base.cohort import StudyLabels
from training.base.errors import BadTrainingData

Numbers = npt.NDArray[np.float64]  # NaN where the label is unknown


def flags(labels: Mapping[str, StudyLabels], studies: Sequence[str], task: str, names: Sequence[str]) -> Numbers:
    """(studies, names) 1, 0 or NaN. task: diagnosis or referral."""
    known = [getattr(labels.get(study, StudyLabels()), task) for study in studies]
    rows = [[float(one[name]) if name in one else np.nan for name in names] for one in known]
    return np.array(rows, np.float64).reshape(len(studies), len(names))


def levels(
    labels: Mapping[str, StudyLabels], studies: Sequence[str], names: Sequence[str], left_out: Sequence[str] = ()
) -> Numbers:
    """(studies, 1) the position of the priority in `names`, or NaN.

    left_out: levels that are no output of the head, so that a study of one counts as unknown. Raises BadTrainingData
    for any other level that is not in `names`.
    """
    position = dict.fromkeys(left_out, np.nan) | {name: float(number) for number, name in enumerate(names)}
    found = [labels.get(study, StudyLabels()).priority for study in studies]
    if strange := sorted({level for level in found if level is not None and level not in position}):
        raise BadTrainingData(f"labels: unknown priority {strange[0]!r}; expected {', '.join(names)}")
    return np.array([np.nan if level is None else position[level] for level in found], np.float64)[:, None]


def levels_of(labels: Mapping[str, StudyLabels]) -> tuple[str, ...]:
    """All priorities that any study's labels have, sorted."""
    return tuple(sorted({one.priority for one in labels.values() if one.priority is not None}))


def levels_apart(labels: Mapping[str, StudyLabels], studies: Sequence[str], names: Sequence[str]) -> Numbers:
    """(studies, names) 1 where the study's priority is that one and 0 where it is another; NaN where it is unknown."""
    found = [labels.get(study, StudyLabels()).priority for study in studies]
    rows = [[np.nan if one is None else float(one == name) for name in names] for one in found]
    return np.array(rows, np.float64).reshape(len(studies), len(names))


def values(labels: Mapping[str, StudyLabels], studies: Sequence[str], name: str) -> Numbers:
    """(studies, 1) a number, or NaN."""
    return np.array([labels.get(study, StudyLabels()).value.get(name, np.nan) for study in studies], np.float64)[
        :, None
    ]


def names_of(labels: Mapping[str, StudyLabels], task: str) -> tuple[str, ...]:
    """All names that any study's labels have for diagnosis or referral, sorted."""
    return tuple(sorted({name for one in labels.values() for name in getattr(one, task)}))


def without_both_kinds(targets: Numbers, names: Sequence[str], least: int = 1) -> tuple[str, ...]:
    """The names of which fewer than `least` studies are known to be positive, or to be negative."""
    few = np.minimum((targets == 1).sum(axis=0), (targets == 0).sum(axis=0)) < least
    return tuple(name for name, short in zip(names, few, strict=True) if short)


def known_bce(logit_Bn: Tensor, target_Bn: Tensor) -> Tensor:
    """(B,) binary cross-entropy: of each row the mean over what is known, 0 where nothing is. NaN is unknown."""
    known_Bn = target_Bn.isfinite()
    loss_Bn = binary_cross_entropy_with_logits(logit_Bn, target_Bn.nan_to_num(0.0), reduction="none")
    mean_B: Tensor = torch.where(known_Bn, loss_Bn, 0.0).sum(dim=1) / known_Bn.sum(dim=1).clamp(min=1)
    return mean_B
