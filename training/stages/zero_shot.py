"""Zero-shot findings: a finding that two prompts define, scored by the CLIP towers, without a single label.

    python -m training.stages.zero_shot --run RUN --prompts prompts.json

    logit = scale · image · (mean of "there is …" − mean of "there is no …")

This is linear in the image's CLIP vector, so it is a head like any other that reads this vector (`HeadShape.source`):
judged, exported and answered by the node like one. Where the validation studies have labels of a finding, its threshold
and the temperature of all of them are chosen there; else 0 stands (more like "there is" than like "there is no") and
CLIP's own scale.

Legend of the suffixes: V width of the CLIP space, n findings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from prima_core.base.config import HeadShape
from training.base.checkpoint import done, finished
from training.base.cohort import StudyLabels
from training.base.command import command, explained
from training.base.embeddings import Embeddings
from training.base.errors import BadTrainingData
from training.base.splits import Split
from training.run_folder import RunFolder
from training.stages.clip import read_text_tower
from training.stages.heads import TrainedHeads, made_from, read_heads, thresholds_of, write_heads
from training.stages.operating_point import fit_temperature
from training.stages.targets import flags

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]  # texts → (texts, V) of unit length


@dataclass(frozen=True)
class Prompts:
    """What a report says when the finding is there, and when it is not; several wordings are averaged."""

    present: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class ZeroShotHead:
    """A head that reads the CLIP vector. weight: (n, V). The bias is 0."""

    shape: HeadShape
    weight: Vectors

    def logits(self, clip: Vectors) -> npt.NDArray[np.float64]:
        """(N, V) image vectors → (N, n)."""
        result: npt.NDArray[np.float64] = clip.astype(np.float64) @ self.weight.T.astype(np.float64)
        return result

    def as_heads(self, thresholds: Mapping[str, float], temperature: float) -> TrainedHeads:
        """In the form in which a bundle takes heads. thresholds: of every finding."""
        layer = "heads.mlps.0.layers.0"
        weights = {f"{layer}.weight": self.weight, f"{layer}.bias": np.zeros(len(self.weight), np.float32)}
        task = self.shape.task
        return TrainedHeads((self.shape,), weights, {task: dict(thresholds)}, {task: temperature})


def plain_prompts(words: Sequence[str]) -> Prompts:
    """The prompts of a finding that goes by these words."""
    return Prompts(tuple(f"There is {word}." for word in words), tuple(f"There is no {word}." for word in words))


def read_prompts(path: Path) -> dict[str, Prompts]:
    """A JSON file {name: {"present": [texts], "absent": [texts]}}. Raises BadTrainingData."""
    try:
        document = json.loads(path.read_text("utf-8"))
        prompts = {name: Prompts(_texts(one["present"]), _texts(one["absent"])) for name, one in document.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadTrainingData(f"{path}: not a file of prompts ({type(error).__name__})") from error
    if not prompts:
        raise BadTrainingData(f"{path}: names no finding")
    return prompts


def zero_shot_head(
    prompts: Mapping[str, Prompts], encode: Encode, scale: float, task: str = "diagnosis"
) -> ZeroShotHead:
    """The head of these findings. scale: the CLIP towers' learned one, exp(t)."""
    rows = []
    for one in prompts.values():
        present, absent = (encode(texts).mean(axis=0) for texts in (one.present, one.absent))
        rows.append(scale * (present - absent))
    weight = np.stack(rows).astype(np.float32)
    return ZeroShotHead(HeadShape(task, (weight.shape[1],), tuple(prompts), source="clip"), weight)


def make_zero_shot(
    run: RunFolder,
    prompts: Mapping[str, Prompts],
    embeddings: Embeddings,
    labels: Mapping[str, StudyLabels],
    split: Split,
) -> TrainedHeads:
    """The findings of `prompts` as a head of a run, in zero_shot/. Returns at once where this is done.

    Raises BadTrainingData where CLIP training has not ended, or the embeddings are not its.
    """
    folder, clip = run / "zero_shot", done(run / "clip")
    identity = {
        "prompts": {name: {kind: list(texts) for kind, texts in asdict(one).items()} for name, one in prompts.items()},
        "clip": clip["files"],
    } | made_from(embeddings, labels, split)
    if finished(folder, identity) is None:
        tower = read_text_tower(run / "clip", run / "text")
        head = zero_shot_head(prompts, tower.vectors, clip["figures"]["scale"])
        if embeddings.clip.shape[1] != head.weight.shape[1]:
            raise BadTrainingData(
                "the run's embeddings hold no image vectors of its CLIP model; embed the studies anew"
            )
        names, task = head.shape.outputs, head.shape.task
        logits = head.logits(embeddings.clip[embeddings.rows(split.validation)])
        targets = flags(labels, split.validation, task, names)
        cuts, known = thresholds_of(names, logits, targets), np.isfinite(targets)
        temperature = fit_temperature(logits[known], targets[known] == 1)
        write_heads(folder, head.as_heads(cuts, temperature or 1.0), identity)
    return read_heads(folder)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
        raise ValueError("expected a list of texts")
    return tuple(value)


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    prompts: Annotated[Path, typer.Option(help='JSON: {name: {"present": [texts], "absent": [texts]}}.')],
) -> None:
    """Add findings that prompts define to a run; the evaluation and the bundle then have them too."""
    opened = RunFolder(run)
    with explained():
        chosen = read_prompts(prompts)
        heads = make_zero_shot(opened, chosen, opened.embeddings(), opened.labels(), opened.split())
    for name, threshold in heads.thresholds["diagnosis"].items():
        typer.echo(f"{name}: threshold {threshold:.3f}")


if __name__ == "__main__":
    app()
