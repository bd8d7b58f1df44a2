"""A site's own labels → a bundle that the node takes, evaluated on patients who were not trained on.

    retrain_heads(run, base, out, settings)                  from study embeddings: minutes, no images
    retrain_full(run, source, base, out, settings, stages)   every stage, from images and reports

A finding that the base bundle reports and the new one would not is named and refused unless `allow_fewer`: nobody may
learn of a missing diagnosis from its absence. Both resume in the run's folder, and return a bundle with its evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from prima_core.base.config import TASKS, Architecture, HeadShape
from prima_core.bundle import Bundle, BundleManifest
from prima_core.random_weights import PRIORITY_LEVELS
from training.base.checkpoint import write_json
from training.base.cohort import StudyLabels
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.base.splits import Split
from training.evaluate.figures import RESAMPLES
from training.evaluate.held_out import TEST_PART, held_out, write_evaluation
from training.evaluate.record import EvaluationSet, evaluation_record, judge_set
from training.prepare.encode import Encoder
from training.prepare.run import FillResult, fill_store
from training.prepare.source import Source
from training.prepare.store import TokenStore
from training.run_folder import RunFolder
from training.stages.clip import STUDY_MODEL, ClipSettings, Cohort, train_clip
from training.stages.embed import embed_store
from training.stages.export import attach_evaluation, export_bundle
from training.stages.heads import HeadsSettings, TrainedHeads, held_heads, joined, train_heads
from training.stages.series_names import SeriesNamesSettings, train_series_names
from training.stages.start import start_of
from training.stages.targets import flags, levels, names_of, without_both_kinds
from training.stages.text_tower import TextSettings, make_text_tower
from training.stages.tokenizer import ENCODER, TokenizerSettings, read_patches, train_tokenizer

LARGE = 512  # width of a study ViT from which on the paper's slow settings are right; small models never end with them

Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class RetrainSettings:
    """version: of the new bundle, beside the base's. training_state: None keeps the base's.

    allow_fewer: whether the new bundle may report less than the base. resamples: of the bootstrap.
    """

    version: str
    training_state: str | None = None
    heads: HeadsSettings = field(default_factory=held_heads)
    allow_fewer: bool = False
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class StageSettings:
    """tokenizer: None keeps the base's, and goes on from its study model if that was trained.

    patch_studies: whose patches a new one is trained on. workers: processes.
    """

    tokenizer: TokenizerSettings | None
    names: SeriesNamesSettings
    clip: ClipSettings
    text: TextSettings = field(default_factory=TextSettings)
    patch_studies: int = 300
    patches_per_series: int = 32
    workers: int = 2
    device: str = "cpu"


def stage_settings(
    architecture: Architecture, *, steps: int, tokenizer_steps: int, keep_tokenizer: bool, workers: int, device: str
) -> StageSettings:
    """Settings by the architecture's size. steps: of CLIP. device: cpu or auto."""
    large = architecture.study_vit.transformer.width >= LARGE
    on: Literal["auto", "cpu"] = "cpu" if device == "cpu" else "auto"
    every = max(steps // 20, 1)
    clip = ClipSettings(LoopSettings(steps, 32, warmup=min(200, steps // 4), device=on, validate_every=every))
    if not large:
        clip = replace(clip, learning_rate=1e-3, temperature=2.7, label_weight=1.0)
    of_names = LoopSettings(max(steps // 10, 1), 96, warmup=min(200, steps // 40), device=on)
    names = SeriesNamesSettings(of_names, learning_rate=1e-4 if large else 1e-3)
    loop = LoopSettings(tokenizer_steps, 64, warmup=min(200, tokenizer_steps // 4), device=on)
    tokenizer = TokenizerSettings(loop, architecture.tokenizer, codes=8192 if large else 512)
    if not large:
        tokenizer = replace(tokenizer, learning_rate=1e-3)
    return StageSettings(None if keep_tokenizer else tokenizer, names, clip, workers=workers, device=device)


@dataclass(frozen=True)
class Plan:
    """outputs: of each task that can be learned from the labels. left_out: what the labels name and cannot teach."""

    outputs: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...]

    def lost(self, base: BundleManifest, kept: Sequence[str]) -> tuple[str, ...]:
        """What the base reports and the new bundle would not, as task.name. kept: tasks whose heads stay."""
        return tuple(
            f"{task}.{name}"
            for task in TASKS
            if task not in kept
            for name in base.labels[task]
            if name not in self.outputs.get(task, ())
        )


def plan(labels: Mapping[str, StudyLabels], split: Split, settings: HeadsSettings) -> Plan:
    """What these labels would teach. Raises BadTrainingData for an unknown level, and when it is nothing."""
    training = {study: labels[study] for study in split.train if study in labels}
    outputs: dict[str, tuple[str, ...]] = {}
    left_out: list[str] = []
    for task in ("diagnosis", "referral"):
        named, known = names_of(labels, task), names_of(training, task)
        short = without_both_kinds(flags(labels, split.train, task, known), known, settings.least) if known else ()
        outputs[task] = tuple(name for name in known if name not in short)
        left_out += [f"{task}.{name}" for name in named if name not in outputs[task]]
    found = levels(labels, split.train, settings.levels)
    if np.isfinite(found).any():
        known = tuple(name for n, name in enumerate(settings.levels) if (found == n).sum() >= settings.least)
        outputs["priority"] = known
        left_out += [f"priority.{name}" for name in settings.levels if name not in known]
    learned = {task: names for task, names in outputs.items() if names}
    if not learned:
        raise BadTrainingData("no study of the training part has a label that can be learned; add labelled studies")
    return Plan(learned, tuple(left_out))


@dataclass(frozen=True)
class _Made:
    """heads: all of the new bundle. trained: those of them that are new. before: the base's, of the same tasks."""

    body: Weights
    heads: TrainedHeads
    trained: TrainedHeads
    before: TrainedHeads | None = None


def retrain_heads(run: RunFolder, base: Bundle, out: Path, settings: RetrainSettings) -> Bundle:
    """Train heads on the base's own embeddings. A task that no training study has a label of keeps the base's head.

    run: records, labels and embeddings of the base's encoder. out: the new bundle's folder. Raises BadTrainingData (too
    few examples, no test study, fewer findings than the base), and what `train_heads` raises.
    """
    labels, split = run.labels(), run.split()
    wanted = _with_levels(settings.heads, base)
    planned = plan(labels, split, wanted)
    kept = [task for task in TASKS if task not in planned.outputs]
    _check(planned, base.manifest, kept, settings)
    test = held_out(run)
    trained = train_heads(run.embeddings(), labels, split, run / "heads", wanted)
    tensors = _weights_of(base)
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("heads.")}
    heads = joined(trained, _heads_of(base, tensors, kept))
    before = _heads_of(base, tensors, list(planned.outputs), source="study")
    made = _Made(body, heads, trained, before if before.shapes else None)
    return _finished(run, base, out, settings, planned, test, made)


def retrain_full(
    run: RunFolder, source: Source, base: Bundle, out: Path, settings: RetrainSettings, stages: StageSettings
) -> Bundle:
    """Train every stage, in the base's architecture, on the studies of `source`.

    The study model goes on from the base's where its tokenizer is kept, else it begins anew. Whom the base was trained
    on nobody here knows: some of them may be judged now. No head of the base can be kept: its embeddings were others.
    Raises BadTrainingData and whatever a stage raises.
    """
    architecture = base.manifest.architecture
    encoder = _encoder(run, source, base, stages)
    _fill_once(run / "store", lambda out: fill_store(source, out, encoder, workers=stages.workers))
    store, split = run.store(), run.split()
    labels, reports = run.labels(), store.reports()
    wanted = _with_levels(settings.heads, base)
    planned = plan(labels, split, wanted)
    if "priority" not in planned.outputs:
        raise BadTrainingData("no study of the training part has a priority; the node needs a priority head to report")
    _check(planned, base.manifest, (), settings)
    make_text_tower((reports[study] for study in split.train if study in reports), run / "text", stages.text)
    cohort, start = Cohort(store, reports, labels, split), _start(run, base, store, split, stages)
    train_clip(cohort, architecture, run / "text", run / "clip", stages.clip, start)
    embeddings = embed_store(store, run / "clip", run / "embeddings.safetensors", stages.device)
    test = held_out(run)
    heads = train_heads(embeddings, labels, split, run / "heads", wanted)
    body: Weights = {**load_file(run / "clip" / STUDY_MODEL), **load_file(encoder.weights)}
    return _finished(run, base, out, settings, planned, test, _Made(body, heads, heads))


def _with_levels(heads: HeadsSettings, base: Bundle) -> HeadsSettings:
    """The site's mapping of priorities knows the base's levels."""
    return replace(heads, levels=base.manifest.labels["priority"] or PRIORITY_LEVELS)


def _check(planned: Plan, base: BundleManifest, kept: Sequence[str], settings: RetrainSettings) -> None:
    if planned.left_out and not settings.heads.leave_out:
        raise BadTrainingData(
            f"too few positive or negative training studies of {', '.join(planned.left_out)}; "
            "add labels, or leave such findings out of the bundle (--leave-out)"
        )
    if (lost := planned.lost(base, kept)) and not settings.allow_fewer:
        raise BadTrainingData(
            f"the new bundle would no longer report {', '.join(lost)}; add labels, or allow it (--allow-fewer)"
        )


def _encoder(run: RunFolder, source: Source, base: Bundle, stages: StageSettings) -> Encoder:
    """The base's tokenizer, or a new one from patches of patients who train."""
    shape = base.manifest.architecture.tokenizer
    if stages.tokenizer is None:
        return Encoder(shape, base.directory / "tokenizer.safetensors", stages.device)
    most, each = stages.patch_studies, stages.patches_per_series
    _fill_once(
        run / "patches",
        lambda out: fill_store(source, out, workers=stages.workers, patches_per_series=each, limit=most),
    )
    patches = TokenStore(run / "patches")
    split = run.split_of(patches.records)
    training, validation = (read_patches(patches, part) for part in (split.train, split.validation))
    train_tokenizer(training, validation, run / "tokenizer", stages.tokenizer, (*split.train, *split.validation))
    return Encoder(shape, run / "tokenizer" / ENCODER, stages.device)


def _start(run: RunFolder, base: Bundle, store: TokenStore, split: Split, stages: StageSettings) -> Path:
    """The base's study model where it was trained on the same tokenizer's tokens, else what series names teach."""
    if stages.tokenizer is None and base.manifest.training_state != "untrained":
        return start_of(base, run / "base")
    train_series_names(store, split.train, base.manifest.architecture, run / "series_names", stages.names)
    return run / "series_names"


def _fill_once(out: Path, fill: Callable[[Path], FillResult]) -> None:
    """A run keeps the studies that it began with: later ones would change what its stages were trained on."""
    note = out.with_name(f"{out.name}.json")
    if not note.exists():
        write_json(note, asdict(fill(out)))


def _weights_of(bundle: Bundle) -> Weights:
    return {
        name: tensor for file in bundle.manifest.files for name, tensor in load_file(bundle.directory / file).items()
    }


def _heads_of(bundle: Bundle, tensors: Weights, tasks: Sequence[str], source: str | None = None) -> TrainedHeads:
    """A bundle's heads of these tasks, numbered anew. source: only those that read it."""
    shapes: list[HeadShape] = []
    weights: Weights = {}
    for number, shape in enumerate(bundle.manifest.architecture.heads):
        if shape.task in tasks and source in (None, shape.source):
            old, new = f"heads.mlps.{number}.", f"heads.mlps.{len(shapes)}."
            weights |= {new + key.removeprefix(old): one for key, one in tensors.items() if key.startswith(old)}
            shapes.append(shape)
    thresholds = {task: dict(cuts) for task, cuts in bundle.manifest.thresholds.items() if task in tasks}
    temperatures = {task: bundle.manifest.calibration[task] for task in tasks}
    return TrainedHeads(tuple(shapes), weights, thresholds, temperatures)


def _finished(
    run: RunFolder, base: Bundle, out: Path, settings: RetrainSettings, planned: Plan, test: EvaluationSet, made: _Made
) -> Bundle:
    """Judge, export, and put the evaluation beside the bundle."""
    simulated = run.training_state() == "phantom"  # whatever was asked for
    state = "phantom" if simulated else settings.training_state or base.manifest.training_state
    sets = {TEST_PART: judge_set(made.trained, test, count=settings.resamples)}
    if made.before is not None:
        sets[f"{TEST_PART} under {base.manifest.id}"] = judge_set(made.before, test, count=settings.resamples)
    kept = sorted({shape.task for shape in made.heads.shapes} - set(planned.outputs))
    record = evaluation_record(
        sets,
        training_state=state,
        training_studies=len(run.split().train),
        base=base.manifest.id,
        went_on_from=base.manifest.id if (run / "base").exists() else None,
        heads=made.heads.digest(),
        kept_tasks=kept,
        left_out=list(planned.left_out),
        no_longer_reported=list(planned.lost(base.manifest, kept)),
    )
    page = write_evaluation(run, record, f"{base.manifest.name} {settings.version}")
    bundle = export_bundle(
        out,
        name=base.manifest.name,
        version=settings.version,
        training_state=state,
        architecture=base.manifest.architecture,
        body=made.body,
        heads=made.heads,
    )
    attach_evaluation(bundle, record, page)
    return bundle
