"""Architectures for training at a site. The released one is `prima_core.random_weights.released`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from prima_core.base.config import (
    Architecture,
    HeadShape,
    NameEncoderShape,
    TokenizerShape,
    TransformerShape,
    VitShape,
)
from prima_core.random_weights import PRIORITY_LEVELS, released


class ModelName(Enum):
    """What a command can be asked for."""

    SMALL = "small"
    RELEASED = "released"


def named(model: ModelName, diagnoses: Sequence[str] = (), referrals: Sequence[str] = ()) -> Architecture:
    """The architecture of that name; the outputs matter to heads alone."""
    return {ModelName.SMALL: small, ModelName.RELEASED: released}[model](diagnoses, referrals)


def small(diagnoses: Sequence[str], referrals: Sequence[str]) -> Architecture:
    """A model of a few megabytes that two CPU cores train on 2,000 studies within half an hour.

    The heads have one hidden layer; a stage that trains others replaces them.
    """
    token, study, series = 289, 128, 128
    names = TransformerShape(width=64, depth=2, heads=2, head_width=32, mlp_width=128)
    sequence = TransformerShape(token, depth=3, heads=4, head_width=32, mlp_width=256)
    studies = TransformerShape(study, depth=2, heads=4, head_width=32, mlp_width=256)
    outputs = {"diagnosis": tuple(diagnoses), "referral": tuple(referrals), "priority": PRIORITY_LEVELS}
    return Architecture(
        tokenizer=TokenizerShape((16,), (16,), 1, ((4, 4, 1, 0),), latent_channels=2),
        series_name=NameEncoderShape(names, output=token),
        study_description=NameEncoderShape(names, output=study),
        sequence_vit=VitShape(4, sequence, output=series),
        study_vit=VitShape(4, studies, output=128),
        heads=tuple(HeadShape(task, (4 * study, 64), names) for task, names in outputs.items() if names),
    )
