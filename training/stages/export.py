"""A run's weights → a bundle that the node takes, together with its evaluation record.

    python -m training.stages.export --run RUN --name prima-site --version 1

Nothing half-trained leaves: every stage must have ended, each must have been made from the results of the one before
that are there now, the evaluation must be of these very heads, and the bundle's own checks run on the result.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from safetensors.numpy import load_file

from prima_core.base.config import Architecture
from prima_core.bundle import MANIFEST, Bundle, build_model, load_bundle, write_bundle
from training.base.checkpoint import done, no_space, sha256, write_json, write_whole
from training.base.command import command, explained
from training.base.errors import BadTrainingData
from training.run_folder import RunFolder
from training.stages.clip import STUDY_MODEL, read_study_model
from training.stages.heads import TrainedHeads, read_run_heads
from training.stages.tokenizer import ENCODER

EVALUATION, PAGE = "evaluation.json", "evaluation.html"

Weights = Mapping[str, npt.NDArray[np.float32]]


def export_bundle(
    out: Path,
    *,
    name: str,
    version: str,
    training_state: str,
    architecture: Architecture,
    body: Weights,
    heads: TrainedHeads,
) -> Bundle:
    """Write the bundle and load it once as the node would; a bundle that is there already must be this very one.

    body: all tensors but the heads', by the bundle's names. Raises BadTrainingData when a tensor is missing or not
    finite, or `out` holds another bundle, BundleError when something does not fit or `out` is not free, NoSpace.
    """
    weights = {**body, **heads.weights}

    def tensor(wanted: str) -> npt.NDArray[np.float32]:
        if wanted not in weights:
            raise BadTrainingData(f"{wanted}: no stage of the run has trained it")
        if not np.isfinite(weights[wanted]).all():
            raise BadTrainingData(f"{wanted}: holds values that are not finite")
        return weights[wanted]

    def write(folder: Path) -> Bundle:
        return write_bundle(
            folder,
            name=name,
            version=version,
            training_state=training_state,
            architecture=replace(architecture, heads=heads.shapes),
            thresholds=heads.thresholds,
            calibration=heads.temperatures,
            weights=tensor,
        )

    try:
        if (out / MANIFEST).exists():
            return _same(load_bundle(out), write)
        write(out)
    except OSError as error:
        raise no_space(error, out) or error from error
    bundle = load_bundle(out)
    build_model(bundle, "cpu", "fp32")
    return bundle


def export_run(run: RunFolder, out: Path, *, name: str, version: str) -> Bundle:
    """The bundle of a run that was evaluated, with its evaluation. Resumes.

    Raises BadTrainingData where a stage has not ended, or was made from other results than those that are there now.
    """
    heads, encoder = read_run_heads(run), run / "tokenizer" / ENCODER
    architecture, _ = read_study_model(run / "clip")
    done(run / "tokenizer")
    tokens = done(run / "clip")["settings"]["tokens"]
    if tokens.get("encoder", {}).get("sha256") != sha256(encoder):
        raise BadTrainingData(f"{run / 'clip'}: was trained on tokens of another encoder than {encoder}")
    if run.embeddings().model != sha256(run / "clip" / STUDY_MODEL):
        raise BadTrainingData(f"{run.folder}: its embeddings are of another model than {run / 'clip'}; embed anew")
    record = _evaluation(run, heads)
    bundle = export_bundle(
        out,
        name=name,
        version=version,
        training_state=run.training_state(),
        architecture=architecture,
        body={**load_file(run / "clip" / STUDY_MODEL), **load_file(encoder)},
        heads=heads,
    )
    attach_evaluation(bundle, record, run / "evaluation" / "report.html")
    return bundle


def attach_evaluation(bundle: Bundle, evaluation: Mapping[str, object], page: Path | None = None) -> None:
    """Put the evaluation's figures, and its page, beside the manifest: what the node asks for before it activates.

    Raises NoSpace.
    """
    if page is not None:
        content = page.read_bytes()
        write_whole(bundle.directory / PAGE, lambda scratch: scratch.write_bytes(content))
    write_json(bundle.directory / EVALUATION, {**evaluation, "bundle_id": bundle.manifest.id})


def _same(there: Bundle, write: Callable[[Path], Bundle]) -> Bundle:
    """`there`, if it is what `write` would write."""
    with tempfile.TemporaryDirectory(prefix=".export.", dir=there.directory.parent) as scratch:
        if write(Path(scratch) / "bundle").manifest != there.manifest:
            raise BadTrainingData(f"{there.directory}: holds another bundle already; choose another folder")
    return there


def _evaluation(run: RunFolder, heads: TrainedHeads) -> dict[str, object]:
    path = run / "evaluation" / EVALUATION
    if not path.exists():
        raise BadTrainingData(f"{run.folder}: was not evaluated; run python -m training.evaluate first")
    record: dict[str, object] = json.loads(path.read_text("utf-8"))
    if record.get("heads") != heads.digest():
        raise BadTrainingData(f"{path}: is of other heads than the run's; evaluate it again")
    return record


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder; evaluated already.")],
    name: Annotated[str, typer.Option(help="Of the bundle, such as prima-site.")],
    version: Annotated[str, typer.Option(help="Of the bundle.")] = "1",
    out: Annotated[
        Path | None, typer.Option(help="A folder that is not there yet; the run's bundle/ by default.")
    ] = None,
) -> None:
    """Write the bundle of a run."""
    with explained():
        bundle = export_run(RunFolder(run), out or run / "bundle", name=name, version=version)
    typer.echo(f"{bundle.directory}: {bundle.manifest.id}, {bundle.manifest.training_state}")


if __name__ == "__main__":
    app()
