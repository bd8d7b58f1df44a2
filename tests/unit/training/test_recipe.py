"""The default settings are the published recipe (arXiv 2509.18638): every number of it, by name."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from prima_core.base.config import HeadShape
from support.training_cohort import TEXT, cohort, tiny
from training.stages.clip import ClipSettings, ClipStage
from training.stages.fit import Examples, FitSettings, Kind, _HeadStage
from training.stages.heads import HeadsSettings
from training.stages.study_model import UNKNOWN_NAME
from training.stages.text_tower import make_text_tower
from training.stages.tokenizer import AXES, TokenizerSettings

CLIP, HEADS, TOKENIZER = ClipSettings(), HeadsSettings(), TokenizerSettings()


@pytest.mark.parametrize(
    ("what", "is_now", "published"),
    [
        ("tokenizer: codebook", TOKENIZER.codes, 8192),
        ("tokenizer: orders of the spatial axes", set(AXES), set(permutations((1, 2, 3)))),
        ("CLIP: t at the start", CLIP.temperature, 0.07),
        ("CLIP: series-discrimination weight", CLIP.series_weight, 0.03),
        ("CLIP: token dropout", CLIP.dropout.tokens, 0.03),
        ("CLIP: series dropout", CLIP.dropout.series, 0.08),
        ("CLIP: series-name dropout", CLIP.dropout.names, 0.07),
        ("CLIP: what a dropped name becomes", UNKNOWN_NAME, "unk"),
        ("CLIP: tokens of a series", CLIP.dropout.most_tokens, 0),
        ("CLIP: extra times of abnormal studies", CLIP.abnormal_extra, 3),
        ("CLIP: learning rate", CLIP.learning_rate, 2e-6),
        ("CLIP: weight decay", CLIP.weight_decay, 1e-4),
        ("CLIP: warm-up steps", CLIP.loop.warmup, 200),
        ("CLIP: probe of labels", CLIP.label_weight, 0.0),
        ("heads: noise", HEADS.fit.noise, 0.01),
        ("heads: learning rate", HEADS.fit.learning_rate, 1e-5),
        ("heads: hidden widths", HEADS.fit.hidden, (4000, 1000)),
        ("heads: learning rate behind the warm-up", HEADS.fit.loop.factor(19_999), 1.0),
    ],
)
def test_defaults_are_the_published_ones(what: str, is_now: object, published: object) -> None:
    assert is_now == published, what


def test_optimizers_are_the_published_ones(tmp_path: Path) -> None:
    studies = cohort(tmp_path / "store", training=4, validation=2)
    make_text_tower(studies.reports.values(), tmp_path / "text", TEXT)
    clip = ClipStage(studies, tiny(), tmp_path / "text", CLIP, None)
    some = Examples(np.ones((4, 3), np.float32), np.array([[0.0], [1.0], [0.0], [1.0]]))
    head = _HeadStage(HeadShape("diagnosis", (3,), ("x",)), Kind.FLAGS, some, some, FitSettings(HEADS.fit.loop, ()))
    assert type(clip.optimizer) is torch.optim.Adam
    assert type(head.optimizer) is torch.optim.RMSprop
    assert float(clip.module.scale().detach()) == pytest.approx(math.exp(0.07)), "the temperature is learned as exp(t)"
    assert clip.module.temperature.requires_grad
