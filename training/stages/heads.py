"""Task heads: diagnosis, referral and priority on frozen study embeddings, with thresholds and temperatures.

    python -m training.stages.heads --run RUN

Reads RUN/embeddings.safetensors, RUN/labels.csv and RUN/split.csv; writes RUN/heads/. The same function retrains heads
from the embeddings that a node has kept. Needs no images and takes minutes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from safetensors.numpy import load_file

from prima_core.base.config import TASKS, HeadShape
from prima_core.random_weights import PRIORITY_LEVELS
from prima_core.task_heads import TaskHeads
from training.base.checkpoint import DONE, done, finish, finished, write_json, write_weights
from training.base.cohort import StudyLabels
from training.base.command import command, explained
from training.base.embeddings import Embeddings
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.base.splits import Split
from training.run_folder import RunFolder
from training.stages.fit import Examples, FitSettings, Fitted, Kind, fit
from training.stages.operating_point import (
    SPECIFICITY,
    best_threshold,
    fit_level_temperature,
    fit_odds,
)
from training.stages.targets import Numbers, flags, levels, names_of, without_both_kinds

WEIGHTS, FACTS = "heads.safetensors", "heads.json"
ODDS = "of the validation studies"  # what probabilities mean; earlier folders' were of the training studies
WIDTHS = ",".join(map(str, FitSettings.hidden))


@dataclass(frozen=True)
class HeadsSettings:
    """How each task's head is fitted. priority: that of the priority, if it is fitted otherwise than the rest.

    least: a finding with fewer positives (or negatives) in training is refused.
    leave_out: then it is left out of the bundle instead. levels: the priorities, least urgent first. specificity: the
    least that a threshold of a finding or referral may have on the validation studies.
    """

    fit: FitSettings = field(
        default_factory=lambda: FitSettings(LoopSettings(20_000, 64, schedule="constant", validate_every=500))
    )
    priority: FitSettings | None = None
    least: int = 1
    leave_out: bool = False
    levels: tuple[str, ...] = PRIORITY_LEVELS
    specificity: float = SPECIFICITY

    def fit_of(self, task: str) -> FitSettings:
        """How the head of this task is fitted."""
        return self.priority or self.fit if task == "priority" else self.fit


def held_heads(steps: int = 3000, batch: int = 64, leave_out: bool = False) -> HeadsSettings:
    """Linear heads held by decay, which a CPU trains within minutes and a few hundred studies do not overfit at once.

    The priority is held most: for findings, so much would spoil the probabilities, as the weights of rare ones are
    taken back as if nothing had been held (figures in deploy/decisions/0011). leave_out: as in `HeadsSettings`.
    """
    loop = LoopSettings(steps, batch, device="cpu", validate_every=max(steps // 20, 1))
    others = FitSettings(loop, hidden=(), learning_rate=3e-4, weight_decay=0.1)
    return HeadsSettings(others, replace(others, weight_decay=1.0), leave_out=leave_out)


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

    def digest(self) -> str:
        """SHA-256 of all that decides what they answer."""
        facts = [[asdict(shape) for shape in self.shapes], self.thresholds, self.temperatures]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=dict).encode())
        for name in sorted(self.weights):
            digest.update(name.encode() + np.ascontiguousarray(self.weights[name]).tobytes())
        return digest.hexdigest()


def train_heads(
    embeddings: Embeddings,
    labels: Mapping[str, StudyLabels],
    split: Split,
    folder: Path,
    settings: HeadsSettings | None = None,
) -> TrainedHeads:
    """Fit the heads of every task that has labels. Resumes, and returns at once where `folder` is done.

    Raises BadTrainingData: a training study without an embedding, a finding or level without examples (unless
    `leave_out`), no label at all; and what `training.base.loop.train` raises.
    """
    settings = settings or HeadsSettings()
    identity = {"settings": json.loads(json.dumps(asdict(settings))), "odds": ODDS}
    identity |= made_from(embeddings, labels, split)
    if finished(folder, identity) is None:
        _train(embeddings, labels, split, folder, settings, identity)
    return read_heads(folder)


def made_from(embeddings: Embeddings, labels: Mapping[str, StudyLabels], split: Split) -> dict[str, str]:
    """Digests of all that heads depend on beside their settings; any change of them is a change of the heads."""
    known = {study: asdict(one) for study, one in sorted(labels.items())}
    return {
        "embeddings": embeddings.digest(),
        "labels": _digest(json.dumps(known, sort_keys=True, default=dict)),
        "split": _digest(json.dumps([split.train, split.validation])),
    }


def read_heads(folder: Path) -> TrainedHeads:
    """What `write_heads` wrote. Raises BadTrainingData where the stage has not ended."""
    done(folder)
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    shapes = tuple(
        HeadShape(one["task"], tuple(one["widths"]), tuple(one["outputs"]), one["source"]) for one in facts["shapes"]
    )
    weights = load_file(folder / WEIGHTS)
    return TrainedHeads(shapes, weights, facts["thresholds"], facts["temperatures"], tuple(facts["left_out"]))


def read_settings(folder: Path) -> HeadsSettings:
    """The settings that the heads in `folder` were trained with. Raises BadTrainingData."""
    then = done(folder)["settings"]["settings"]
    priority = then.get("priority")  # older folders have none
    return HeadsSettings(
        **{
            **then,
            "fit": _fit_settings(then["fit"]),
            "priority": _fit_settings(priority) if priority else None,
            "levels": tuple(then["levels"]),
        }
    )


def _fit_settings(then: Mapping[str, Any]) -> FitSettings:
    return FitSettings(**{**then, "loop": LoopSettings(**then["loop"]), "hidden": tuple(then["hidden"])})


def write_heads(
    folder: Path, heads: TrainedHeads, identity: Mapping[str, Any], figures: Mapping[str, Any] | None = None
) -> None:
    """The weights, what belongs to them, and done.json. Raises NotConverging where a weight is not finite, NoSpace."""
    weights = {name: torch.from_numpy(array) for name, array in heads.weights.items()}
    write_weights(folder / WEIGHTS, weights)
    facts = {"shapes": [asdict(shape) for shape in heads.shapes], "thresholds": heads.thresholds}
    write_json(folder / FACTS, facts | {"temperatures": heads.temperatures, "left_out": heads.left_out})
    finish(folder, identity, (WEIGHTS, FACTS), figures or {})


def read_run_heads(run: RunFolder) -> TrainedHeads:
    """All heads of a run: those of heads/, then the zero-shot findings where it has some.

    Raises BadTrainingData when some were made from other embeddings, or by another split, than the run has now.
    """
    folders = [run / "heads", *([run / "zero_shot"] if (run / "zero_shot" / DONE).exists() else [])]
    now = made_from(run.embeddings(), {}, run.split())
    for folder in folders:
        then = done(folder)["settings"]
        for what in ("embeddings", "split"):
            if then[what] != now[what]:
                raise BadTrainingData(f"{folder}: its {what} were others than the run's now; delete it and train anew")
    heads = read_heads(folders[0])
    return joined(heads, read_heads(folders[1])) if len(folders) > 1 else heads


def joined(first: TrainedHeads, second: TrainedHeads) -> TrainedHeads:
    """Both, the second ones numbered on.

    A bundle has one temperature a task. Where both have one, the second's logits are scaled to the first's, which
    changes neither their order nor their probabilities.
    """
    weights: dict[str, Any] = dict(first.weights)
    thresholds = {task: dict(of) for task, of in first.thresholds.items()}
    for number, shape in enumerate(second.shapes):
        factor = _ratio(first.temperatures.get(shape.task), second.temperatures.get(shape.task))
        last = f"layers.{len(shape.widths) - 1}."
        old, new = f"heads.mlps.{number}.", f"heads.mlps.{len(first.shapes) + number}."
        for name, tensor in second.weights.items():
            if name.startswith(old):
                key = name.removeprefix(old)
                weights[new + key] = tensor * np.float32(factor) if key.startswith(last) else tensor
        if shape.task in second.thresholds:
            cuts = {name: second.thresholds[shape.task][name] * factor for name in shape.outputs}
            thresholds[shape.task] = thresholds.get(shape.task, {}) | cuts
    return TrainedHeads(
        (*first.shapes, *second.shapes),
        weights,
        thresholds,
        {**second.temperatures, **first.temperatures},
        (*first.left_out, *second.left_out),
    )


def _ratio(first: float | None, second: float | None) -> float:
    return first / second if first and second else 1.0


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
    weights: dict[str, npt.NDArray[np.float32]] = {}
    thresholds: dict[str, dict[str, float]] = {"diagnosis": {}, "referral": {}}
    temperatures: dict[str, float | None] = {}
    figures: dict[str, Any] = {}
    outputs = {task: _outputs(cohort, task, settings) for task in TASKS}
    left_out = [f"{task}.{name}" for task, (_, short) in outputs.items() for name in short]
    for task, names in ((task, names) for task, (names, _) in outputs.items() if names):
        fitted, validation = _fit_task(cohort, task, names, settings, folder, identity)
        if task != "priority":  # its levels gained nothing from a shift
            temperatures[task], shift = fit_odds(fitted.logits(validation.inputs), validation.targets)
            fitted.move_logits(shift)
        state = fitted.head.state_dict()
        weights |= {f"heads.mlps.{len(shapes)}.{key}": value.numpy() for key, value in state.items()}
        shapes.append(HeadShape(task, (embeddings.study.shape[1], *settings.fit_of(task).hidden), names))
        figures[task] = fitted.result.figures()
        logits = fitted.logits(validation.inputs)
        if task == "priority":
            temperatures[task] = _level_temperature(logits, validation.targets)
        else:
            thresholds[task] = thresholds_of(names, logits, validation.targets, settings.specificity)
    if not shapes:
        raise BadTrainingData("no training study has a label that can be learned")
    write_heads(
        folder, TrainedHeads(tuple(shapes), weights, thresholds, temperatures, tuple(left_out)), identity, figures
    )


def _outputs(cohort: _Cohort, task: str, settings: HeadsSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that can be learned, and those that have too few examples. Raises BadTrainingData."""
    studies = cohort.split.train
    if task == "priority":
        names = settings.levels
        found = levels(cohort.labels, studies, names)
        if not np.isfinite(found).any():
            return (), ()
        short = tuple(name for n, name in enumerate(names) if (found == n).sum() < settings.least)
    else:
        names = names_of({study: cohort.labels[study] for study in studies if study in cohort.labels}, task)
        short = without_both_kinds(flags(cohort.labels, studies, task, names), names, settings.least) if names else ()
    if short and not settings.leave_out:
        raise BadTrainingData(
            f"{task}: fewer than {settings.least} positive or negative training studies of {', '.join(short)}; "
            "add labels, or leave such findings and levels out of the bundle"
        )
    return tuple(name for name in names if name not in short), short


