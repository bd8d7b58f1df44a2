"""Where findings lie in a patient, and how much of each patch of a series they cover.

Legend of the suffixes: U patches of a series, P points of a patch, N labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from prima_core.base.types import PreparedSeries

EVERY = 4  # in the slice plane, one voxel in so many is looked at


@dataclass(frozen=True)
class FindingMap:
    """voxels: (z, y, x) uint8, 0 or 1 + the number of a finding. affine: (4, 4), voxel (z, y, x) → LPS millimetres.

    labels: of each finding, the study's labels that it gives: diagnoses, and the priority where it is the reason.
    """

    voxels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    labels: tuple[tuple[str, ...], ...]

    @cached_property
    def located(self) -> tuple[str, ...]:
        """The labels of findings that have voxels, sorted."""
        numbered = enumerate(self.labels, start=1)
        return tuple(sorted({key for number, keys in numbered if (self.voxels == number).any() for key in keys}))

    def shares(self, series: PreparedSeries) -> npt.NDArray[np.float16]:
        """(U, N) how much of each of the series' patches the findings of each located label cover, 0…1.

        Raises ValueError for a series without an affine.
        """
        if series.affine is None:
            raise ValueError("the series lies nowhere")
        number_UP = self._numbers(series, np.linalg.inv(self.affine) @ series.affine)
        of = [[1 + n for n, keys in enumerate(self.labels) if key in keys] for key in self.located]
        columns = [np.isin(number_UP, numbers).mean(axis=1) for numbers in of]
        return np.array(columns, np.float16).reshape(len(of), len(number_UP)).T

    def _numbers(self, series: PreparedSeries, to_map: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """(U, P) what lies at the points of each patch."""
        first = np.unique(series.token_ids, return_index=True)[1]
        voxel_UP3 = series.coordinates[first][:, None] + _points(series.patches.shape[1:], series.thin_axis)
        index = np.rint(voxel_UP3 @ to_map[:3, :3].T + to_map[:3, 3]).astype(np.int64)
        inside: npt.NDArray[np.bool_] = np.all((index >= 0) & (index < self.voxels.shape), axis=-1)
        z, y, x = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
        return np.where(inside, self.voxels[z, y, x], np.uint8(0))


def _points(patch: tuple[int, ...], thin_axis: int) -> npt.NDArray[np.float64]:
    """(P, 3) points of a patch, in voxels: all on the thin axis, every fourth on the others."""
    along = [
        np.arange(size) if axis == thin_axis else np.arange((EVERY - 1) / 2, size, EVERY)
        for axis, size in enumerate(patch)
    ]
    return np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float64)
