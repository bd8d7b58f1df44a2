"""Zero-shot findings: a finding that two prompts define, scored by the CLIP towers, without a single label.

    logit = scale · image · (mean of "there is …" − mean of "there is no …")

This is linear in the image's CLIP vector, so it goes into a bundle as a head that reads it (`HeadShape.source`).

Legend of the suffixes: V width of the CLIP space, n findings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prima_core.base.config import HeadShape
from training.base.errors import BadTrainingData

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

    def weights(self, position: int) -> dict[str, Vectors]:
        """By the bundle's names, for the head at this position."""
        prefix = f"heads.mlps.{position}.layers.0"
        return {f"{prefix}.weight": self.weight, f"{prefix}.bias": np.zeros(len(self.weight), np.float32)}


def plain_prompts(words: Sequence[str]) -> Prompts:
    """The prompts of a finding that goes by these words."""
    return Prompts(tuple(f"There is {word}." for word in words), tuple(f"There is no {word}." for word in words))


def read_prompts(path: Path) -> dict[str, Prompts]:
    """A JSON file {name: {"present": [texts], "absent": [texts]}}. Raises BadTrainingData."""
    try:
        document = json.loads(path.read_text("utf-8"))
        return {name: Prompts(_texts(one["present"]), _texts(one["absent"])) for name, one in document.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadTrainingData(f"{path}: not a file of prompts ({type(error).__name__})") from error


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


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
        raise ValueError("expected a list of texts")
    return tuple(value)
