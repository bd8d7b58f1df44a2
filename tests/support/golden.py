"""The golden model and studies under `shared/data/prima_golden` as the product's own types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.bundle import Bundle, load_bundle
from prima_core.import_prima import import_prima

STUDIES = ("GOLD0001", "BRAINIX")


@dataclass(frozen=True)
class GoldenStudy:
    """One study, prepared from the golden volumes and token ids, and every tensor of the reference."""

    study: PreparedStudy
    tensors: dict[str, npt.NDArray[np.float32]]


def import_golden(shared_data: Path, out: Path) -> Bundle:
    """The golden checkpoint as a bundle. Its weights are random, so it is not clinical."""
    golden = shared_data / "prima_golden"
    files = (golden / "primafullmodel.pt", golden / "vqvae.pth", golden / "tokenizer_config.json")
    import_prima(*files, out, training_state="untrained")
    return load_bundle(out)


def golden_study(shared_data: Path, name: str) -> GoldenStudy:
    """`GOLD0001` or `BRAINIX`, without going through DICOM."""
    folder = shared_data / "prima_golden"
    tensors = load_file(folder / f"{name}.safetensors")
    description = json.loads((folder / f"{name}.json").read_text("utf-8"))
    series = [
        _series(tensors, f"series{n}", f"1.2.{n}", entry["name"]) for n, entry in enumerate(description["series"])
    ]
    return GoldenStudy(PreparedStudy(name, description["study_description"], tuple(series)), tensors)


def _series(tensors: dict[str, npt.NDArray[np.float32]], key: str, uid: str, name: str) -> PreparedSeries:
    volume = tensors[f"{key}.volume"].astype(np.float32)
    thin_axis = int(np.argmin(volume.shape))
    edge = [4 if axis == thin_axis else 32 for axis in range(3)]
    missing = [-size % step for size, step in zip(volume.shape, edge, strict=True)]
    padded = np.pad(volume, [(pad // 2, pad - pad // 2) for pad in missing]) / volume.max()
    token_ids, corners = tensors[f"{key}.kept_token_ids"], tensors[f"{key}.kept_token_coords"]
    _, first = np.unique(token_ids, return_index=True)
    boxes = [tuple(slice(low, low + size) for low, size in zip(corner, edge, strict=True)) for corner in corners[first]]
    return PreparedSeries(
        series_instance_uid=uid,
        name=name,
        patches=np.stack([padded[box] for box in boxes]),
        token_ids=token_ids.astype(np.int64),
        coordinates=corners.astype(np.int64),
        thin_axis=thin_axis,
        tokens_total=int(np.prod(padded.shape) // (4 * 32 * 32)),
        sop_instance_uids=(),
    )
