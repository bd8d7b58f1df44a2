"""Small untrained bundles beside `random_bundle`, and records of their evaluation.

How to use:

    other = new_bundle(tmp_path / "other", seed=1)        # another model altogether
    heads = new_heads(tmp_path / "heads", random_bundle)  # its encoder under other heads
    evaluated(heads)                                      # `model activate` takes it now
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from prima_core.bundle import read_manifest, write_bundle
from prima_core.random_weights import demo, write_random_bundle


def new_bundle(folder: Path, seed: int) -> Path:
    """A model of its own; `random_bundle` has seed 0."""
    write_random_bundle(folder, demo(), seed=seed, name="other")
    return folder


def new_heads(folder: Path, original: Path, sign: float = -1.0) -> Path:
    """The original's encoder and its heads, every weight of them times `sign`."""
    manifest = read_manifest(original)
    tensors = {name: tensor for file in manifest.files for name, tensor in load_file(original / file).items()}
    write_bundle(
        folder,
        name="heads",
        version="1",
        training_state=manifest.training_state,
        architecture=manifest.architecture,
        thresholds=manifest.thresholds,
        calibration=manifest.calibration,
        weights=lambda name: tensors[name] * np.float32(sign if name.startswith("heads") else 1),
    )
    return folder


def evaluated(folder: Path, **changes: object) -> Path:
    """The same folder with a record of its evaluation; `changes` are keys of the record."""
    record = {"schema_version": 1, "bundle_id": read_manifest(folder).id, "studies": 12, "mean_auroc": 0.5}
    (folder / "evaluation.json").write_text(json.dumps(record | changes))
    return folder


def damaged(original: Path, folder: Path) -> Path:
    """A copy with one bit of one weight changed."""
    copy = Path(shutil.copytree(original, folder))
    path = copy / "study_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return copy
