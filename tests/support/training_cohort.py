"""Small made-up cohorts for tests of training: what is in a study shows in its tokens and in its report."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from prima_core.base.config import (
    Architecture,
    HeadShape,
    NameEncoderShape,
    TokenizerShape,
    TransformerShape,
    VitShape,
)
from training.base.cohort import StudyLabels, StudyRecord, StudyReport
from training.base.loop import LoopSettings
from training.base.splits import Split
from training.prepare.store import (
    TOKENS,
    StoreWriter,
    StudyEntry,
    TokenizedSeries,
    TokenizedStudy,
    TokenStore,
)
from training.stages.clip import ClipSettings, Cohort, train_clip
from training.stages.text_tower import TextSettings

TEXT = TextSettings(width=16, depth=1, heads=2, vocabulary=300, most_tokens=32)
CLIP = ClipSettings(LoopSettings(6, 6, warmup=2, device="cpu", checkpoint_every=2), learning_rate=2e-3, temperature=2.7)
FINDINGS = ("no finding", "tumour", "haemorrhage", "infarct", "cyst", "abscess")


def tiny() -> Architecture:
    """A model of a few thousand parameters."""
    shape = TransformerShape(161, depth=1, heads=2, head_width=16, mlp_width=64)
    names = NameEncoderShape(TransformerShape(32, depth=1, heads=2, head_width=8, mlp_width=32), output=161)
    studies = TransformerShape(32, depth=1, heads=2, head_width=16, mlp_width=64)
    return Architecture(
        tokenizer=TokenizerShape((8,), (8,), 1, ((4, 4, 1, 0),), latent_channels=1),
        series_name=names,
        study_description=NameEncoderShape(names.transformer, output=32),
        sequence_vit=VitShape(2, shape, output=32),
        study_vit=VitShape(2, studies, output=16),
        heads=(HeadShape("diagnosis", (64, 8), ("tumour",)),),
    )


def tokenized(number: int, seed: int = 0) -> TokenizedStudy:
    """Study `number`, of two or three series; its finding is FINDINGS[number % 6], which its latents show."""
    draw = np.random.default_rng([seed, number])
    mark = np.random.default_rng(number % len(FINDINGS)).standard_normal(128)
    return TokenizedStudy(f"{number:016x}", "MR head", tuple(_series(n, mark, draw) for n in range(2 + number % 2)))


def _series(number: int, mark: np.ndarray, draw: np.random.Generator) -> TokenizedSeries:
    axis, patches, tokens = number % 3, int(draw.integers(5, 9)), 12
    latents = (0.5 * mark + draw.standard_normal((patches, 128))).reshape(patches, 1, 2, 8, 8)
    ids = np.sort(np.concatenate([np.arange(patches), draw.integers(0, patches, tokens - patches)]))
    edge = np.array([4 if n == axis else 32 for n in range(3)])
    return TokenizedSeries(
        name=f"series_{number}",
        latents=np.ascontiguousarray(latents.swapaxes(2, 2 + axis)).astype(np.float16),
        token_ids=ids * 3,
        coordinates=draw.integers(0, 6, (tokens, 3)) * edge,
        thin_axis=axis,
    )


def cohort(folder: Path, training: int = 12, validation: int = 6) -> Cohort:
    """A cohort in a real token store. A study's report names its finding first, then says something that all say."""
    studies = [tokenized(number) for number in range(training + validation)]
    found = [FINDINGS[number % len(FINDINGS)] for number in range(len(studies))]
    reports = [StudyReport((f"There is {finding}.", "The sinuses are clear.")) for finding in found]
    labels = [StudyLabels({"tumour": finding == "tumour"}) for finding in found]
    with StoreWriter(folder, TOKENS, {"encoder": "made up"}) as writer:
        for study, label, report in zip(studies, labels, reports, strict=True):
            writer.add(StudyEntry(StudyRecord(study.study, study.study), study, label, report))
    return open_cohort(folder, training)


def open_cohort(folder: Path, training: int = 12) -> Cohort:
    """The cohort of `cohort`, read again."""
    store = TokenStore(folder)
    names = [record.study for record in store.records]
    split = Split(tuple(names[:training]), tuple(names[training:]), ())
    return Cohort(store, store.reports(), store.labels(), split)


def train_clip_alone(folder: Path, steps: int, into: str = "clip1") -> None:
    """CLIP on the cohort in `folder`, in `folder / into`."""
    settings = replace(CLIP, loop=replace(CLIP.loop, steps=steps), label_weight=0.5)
    train_clip(open_cohort(folder / "store"), tiny(), folder / "text", folder / into, settings)


def train_one_of_two(rank: int, port: int, folder: Path, steps: int) -> None:
    """What each of two processes on this machine runs: `train_clip_alone` together, over gloo."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {name: str(value) for name, value in place.items()}
    torch.set_num_threads(1)
    train_clip_alone(folder, steps, "clip2")
    torch.distributed.destroy_process_group()