def _fit_task(
    cohort: _Cohort, task: str, names: tuple[str, ...], settings: HeadsSettings, folder: Path, identity: dict[str, Any]
) -> tuple[Fitted, Examples]:
    training, validation = (
        cohort.examples(
            part,
            levels(cohort.labels, part, names, settings.levels)
            if task == "priority"
            else flags(cohort.labels, part, task, names),
        )
        for part in (cohort.split.train, cohort.split.validation)
    )
    kind = Kind.LEVELS if task == "priority" else Kind.FLAGS
    title = f"{task} head"
    return fit(names, kind, training, validation, settings.fit_of(task), folder / task, identity, title), validation


def thresholds_of(
    names: Sequence[str], logits: Numbers, targets: Numbers, specificity: float = SPECIFICITY
) -> dict[str, float]:
    """The threshold of every output, from validation studies; (studies, names) each."""
    known, present = np.isfinite(targets), targets == 1
    return {
        name: best_threshold(logits[known[:, n], n], present[known[:, n], n], specificity)
        for n, name in enumerate(names)
    }


def _level_temperature(logits: Numbers, targets: Numbers) -> float | None:
    known = np.isfinite(targets[:, 0])
    return fit_level_temperature(logits[known], targets[known, 0].astype(np.int64)) if known.any() else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    steps: Annotated[int, typer.Option(help="Updates of each task's head.")] = 20_000,
    learning_rate: Annotated[float, typer.Option(help="RMSprop's.")] = 1e-5,
    hidden: Annotated[str, typer.Option(help="Widths of the hidden layers, by commas; '' for a linear head.")] = WIDTHS,
    weight_decay: Annotated[float, typer.Option(help="Of the heads' weights; a small cohort wants 0.1.")] = 0.0,
    priority_decay: Annotated[
        float | None, typer.Option(help="Of the priority's head, if it is to be another; a small cohort wants 1.")
    ] = None,
    leave_out: Annotated[bool, typer.Option(help="Leave findings without examples out, and say so.")] = False,
    specificity: Annotated[
        float, typer.Option(min=0, max=1, help="The least that a threshold may have.")
    ] = SPECIFICITY,
) -> None:
    """Train the task heads of a run."""
    opened = RunFolder(run)
    loop = LoopSettings(steps, 64, schedule="constant", validate_every=max(steps // 40, 1))
    with explained():
        every = FitSettings(loop, _widths(hidden), learning_rate, weight_decay)
        priority = None if priority_decay is None else replace(every, weight_decay=priority_decay)
        settings = HeadsSettings(every, priority, leave_out=leave_out, specificity=specificity)
        labels = opened.labels()
        if strangers := opened.strangers(labels):
            typer.echo(strangers, err=True)
        heads = train_heads(opened.embeddings(), labels, opened.split(), run / "heads", settings)
    typer.echo(f"{run / 'heads'}: {', '.join(f'{shape.task} {len(shape.outputs)}' for shape in heads.shapes)}")
    for name in heads.left_out:
        typer.echo(f"left out, too few examples: {name}")


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(",") if width.strip())
    except ValueError:
        raise typer.BadParameter("whole numbers, divided by commas", param_hint="--hidden") from None


if __name__ == "__main__":
    app()
