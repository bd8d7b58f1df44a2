"""The trained model over the whole store: study embeddings and image vectors of every study.

    python -m training.stages.embed --run RUN

It is `prima_core.prima.Prima` itself that computes them, from the store's latents, so that heads are trained on what
the node will see. The store keeps latents as float16, the node has them as float32: values of an embedding, which are
about 1, differ by less than 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from prima_core.base.config import Architecture
from prima_core.base.device import resolve
from prima_core.prima import Prima
from training.base.checkpoint import done, sha256
from training.base.command import command, explained
from training.base.embeddings import Embeddings, read_embeddings, write_embeddings
from training.base.errors import BadTrainingData
from training.prepare.store import TokenStore
from training.run_folder import RunFolder
from training.stages.clip import STUDY_MODEL, Tokens, read_study_model

PART = 4096  # studies, after which what there is is written
UNUSED = ("tokenizer.", "heads.")  # tokens are there already, and heads are trained on what is made here


def load_study_model(architecture: Architecture, state: dict[str, Tensor], device: str = "auto") -> Prima:
    """Prima without tokenizer and heads. Raises BadTrainingData where the weights do not fit the architecture."""
    model = Prima(architecture, {})
    try:
        odd = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BadTrainingData(f"the study model does not fit its architecture: {error}") from error
    missing = [name for name in odd.missing_keys if not name.startswith(UNUSED)]
    if missing or odd.unexpected_keys:
        raise BadTrainingData(f"the study model does not fit its architecture: {(missing + odd.unexpected_keys)[0]}")
    return model.place(resolve(device, "fp32"))


def embed_studies(model: Prima, tokens: Tokens, studies: Sequence[str], batch: int = 8) -> Embeddings:
    """Vectors of `studies`, in their order. Raises BadTrainingData for one whose vectors are not finite."""
    if not studies:
        raise BadTrainingData("there are no studies to embed")
    vectors: list[Tensor] = []
    clips: list[Tensor] = []
    starts = range(0, len(studies), batch)
    for start in track(starts, "embedding", console=Console(stderr=True)):
        read: Any = [tokens.read(study) for study in studies[start : start + batch]]
        halves = [torch.from_numpy(series.latents) for study in read for series in study.series]
        latents = [half.to(model.runtime.device).float() for half in halves]
        study_BP = model.study_embeddings(read, model.series_embeddings(read, latents))
        vectors.append(study_BP.cpu())
        with torch.inference_mode():
            clips.append(model.study_vit.clip_vector(study_BP).cpu())
    study, clip = (torch.cat(rows).numpy() for rows in (vectors, clips))
    finite = np.isfinite(study).all(axis=1) & np.isfinite(clip).all(axis=1)
    if not finite.all():
        raise BadTrainingData(f"study {studies[int(np.argmin(finite))]}: its embedding is not finite")
    return Embeddings(tuple(studies), study, clip)


def embed_store(store: TokenStore, clip: Path, path: Path, device: str = "auto") -> Embeddings:
    """The vectors of every study of `store`, written to `path`.

    clip: the folder of the trained model. Vectors that this very model has made are not made again: a call that was
    killed goes on, and one with more studies adds theirs; those of another model are replaced.
    Raises BadTrainingData when the model was trained on tokens of another encoder, NoSpace.
    """
    if done(clip)["settings"]["tokens"] != store.about:
        raise BadTrainingData(f"{clip}: was trained on tokens of another encoder than those in {store.folder}")
    weights = sha256(clip / STUDY_MODEL)
    known = read_embeddings(path) if path.exists() else None
    if known is not None and known.model != weights:
        known = None
    there = set(known.studies) if known else set()
    missing = [record.study for record in store.records if record.study not in there]
    if known is not None and not missing:
        return known
    model = load_study_model(*read_study_model(clip), device)
    for start in range(0, len(missing), PART):
        more = replace(embed_studies(model, store, missing[start : start + PART]), model=weights)
        known = known.followed_by(more) if known else more
        write_embeddings(path, known)
    if known is None:
        raise BadTrainingData(f"{store.folder}: holds no studies")
    return known


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
) -> None:
    """Embed every study of a run's store."""
    with explained():
        embeddings = embed_store(RunFolder(run).store(), run / "clip", run / "embeddings.safetensors", device)
    typer.echo(f"{run / 'embeddings.safetensors'}: {len(embeddings.studies)} studies")


if __name__ == "__main__":
    app()
