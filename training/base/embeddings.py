"""Study embeddings on disk: what heads are trained on and evaluated with, from a run or from a running node."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from training.base.checkpoint import write_whole
from training.base.errors import BadTrainingData

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """The model's vectors of N studies, in the order of `studies` (pseudonyms).

    study: (N, P) study embeddings. clip: (N, V) image vectors of unit length, V = 0 where they were not kept.
    model: SHA-256 of the study model's weights, empty where they come from elsewhere, such as a node.
    """

    studies: tuple[str, ...]
    study: Matrix
    clip: Matrix
    model: str = ""

    def __post_init__(self) -> None:
        if not len(self.studies) == len(self.study) == len(self.clip):
            raise BadTrainingData("embeddings: the numbers of studies and of vectors differ")
        if len(set(self.studies)) != len(self.studies):
            raise BadTrainingData("embeddings: a study is there twice")

    def rows(self, studies: Sequence[str]) -> npt.NDArray[np.int64]:
        """The row of each of these studies. Raises BadTrainingData for one that has no embedding."""
        row_of = {study: row for row, study in enumerate(self.studies)}
        if missing := [study for study in studies if study not in row_of]:
            raise BadTrainingData(f"{len(missing)} studies have no embedding, the first is {missing[0]}")
        return np.array([row_of[study] for study in studies], np.int64)

    def followed_by(self, more: Embeddings) -> Embeddings:
        """These, then more of the same model. Raises BadTrainingData for a study that is in both."""
        study, clip = (np.concatenate(both) for both in ((self.study, more.study), (self.clip, more.clip)))
        return Embeddings((*self.studies, *more.studies), study, clip, self.model)

    def digest(self) -> str:
        """SHA-256 of studies and vectors: what a stage that was trained on them keeps to know them by."""
        digest = hashlib.sha256("\n".join(self.studies).encode())
        for matrix in (self.study, self.clip):
            digest.update(np.ascontiguousarray(matrix).tobytes())
        return digest.hexdigest()


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """One safetensors file, whole or not at all. Raises NoSpace."""
    tensors = {"study": np.ascontiguousarray(embeddings.study), "clip": np.ascontiguousarray(embeddings.clip)}
    # One entry alone: safetensors writes several in any order, and the same embeddings must give the same file.
    facts = {"facts": json.dumps({"studies": embeddings.studies, "model": embeddings.model})}
    write_whole(path, lambda scratch: save_file(tensors, scratch, metadata=facts))


def read_embeddings(path: Path) -> Embeddings:
    """Raises BadTrainingData when `path` is no such file."""
    try:
        with safe_open(path, framework="np") as opened:
            facts = json.loads(opened.metadata()["facts"])
            studies = tuple(facts["studies"])
            return Embeddings(studies, opened.get_tensor("study"), opened.get_tensor("clip"), facts["model"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadTrainingData(f"{path}: not a file of embeddings ({type(error).__name__})") from error
