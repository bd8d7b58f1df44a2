"""Task heads: diagnosis, referral and priority on frozen study embeddings, with thresholds and temperatures.

    python -m training.stages.heads --run RUN

Reads RUN/embeddings.safetensors, RUN/labels.csv and RUN/split.csv; writes RUN/heads/. The same function retrains heads
from the embeddings that a node has kept. Needs no images and takes minutes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from safetensors.numpy import load_file

from prima_core.base.config import HeadShape
from prima_core.random_weights import PRIORITY_LEVELS
from prima_core.task_heads import TaskHeads
from training.base.checkpoint import finish, finished, write_json, write_weights
from training.base.cohort import StudyLabels
from training.base.embeddings import Embeddings
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.base.splits import Split
from training.run_folder import RunFolder
from training.stages.fit import Examples, FitSettings, Fitted, Kind, fit
from training.stages.operating_point import best_threshold, fit_level_temperature, fit_temperature
from training.stages.targets import Numbers, flags, levels, names_of, without_both_kinds

WEIGHTS, FACTS = "heads.safetensors", "heads.json"


@dataclass(frozen=True)
class HeadsSettings:
    """How each task's head is fitted. least: a finding with fewer positives (or negatives) in training is refused.

    leave_out: then it is left out of the bundle instead. levels: the priorities, least urgent first.
    """

    fit: FitSettings = field(
        default_factory=lambda: FitSettings(LoopSettings(20_000, 64, schedule="constant", validate_every=500))
    )
    least: int = 1
    leave_out: bool = False
    levels: tuple[str, ...] = PRIORITY_LEVELS


@dataclass(frozen=True)
class TrainedHeads:
    """Heads that were trained, as a bundle takes them.

    shapes: one MLP a task. weights: by the bundle's names, `heads.mlps.<position of the shape>.…`. thresholds: of each
    diagnosis and referral. temperatures: of each task, or None. left_out: findings with too few examples.
    """

    shapes: tuple[HeadShape, ...]
    weights: Mapping[str, npt.NDArray[np.float32]]
    thresholds: Mapping[str, Mapping[str, float]]
    temperatures: Mapping[str, float | None]
    left_out: tuple[str, ...] = ()


def train_heads(
    embeddings: Embeddings,
    labels: Mapping[str, StudyLabels],
    split: Split,
    folder: Path,
    settings: HeadsSettings | None = None,
) -> TrainedHeads:
    """Fit the heads of every task that has labels. Resumes, and returns at once where `folder` is done.

    Raises BadTrainingData: a training study without an embedding, a finding without examples (unless `leave_out`),
    no label at all; and what `training.base.loop.train` raises.
    """
    settings = settings or HeadsSettings()
    identity = {"settings": json.loads(json.dumps(asdict(settings))), "embeddings": _digest(embeddings)}
    identity |= {"labels": _labels_digest(labels), "split": [len(split.train), len(split.validation)]}
    if finished(folder, identity) is None:
        _train(embeddings, labels, split, folder, settings, identity)
    return read_heads(folder)


def read_heads(folder: Path) -> TrainedHeads:
    """What `train_heads` wrote. Raises BadTrainingData."""
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise BadTrainingData(f"{folder}: holds no trained heads") from error
    shapes = tuple(HeadShape(one["task"], tuple(one["widths"]), tuple(one["outputs"])) for one in facts["shapes"])
    return TrainedHeads(shapes, weights, facts["thresholds"], facts["temperatures"], tuple(facts["left_out"]))


def head_logits(heads: TrainedHeads, embeddings: Embeddings) -> dict[str, Numbers]:
    """Task → (N, outputs), thresholds subtracted: what the node's own heads answer."""
    mlps = TaskHeads(heads.shapes, heads.thresholds)
    mlps.load_state_dict(
        {name.removeprefix("heads."): torch.from_numpy(array) for name, array in heads.weights.items()}
    )
    with torch.inference_mode():
        answers = mlps(torch.from_numpy(embeddings.study), torch.from_numpy(embeddings.clip))
    tasks = dict.fromkeys(shape.task for shape in heads.shapes)
    return {task: np.array([list(answer[task].values()) for answer in answers], np.float64) for task in tasks}


@dataclass(frozen=True)
class _Cohort:
    embeddings: Embeddings
    labels: Mapping[str, StudyLabels]
    split: Split

    def examples(self, studies: Sequence[str], target: Numbers) -> Examples:
        return Examples(self.embeddings.study[self.embeddings.rows(studies)], target)


