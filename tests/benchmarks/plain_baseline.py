"""The same computation without any of the product's shortcuts: what a straightforward program pays for a study.

All patches of every volume are encoded and filtered afterwards, convolutions are the library's in contiguous float32,
holes are filled on voxels, series go through the sequence ViT one by one. Reading DICOM is the product's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.bundle import Bundle
from prima_core.names import series_name
from prima_core.prima import Prima
from prima_core.scope import ScopeSettings, SeriesImages, select_series
from prima_core.volume.geometry import read_volume
from prima_core.volume.headers import read_headers
from prima_core.volume.series import choose_volume


def load_plain(bundle: Bundle) -> Prima:
    """The bundle's model as torch builds it: contiguous float32, the library's modules."""
    from safetensors.torch import load_file

    model = Prima(bundle.manifest.architecture, bundle.manifest.thresholds)
    state: dict[str, Tensor] = {}
    for name in bundle.manifest.files:
        state.update(load_file(bundle.directory / name))
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def plain_predict(model: Prima, files: Sequence[Path], chunk: int) -> tuple[npt.NDArray[np.float32], dict[str, float]]:
    """DICOM files → study embedding and all logits. `chunk`: tokens that one call of the encoder takes."""
    selection = select_series(read_headers(files), ScopeSettings())
    series, embeddings = [], []
    for images in selection.series:
        prepared, latents = _encoded_series(model, images, chunk)
        alone = PreparedStudy(selection.study_instance_uid, selection.study_description, (prepared,))
        series.append(prepared)
        embeddings.append(model.series_embeddings([alone], [latents]))
    study = PreparedStudy(selection.study_instance_uid, selection.study_description, tuple(series))
    study_BP = model.study_embeddings([study], torch.cat(embeddings))
    (tasks,) = model.heads(study_BP, model.study_vit.clip_vector(study_BP))
    logits = {f"{task}.{name}": value for task, outputs in tasks.items() for name, value in outputs.items()}
    return study_BP[0].numpy(), logits


def plain_prepare(files: Sequence[Path]) -> list[tuple[PreparedSeries, npt.NDArray[np.float32]]]:
    """DICOM files → every series with all patches of its volume."""
    return [_prepared_series(images) for images in select_series(read_headers(files), ScopeSettings()).series]


def _prepared_series(images: SeriesImages) -> tuple[PreparedSeries, npt.NDArray[np.float32]]:
    stack = choose_volume(images.images)
    volume = read_volume(stack)
    edge = tuple(4 if axis == volume.thin_axis else 32 for axis in range(3))
    pads = [-size % step for size, step in zip(volume.voxels.shape, edge, strict=True)]
    padded = np.pad(volume.voxels, [(pad // 2, pad - pad // 2) for pad in pads]).astype(np.float32)
    mask = padded > (50 if padded.max() >= 5 else 0.5)
    patches = _patches(padded / padded.max(), edge)
    kept = _kept(mask, edge)
    described = stack.slices[0].image
    grid = tuple(size // step for size, step in zip(padded.shape, edge, strict=True))
    prepared = PreparedSeries(
        series_instance_uid=images.series_instance_uid,
        name=series_name(described.series_description, described.protocol_name, images.series_instance_uid),
        patches=patches[np.unique(kept)],
        token_ids=kept,
        coordinates=np.stack(np.unravel_index(kept, grid), axis=1) * np.array(edge),
        thin_axis=volume.thin_axis,
        tokens_total=len(patches),
        sop_instance_uids=(),
    )
    return prepared, patches


def _encoded_series(model: Prima, images: SeriesImages, chunk: int) -> tuple[PreparedSeries, Tensor]:
    prepared, patches = _prepared_series(images)
    encoded = []
    for part in torch.from_numpy(patches).split(chunk):
        doubled = part.repeat_interleave(2, dim=1 + prepared.thin_axis)[:, None]
        encoded.append(model.tokenizer.encoder(doubled))
    return prepared, torch.cat(encoded)[torch.from_numpy(np.unique(prepared.token_ids))]


def _patches(volume: npt.NDArray[np.float32], edge: tuple[int, ...]) -> npt.NDArray[np.float32]:
    z, y, x = (size // step for size, step in zip(volume.shape, edge, strict=True))
    cut = volume.reshape(z, edge[0], y, edge[1], x, edge[2])
    return np.ascontiguousarray(cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, *edge))


def _kept(mask: npt.NDArray[np.bool_], edge: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Kept patches in order, holes filled on voxels."""
    bins = np.floor(100 * _patches(mask.astype(np.float32), edge).mean(axis=(1, 2, 3), dtype=np.float64)).astype(int)
    grid = tuple(size // step for size, step in zip(mask.shape, edge, strict=True))
    members = [np.flatnonzero(bins == b) for b in range(101)]
    for b in range(21):
        walls = (bins == b).reshape(grid)
        voxels = walls.repeat(edge[0], 0).repeat(edge[1], 1).repeat(edge[2], 2)
        covered = _patches(binary_fill_holes(voxels).astype(np.float32), edge).min(axis=(1, 2, 3)) > 0
        members[b] = np.concatenate((members[b], np.flatnonzero(covered & (bins != b))))
    for p in range(5, -1, -1):
        kept = np.concatenate(members[p:])
        if len(kept) > 25:
            break
    return kept.astype(np.int64)
