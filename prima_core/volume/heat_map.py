"""Values of patches → where they lie in the patient and on the slices that they were made of.

The way back through padding, reorientation and resampling is one affine, `PreparedSeries.affine`; a patch is a box of
voxels in it. Nothing is smoothed: a value holds for its whole patch, and the picture should show how coarse that is.

Legend of the suffixes: U distinct patches of the series, T its tokens, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prima_core.base.types import PreparedSeries
from prima_core.volume.frames import Frame
from prima_core.volume.patches import patch_shape

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeatMap:
    """A value for every patch of a volume.

    value_ZYX: on the grid of patches; NaN for a patch that the model did not read. patch: voxels of one, (z, y, x).
    affine: (4, 4), voxel (z, y, x) of the padded volume → patient (x, y, z) in LPS millimetres.
    """

    value_ZYX: Values
    patch: tuple[int, int, int]
    affine: Values

    def at(self, points_N3: Values) -> Values:
        """(N,) values at patient positions (LPS, mm); NaN where the model read nothing."""
        back = np.linalg.inv(self.affine)
        voxel_N3 = points_N3 @ back[:3, :3].T + back[:3, 3]
        cell_N3 = np.floor((voxel_N3 + 0.5) / self.patch).astype(np.int64)  # a voxel reaches half a step to each side
        inside_N = ((cell_N3 >= 0) & (cell_N3 < self.value_ZYX.shape)).all(axis=1)
        value_N = np.full(len(points_N3), np.nan)
        value_N[inside_N] = self.value_ZYX[tuple(cell_N3[inside_N].T)]
        return value_N

    def on(self, frame: Frame) -> Values:
        """(rows, columns) values at the pixels of a plane. frame: one with a position, an orientation and a spacing."""
        return self.at(pixel_positions(frame)).reshape(frame.rows, frame.columns)

    def centre(self, cell: Sequence[int]) -> Values:
        """(3,) patient position of the middle of a patch. cell: (z, y, x) on the grid of patches."""
        voxel_3 = (np.array(cell) + 0.5) * self.patch - 0.5
        position: Values = self.affine[:3, :3] @ voxel_3 + self.affine[:3, 3]
        return position


def heat_map(series: PreparedSeries, value_U: Values) -> HeatMap:
    """The map of a series' patches. value_U: in the order of `series.patches`. Raises ValueError without an affine."""
    if series.affine is None:
        raise ValueError("nothing says where the series lies")
    patch = patch_shape(series.thin_axis)
    cell_T3 = series.coordinates // np.array(patch)
    row_T = np.unique(series.token_ids, return_inverse=True)[1]
    value_ZYX = np.full(cell_T3.max(axis=0) + 1, np.nan)
    value_ZYX[tuple(cell_T3.T)] = value_U[row_T]
    return HeatMap(value_ZYX, patch, series.affine)


def pixel_positions(frame: Frame) -> Values:
    """(rows · columns, 3) patient positions of a plane's pixel centres, row by row (PS3.3 C.7.6.2.1.1)."""
    if frame.position is None or frame.orientation is None or frame.spacing is None:
        raise ValueError("nothing says where the plane lies")
    along_row, along_column = np.reshape(np.array(frame.orientation), (2, 3))
    between_rows, between_columns = frame.spacing
    row, column = np.divmod(np.arange(frame.rows * frame.columns), frame.columns)
    steps = np.outer(column, along_row * between_columns) + np.outer(row, along_column * between_rows)
    positions: Values = np.array(frame.position) + steps
    return positions
