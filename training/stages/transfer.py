"""Transfer heads: any other yes/no or number from frozen study embeddings (brain age, dementia, a score …).

    python -m training.stages.transfer --run RUN --target value.age_years

Reads what the task heads read; writes RUN/transfer/<target>/head.safetensors and figures on the test studies. Such a
head stays beside the bundle: the node reports only diagnoses, referrals and priority.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from training.base.checkpoint import finish, finished, write_json, write_weights
from training.base.cohort import StudyLabels
from training.base.command import command, explained
from training.base.embeddings import Embeddings
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.base.splits import Split
from training.run_folder import RunFolder
from training.stages.fit import Examples, FitSettings, Kind, fit
from training.stages.heads import made_from
from training.stages.targets import Numbers, flags, values

WEIGHTS, FACTS = "head.safetensors", "head.json"


@dataclass(frozen=True)
class TransferSettings:
    """target: value.<name> for a number, diagnosis.<name>, referral.<name> or flag.<name> (a value of 0 or 1)."""

    target: str
    fit: FitSettings = field(
        default_factory=lambda: FitSettings(LoopSettings(5_000, 64, validate_every=250), (256,), 1e-4)
    )


@dataclass(frozen=True)
class TransferFigures:
    """On the test studies that have the label. auroc: of yes/no. error, r2: mean absolute error and R² of a number.

    baseline: the mean absolute error of always saying the training studies' median.
    """

    studies: int
    auroc: float | None = None
    error: float | None = None
    r2: float | None = None
    baseline: float | None = None


def train_transfer(
    embeddings: Embeddings, labels: Mapping[str, StudyLabels], split: Split, folder: Path, settings: TransferSettings
) -> TransferFigures:
    """Fit one head and judge it. Resumes, and returns at once where `folder` is done.

    Raises BadTrainingData when no training or no test study has the label; what `training.base.loop.train` raises.
    """
    identity = {"settings": json.loads(json.dumps(asdict(settings)))} | made_from(embeddings, labels, split)
    identity |= {"test": list(split.test)}
    if (done := finished(folder, identity)) is not None:
        return TransferFigures(**done)
    training, validation, test = (
        Examples(embeddings.study[embeddings.rows(part)], _targets(labels, part, settings.target))
        for part in (split.train, split.validation, split.test)
    )
    if not np.isfinite(training.targets).any() or not np.isfinite(test.targets).any():
        raise BadTrainingData(f"{settings.target}: no training study or no test study has this label")
    number = settings.target.startswith("value.")
    centre, spread = _scale(training.targets) if number else (0.0, 1.0)
    training, validation = (replace(one, targets=(one.targets - centre) / spread) for one in (training, validation))
    kind = Kind.NUMBER if number else Kind.FLAGS
    fitted = fit((settings.target,), kind, training, validation, settings.fit, folder, identity, settings.target)
    said = fitted.logits(test.inputs) * spread + centre
    known = np.isfinite(test.targets)
    truth, said = test.targets[known], said[known]
    figures = _number_figures(truth, said, training.targets * spread + centre) if number else _flag_figures(truth, said)
    write_weights(folder / WEIGHTS, fitted.head.state_dict())
    widths = [embeddings.study.shape[1], *settings.fit.hidden]
    write_json(folder / FACTS, {"target": settings.target, "widths": widths, "centre": centre, "spread": spread})
    finish(folder, identity, (WEIGHTS, FACTS), asdict(figures))
    return figures


def _targets(labels: Mapping[str, StudyLabels], studies: tuple[str, ...], target: str) -> Numbers:
    kind, _, name = target.partition(".")
    if kind in ("diagnosis", "referral"):
        return flags(labels, studies, kind, (name,))
    if kind not in ("value", "flag"):
        raise BadTrainingData(f"target {target!r}: expected value.…, flag.…, diagnosis.… or referral.…")
    found = values(labels, studies, name)
    if kind == "flag" and not np.isin(found[np.isfinite(found)], (0, 1)).all():
        raise BadTrainingData(f"{target}: has values other than 0 and 1")
    return found


def _scale(targets: Numbers) -> tuple[float, float]:
    known = targets[np.isfinite(targets)]
    return float(known.mean()), float(known.std()) or 1.0


def _flag_figures(truth: Numbers, said: Numbers) -> TransferFigures:
    both = len(np.unique(truth)) == 2
    return TransferFigures(len(truth), auroc=float(roc_auc_score(truth, said)) if both else None)


def _number_figures(truth: Numbers, said: Numbers, training: Numbers) -> TransferFigures:
    return TransferFigures(
        len(truth),
        error=float(mean_absolute_error(truth, said)),
        r2=float(r2_score(truth, said)) if len(truth) > 1 else None,
        baseline=float(np.abs(truth - np.nanmedian(training)).mean()),
    )


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    target: Annotated[str, typer.Option(help="value.<name>, flag.<name>, diagnosis.<name> or referral.<name>.")],
) -> None:
    """Train a transfer head on a run's study embeddings."""
    opened = RunFolder(run)
    folder = run / "transfer" / target
    settings = TransferSettings(target)
    with explained():
        found = train_transfer(opened.embeddings(), opened.labels(), opened.split(), folder, settings)
    said = f"AUROC {found.auroc:.3f}" if found.auroc is not None else f"mean absolute error {found.error}"
    typer.echo(f"{folder}: {said} on {found.studies} test studies (baseline {found.baseline})")


if __name__ == "__main__":
    app()
