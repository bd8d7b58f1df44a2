"""A study's files → what the model takes: headers, scope check, then one series after the other as volume and patches.

Torch-free, so that the scope of a study is known before anything heavy is loaded. Series are prepared one at a time; of
a finished one only the kept patches stay in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prima_core.base.errors import OutOfScope, UnusableSeries
from prima_core.base.types import PreparedSeries, PreparedStudy, SetAside
from prima_core.names import series_name
from prima_core.scope import ScopeSettings, SeriesImages, StudySelection, select_series, too_few
from prima_core.volume.faults import unexpected
from prima_core.volume.geometry import Volume, read_volume
from prima_core.volume.headers import read_headers
from prima_core.volume.patches import PatchGrid, patch_grid
from prima_core.volume.selection import kept_patches
from prima_core.volume.series import LEAST_SLICES, choose_volume

OnProgress = Callable[[int, int], None]


def prepare_study(
    files: Sequence[Path], settings: ScopeSettings | None = None, on_progress: OnProgress | None = None
) -> PreparedStudy:
    """All usable series of one study, in the order of their numbers, ready for the tokenizer.

    `on_progress` is told the series done and their total, and (0, 0) at each file before. Raises OutOfScope when the
    study is not one to read, TwoPatients, and the machine's own trouble (MemoryError, an OSError with an errno), which
    says nothing of the study.
    """
    settings = settings or ScopeSettings()
    tell = on_progress or (lambda _done, _total: None)
    started = time.perf_counter()
    headers = read_headers(files, lambda: tell(0, 0))
    prepared = prepare_selection(select_series(headers, settings), settings, on_progress)
    return replace(prepared, seconds=time.perf_counter() - started)


def prepare_selection(
    selection: StudySelection, settings: ScopeSettings, on_progress: OnProgress | None = None
) -> PreparedStudy:
    """As `prepare_study`, for a study whose scope was checked before."""
    series: list[PreparedSeries] = []
    set_aside = list(selection.set_aside)
    for done, images in enumerate(selection.series, 1):
        try:
            series.append(prepare_series(images, settings.max_kept_tokens))
        except UnusableSeries as error:
            set_aside.append(SetAside(images.series_instance_uid, str(error)))
        except Exception as error:  # noqa: BLE001 - one series that nobody thought of must not end the study
            set_aside.append(SetAside(images.series_instance_uid, unexpected(error)))
        if on_progress is not None:
            on_progress(done, len(selection.series))
    if reason := too_few(len(series), settings.min_series, "series of the head that can be read as volumes"):
        raise OutOfScope(reason, tuple(set_aside), selection.study_instance_uid)
    return PreparedStudy(
        study_instance_uid=selection.study_instance_uid,
        description=selection.study_description,
        series=tuple(series),
        set_aside=tuple(set_aside),
        age_years=selection.age_years,
    )


def prepare_series(images: SeriesImages, max_kept_tokens: int) -> PreparedSeries:
    """One series as its kept patches. Raises UnusableSeries with the reason."""
    stack = choose_volume(images.images)
    described = stack.slices[0].image
    name = series_name(described.series_description, described.protocol_name, images.series_instance_uid)
    notes = (*images.notes, *stack.notes)
    return prepare_volume(read_volume(stack), images.series_instance_uid, name, max_kept_tokens, notes)


def prepare_volume(
    volume: Volume, series_instance_uid: str, name: str, max_kept_tokens: int, notes: tuple[str, ...] = ()
) -> PreparedSeries:
    """The kept patches of a volume, wherever it comes from. Raises UnusableSeries with the reason."""
    patches, token_ids, step = _within_limit(volume, max_kept_tokens)
    slices = volume.voxels.shape[volume.thin_axis]
    thinning = (f"one slice in {step} of {slices} was used, to keep at most {max_kept_tokens} patches",)
    return PreparedSeries(
        series_instance_uid=series_instance_uid,
        name=name,
        patches=patches.gather(np.unique(token_ids)),
        token_ids=token_ids,
        coordinates=patches.coordinates(token_ids),
        thin_axis=volume.thin_axis,
        tokens_total=len(patches.fill),
        sop_instance_uids=tuple(dict.fromkeys(plane.image.sop_instance_uid for plane in volume.slices[::step])),
        notes=(*notes, *(thinning if step > 1 else ())),
        affine=_of_padded(volume, patches, step),
    )


def _of_padded(volume: Volume, patches: PatchGrid, step: int) -> npt.NDArray[np.float64]:
    """The volume's affine, for voxels of the padded volume of one slice in `step`."""
    affine = volume.affine.copy()
    affine[:, volume.thin_axis] *= step
    affine[:3, 3] -= affine[:3, :3] @ patches.before
    return affine


def _within_limit(volume: Volume, limit: int) -> tuple[PatchGrid, npt.NDArray[np.int64], int]:
    """Patches and kept ids, using one slice in 1, 2, 3 … until no more than `limit` are kept, and that number."""
    step = 1
    while True:
        index = tuple(slice(None, None, step if axis == volume.thin_axis else 1) for axis in range(3))
        patches = patch_grid(volume.voxels[index], volume.thin_axis)
        token_ids = kept_patches(patches.fill, patches.grid)
        if len(token_ids) <= limit:
            return patches, token_ids, step
        step = max(step + 1, step * len(token_ids) // limit)
        if volume.voxels.shape[volume.thin_axis] // step < LEAST_SLICES:
            raise UnusableSeries(f"more than {limit} patches would be kept however few slices are used")