def _train(
    embeddings: Embeddings,
    labels: Mapping[str, StudyLabels],
    split: Split,
    folder: Path,
    settings: HeadsSettings,
    identity: dict[str, Any],
) -> None:
    cohort = _Cohort(embeddings, labels, split)
    shapes: list[HeadShape] = []
    weights: dict[str, Any] = {}
    thresholds: dict[str, dict[str, float]] = {"diagnosis": {}, "referral": {}}
    temperatures: dict[str, float | None] = {}
    left_out: list[str] = []
    figures: dict[str, Any] = {}
    for task in ("diagnosis", "referral", "priority"):
        names, short = _outputs(cohort, task, settings)
        left_out += [f"{task}.{name}" for name in short]
        if not names:
            continue
        fitted, validation = _fit_task(cohort, task, names, settings, folder, identity)
        weights |= {f"heads.mlps.{len(shapes)}.{key}": value for key, value in fitted.head.state_dict().items()}
        shapes.append(HeadShape(task, (embeddings.study.shape[1], *settings.fit.hidden), names))
        figures[task] = fitted.result.figures()
        logits = fitted.logits(validation.inputs)
        if task == "priority":
            temperatures[task] = _level_temperature(logits, validation.targets)
        else:
            thresholds[task] = _thresholds(names, logits, validation.targets)
            temperatures[task] = _temperature(logits, validation.targets)
    if not shapes:
        raise BadTrainingData("no training study has a label that can be learned")
    write_weights(folder / WEIGHTS, weights)
    facts = {"shapes": [asdict(shape) for shape in shapes], "thresholds": thresholds, "temperatures": temperatures}
    write_json(folder / FACTS, facts | {"left_out": left_out})
    finish(folder, identity, (WEIGHTS, FACTS), figures)


def _outputs(cohort: _Cohort, task: str, settings: HeadsSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that can be learned, and those that have too few examples. Raises BadTrainingData."""
    studies = cohort.split.train
    if task == "priority":
        known = np.isfinite(levels(cohort.labels, studies, settings.levels))
        return (settings.levels if known.any() else ()), ()
    names = names_of({study: cohort.labels[study] for study in studies if study in cohort.labels}, task)
    short = without_both_kinds(flags(cohort.labels, studies, task, names), names, settings.least) if names else ()
    if short and not settings.leave_out:
        raise BadTrainingData(
            f"{task}: fewer than {settings.least} positive or negative training studies of {', '.join(short)}; "
            "add labels, or leave such findings out of the bundle"
        )
    return tuple(name for name in names if name not in short), short


def _fit_task(
    cohort: _Cohort, task: str, names: tuple[str, ...], settings: HeadsSettings, folder: Path, identity: dict[str, Any]
) -> tuple[Fitted, Examples]:
    training, validation = (
        cohort.examples(
            part,
            levels(cohort.labels, part, names) if task == "priority" else flags(cohort.labels, part, task, names),
        )
        for part in (cohort.split.train, cohort.split.validation)
    )
    kind = Kind.LEVELS if task == "priority" else Kind.FLAGS
    title = f"{task} head"
    return fit(names, kind, training, validation, settings.fit, folder / task, identity, title), validation


def _thresholds(names: Sequence[str], logits: Numbers, targets: Numbers) -> dict[str, float]:
    known = np.isfinite(targets)
    return {name: best_threshold(logits[known[:, n], n], targets[known[:, n], n] == 1) for n, name in enumerate(names)}


def _temperature(logits: Numbers, targets: Numbers) -> float | None:
    known = np.isfinite(targets)
    return fit_temperature(logits[known], targets[known] == 1) if known.any() else None


def _level_temperature(logits: Numbers, targets: Numbers) -> float | None:
    known = np.isfinite(targets[:, 0])
    return fit_level_temperature(logits[known], targets[known, 0].astype(np.int64)) if known.any() else None


def _digest(embeddings: Embeddings) -> str:
    digest = hashlib.sha256("\n".join(embeddings.studies).encode())
    digest.update(np.ascontiguousarray(embeddings.study).tobytes())
    return digest.hexdigest()


def _labels_digest(labels: Mapping[str, StudyLabels]) -> str:
    text = json.dumps({study: asdict(one) for study, one in sorted(labels.items())}, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


app = typer.Typer(add_completion=False)


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    steps: Annotated[int, typer.Option(help="Updates of each task's head.")] = 20_000,
    learning_rate: Annotated[float, typer.Option(help="RMSprop's.")] = 1e-5,
    hidden: Annotated[str, typer.Option(help="Widths of the hidden layers, by commas; empty for a linear head.")] = "",
    leave_out: Annotated[bool, typer.Option(help="Leave findings without examples out, and say so.")] = False,
) -> None:
    """Train the task heads of a run."""
    opened = RunFolder(run)
    loop = LoopSettings(steps, 64, schedule="constant", validate_every=max(steps // 40, 1))
    widths = tuple(int(width) for width in hidden.split(",") if width.strip())
    settings = HeadsSettings(FitSettings(loop, widths, learning_rate), leave_out=leave_out)
    heads = train_heads(opened.embeddings(), opened.labels(), opened.split(), run / "heads", settings)
    typer.echo(f"{run / 'heads'}: {', '.join(f'{shape.task} {len(shape.outputs)}' for shape in heads.shapes)}")
    for name in heads.left_out:
        typer.echo(f"left out, too few examples: {name}")


if __name__ == "__main__":
    app()
