"""How much of everything: `full` to make a model, `quick` to see it work, `tiny` for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from prima_core.base.config import Architecture
from training.base.loop import LoopSettings
from training.phantom.case import SIMULATED
from training.stages.architecture import small
from training.stages.clip import ClipSettings
from training.stages.fit import FitSettings
from training.stages.heads import HeadsSettings, held_heads
from training.stages.localise import LocaliseSettings
from training.stages.series_names import SeriesNamesSettings
from training.stages.study_model import Dropout
from training.stages.text_tower import TextSettings
from training.stages.tokenizer import TokenizerSettings

REFERRALS = ("neurosurgery", "neurology")


@dataclass(frozen=True)
class Profile:
    """studies: of the teaching collection, which train. home: of other patients, for validation and test. away: of
    other scanners, for test alone.

    patch_studies: whose patches the tokenizer sees; other patients again. resamples: of the bootstrap. shares: of the
    training patients, for the scaling curve.
    """

    studies: int
    home: int
    away: int
    patch_studies: int
    tokenizer: TokenizerSettings
    names: SeriesNamesSettings
    localise: LocaliseSettings
    text: TextSettings
    clip: ClipSettings
    heads: HeadsSettings
    transfer: FitSettings
    resamples: int
    shares: tuple[float, ...]
    patches_per_series: int = 48
    architecture: Architecture = field(default_factory=lambda: small(SIMULATED, REFERRALS))


def full() -> Profile:
    """59 minutes on two cores of an AMD EPYC."""
    return _profile(
        studies=3800,
        home=450,
        away=200,
        patches=40,
        tokenizer=800,
        names=300,
        localise=1800,
        clip=1300,
        heads=2000,
        resamples=200,
    )


def quick() -> Profile:
    """8 minutes on two cores of an AMD EPYC; its figures are those of a model that has begun to learn."""
    return _profile(
        studies=210,
        home=60,
        away=40,
        patches=12,
        tokenizer=250,
        names=80,
        localise=260,
        clip=120,
        heads=800,
        resamples=50,
    )


def tiny() -> Profile:
    """Every stage feeds the next, and nothing is learned."""
    return _profile(
        studies=8,
        home=6,
        away=3,
        patches=3,
        tokenizer=3,
        names=3,
        localise=3,
        clip=3,
        heads=4,
        resamples=2,
        batches=(4, 4, 4),
        shares=(1.0,),
    )


PROFILES = {"full": full, "quick": quick, "tiny": tiny}
MIRRORED = 0.5  # share of draws in which left and right are exchanged
UNNAMED = 0.25  # share of series without a name in training: other sites name theirs otherwise


def _profile(
    *,
    studies: int,
    home: int,
    away: int,
    patches: int,
    tokenizer: int,
    names: int,
    localise: int,
    clip: int,
    heads: int,
    resamples: int,
    batches: tuple[int, int, int] = (32, 96, 16),
    shares: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0),
) -> Profile:
    """Steps of each stage; learning rates for models and cohorts of this size, not the paper's.

    batches: patches, series and studies an update.
    """
    of_patches, of_series, of_studies = batches
    of_embeddings = 2 * of_patches
    return Profile(
        studies=studies,
        home=home,
        away=away,
        patch_studies=patches,
        tokenizer=TokenizerSettings(
            LoopSettings(tokenizer, of_patches, warmup=min(100, tokenizer // 4), device="cpu", checkpoint_every=200),
            codes=256,
            learning_rate=2e-3,
        ),
        names=SeriesNamesSettings(
            LoopSettings(names, of_series, warmup=min(30, names // 4), device="cpu", checkpoint_every=100),
            Dropout(series=0.0, names=0.0, most_tokens=32),
            learning_rate=1e-3,
        ),
        localise=LocaliseSettings(
            LoopSettings(
                localise, of_series, warmup=min(60, localise // 4), device="cpu", clip_norm=5.0, checkpoint_every=100
            ),
            names=UNNAMED,
            mirrored=MIRRORED,
            muon=2e-3,
            muon_decay=0.1,
        ),
        text=TextSettings(width=96, depth=2, heads=4, vocabulary=1024),
        clip=ClipSettings(
            LoopSettings(
                clip,
                of_studies,
                warmup=min(60, clip // 4),
                device="cpu",
                clip_norm=5.0,
                checkpoint_every=100,
                validate_every=max(clip // 5, 1),
            ),
            dropout=Dropout(names=UNNAMED, most_tokens=96),
            learning_rate=7e-4,
            muon=1e-3,
            muon_decay=0.1,
            second_moment=0.98,
            temperature=2.7,
            abnormal_extra=0,
            mirrored=MIRRORED,
            label_weight=66.0,
            place_weight=100.0,
        ),
        heads=held_heads(heads, of_embeddings, leave_out=True),
        transfer=FitSettings(
            LoopSettings(heads, of_embeddings, device="cpu", validate_every=max(heads // 20, 1)),
            hidden=(64,),
            learning_rate=1e-3,
        ),
        resamples=resamples,
        shares=shares,
    )
