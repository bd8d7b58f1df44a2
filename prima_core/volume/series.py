"""Which planes of a series make one volume. A series may hold several; they are told apart and never interleaved.

1. Planes of another size than the most common (rows, columns) are left out.
2. A plane without valid position, orientation, pixel spacing or rescale makes the series unusable.
3. Planes that differ in what declares a volume belong to different volumes: stack, component (magnitude, phase …),
   Image Type, echo, b-value and trace, temporal position.
4. All planes of a volume are parallel. Where positions repeat, the first of `SEPARATORS` that gives complete volumes
   tells them apart; failing that, if every position repeats equally often, the k-th plane at each position by number
   belongs to the k-th volume. Other repeats are duplicates and make the volume unusable.
5. A volume has at least `LEAST_SLICES` positions (the depth of one patch) at even distances: a gap is a lost slice.
   Its slices share frame of reference and pixel spacing, lie straight above each other, and have the size of a head.
6. Of the usable volumes one is taken, by the first of these that decides: magnitude before real, phase, imaginary; the
   most slices; not one of several diffusion directions; images before maps, water and in-phase before fat (Dixon);
   trace before other diffusion weighting; the highest b-value; the first echo, time point, and number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from prima_core.base.errors import UnusableSeries
from prima_core.volume.frames import Frame
from prima_core.volume.headers import ImageHeader

_Key = TypeVar("_Key", bound=Hashable)

LEAST_SLICES = 4
SAME_POSITION_MM = 0.05
EVEN_WITHIN = 0.1  # of the usual distance between slices
SMALLEST_SIDE = 32  # pixels: one patch of the model
FIELD_OF_VIEW_MM = 50.0, 600.0
SLICE_DISTANCE_MM = 0.2, 20.0
_PARALLEL_WITHIN = 1e-3
_SAME_SPACING_WITHIN = 1e-3  # of the pixel spacing; decimal strings are often rounded
_STRAIGHT_WITHIN = 1.0  # pixels
_LOWEST_DIRECTIONAL_B = 50  # below this, diffusion direction does not matter

_COMPONENTS = ("magnitude", "real", "phase", "imaginary")
_LATER_TYPES = {"ADC": 4, "EADC": 4, "FA": 4, "MAP": 4, "FAT": 3, "F": 3}
_LATER_TYPES |= {"OUTPHASE": 2, "OPP": 2, "OP": 2, "OUT": 2, "INPHASE": 1, "IP": 1, "IN": 1}


@dataclass(frozen=True)
class Slice:
    """One plane of one image."""

    image: ImageHeader
    frame: Frame

    @property
    def number(self) -> tuple[float, int, int]:
        """Instance number, frame, tile: the order in which the scanner counted."""
        instance = self.image.instance_number
        return float("inf") if instance is None else instance, self.frame.index, self.frame.tile


@dataclass(frozen=True)
class SliceStack:
    """The slices of one volume, ascending along the cross product of rows and columns."""

    slices: tuple[Slice, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A volume found in the series: number `place` of `siblings` volumes of the same declared kind."""

    slices: list[Slice]
    place: int
    siblings: int


# What may differ from slice to slice of one volume, and so tells volumes apart only where positions repeat.
SEPARATORS: tuple[Callable[[Slice], Any], ...] = (
    lambda plane: plane.frame.inversion_time,
    lambda plane: plane.frame.flip_angle,
    lambda plane: plane.frame.acquisition,
    lambda plane: plane.frame.time or None,
    lambda plane: plane.frame.trigger_time,
)


def choose_volume(images: Sequence[ImageHeader]) -> SliceStack:
    """The slices of the one volume that a series is read as. Raises UnusableSeries with the reason if there is none."""
    planes, notes = _majority_size([Slice(image, frame) for image in images for frame in image.frames])
    for plane in planes:
        _check_plane(plane.frame)
    candidates: list[_Candidate] = []
    refusals: list[UnusableSeries] = []
    for group in _partition(planes, lambda plane: _declared(plane.frame)).values():
        try:
            volumes = _volumes(group)
        except UnusableSeries as refusal:
            refusals.append(refusal)
            continue
        candidates += [_Candidate(volume, place, len(volumes)) for place, volume in enumerate(volumes)]
    usable = []
    for candidate in sorted(candidates, key=_rank):
        try:
            _check_distances(candidate.slices)
            _check_in_plane(candidate.slices)
        except UnusableSeries as refusal:
            refusals.append(refusal)
        else:
            usable.append(candidate)
    if not usable:
        raise refusals[0]
    if len(candidates) > 1 or refusals:
        notes.append(f"the series holds more than one volume; used: {_describe(usable[0])}")
    return SliceStack(tuple(usable[0].slices), tuple(notes))


def _majority_size(planes: Sequence[Slice]) -> tuple[list[Slice], list[str]]:
    if not planes:
        raise UnusableSeries("no slices")
    sizes = Counter((plane.frame.rows, plane.frame.columns) for plane in planes)
    size = max(sizes, key=lambda size: (sizes[size], size))
    kept = [plane for plane in planes if (plane.frame.rows, plane.frame.columns) == size]
    lost = len(planes) - len(kept)
    return kept, [f"{lost} slice(s) of another size than most were left out"] if lost else []


def _check_plane(frame: Frame) -> None:
    if frame.position is None or frame.orientation is None:
        raise UnusableSeries("an image has no valid position or orientation")
    if frame.spacing is None:
        raise UnusableSeries("an image has no valid pixel spacing")
    if min(frame.rows, frame.columns) < SMALLEST_SIDE:
        raise UnusableSeries(f"an image has fewer than {SMALLEST_SIDE} rows or columns")
    field = frame.rows * frame.spacing[0], frame.columns * frame.spacing[1]
    if min(field) < FIELD_OF_VIEW_MM[0] or max(field) > FIELD_OF_VIEW_MM[1]:
        raise UnusableSeries("the pixel spacing gives a field of view that is not that of a head")
    if not frame.slope or frame.intercept is None:
        raise UnusableSeries("an image has a malformed rescale slope or intercept")


def _declared(frame: Frame) -> tuple[object, ...]:
    """What declares a volume: two planes that differ here never belong together."""
    echo_time = None if frame.echo_time is None else round(frame.echo_time, 1)
    b_value = None if frame.b_value is None else round(frame.b_value)
    kind = frame.stack, frame.component, frame.image_type, frame.temporal_position
    return *kind, frame.echo_number, echo_time, b_value, frame.isotropic


def _volumes(planes: Sequence[Slice]) -> list[list[Slice]]:
    """Planes of one declared kind as volumes in which no position repeats, in order."""
    positions = _by_position(planes)
    if len(positions) == len(planes):
        return [[at[0] for at in positions]]
    for separator in SEPARATORS:
        parts = _partition(planes, separator)
        if None in parts:
            continue
        ordered = (_by_position(parts[key]) for key in sorted(parts))
        complete = [part for part in ordered if len(part) == len(positions) and all(len(at) == 1 for at in part)]
        if complete:
            return [[at[0] for at in part] for part in complete]
    repeats = {len(at) for at in positions}
    if len(repeats) > 1 or any(plane.image.instance_number is None for plane in planes):
        raise UnusableSeries("several images lie at the same position")
    counted = [sorted(at, key=lambda plane: plane.number) for at in positions]
    return [[at[k] for at in counted] for k in range(repeats.pop())]


def _by_position(planes: Sequence[Slice]) -> list[list[Slice]]:
    """Parallel planes gathered by position, ascending along their normal."""
    orientations = np.array([plane.frame.orientation for plane in planes])
    if np.abs(orientations - orientations[0]).max() > _PARALLEL_WITHIN:
        raise UnusableSeries("the slices are not parallel")
    offsets = _offsets(planes)
    positions: list[list[Slice]] = []
    last = -np.inf
    for index in np.argsort(offsets, kind="stable"):
        if offsets[index] - last > SAME_POSITION_MM:
            positions.append([])
        positions[-1].append(planes[index])
        last = offsets[index]
    return positions


def _offsets(planes: Sequence[Slice]) -> npt.NDArray[np.float64]:
    """Distance of each plane along the first one's normal, mm."""
    row, column = np.reshape(np.array(planes[0].frame.orientation), (2, 3))
    positions = np.array([plane.frame.position for plane in planes], dtype=np.float64)
    return positions @ np.cross(row, column)


def _check_distances(slices: Sequence[Slice]) -> None:
    if len(slices) < LEAST_SLICES:
        raise UnusableSeries(f"{len(slices)} slice(s), a volume needs at least {LEAST_SLICES}")
    distances = np.diff(_offsets(slices))
    usual = np.median(distances)
    if np.abs(distances - usual).max() > EVEN_WITHIN * usual:
        raise UnusableSeries("the distances between slices are uneven: slices are missing")
    if not SLICE_DISTANCE_MM[0] <= usual <= SLICE_DISTANCE_MM[1]:
        raise UnusableSeries("the distance between slices is not that of a scan of the head")


def _check_in_plane(slices: Sequence[Slice]) -> None:
    """A volume is a box: a slice that lies beside the others would be moved there by the resampling."""
    if len({plane.frame.frame_of_reference for plane in slices} - {""}) > 1:
        raise UnusableSeries("the slices have different frames of reference")
    spacings = np.array([plane.frame.spacing for plane in slices], dtype=np.float64)
    if np.abs(spacings / spacings[0] - 1).max() > _SAME_SPACING_WITHIN:
        raise UnusableSeries("the slices have different pixel spacings")
    positions = np.array([plane.frame.position for plane in slices], dtype=np.float64)
    axes = np.reshape(np.array(slices[0].frame.orientation), (2, 3))  # of columns, of rows
    shifts = (positions - positions[0]) @ axes.T / spacings[0][::-1]
    if np.abs(shifts).max() > _STRAIGHT_WITHIN:
        raise UnusableSeries("the slices do not lie straight above each other")


def _rank(candidate: _Candidate) -> tuple[object, ...]:
    """Sort key of rule 6; the least is used."""
    first = min(candidate.slices, key=lambda plane: plane.number)
    frame = first.frame
    b_value = frame.b_value or 0.0
    return (
        _COMPONENTS.index(frame.component),
        -len(candidate.slices),
        candidate.siblings > 1 and b_value > _LOWEST_DIRECTIONAL_B and not frame.isotropic,
        _lateness(frame.image_type),
        not frame.isotropic,
        -b_value,
        frame.echo_number or 0,
        frame.echo_time or 0.0,
        frame.temporal_position or 0,
        candidate.place,
        first.number,
    )


def _lateness(image_type: Sequence[str]) -> int:
    words = (word for value in image_type[2:] for word in value.replace("_", " ").split())
    return max((_LATER_TYPES.get(word, 0) for word in words), default=0)


def _describe(candidate: _Candidate) -> str:
    frame = candidate.slices[0].frame
    parts = [frame.component, f"{len(candidate.slices)} slices"]
    if frame.echo_time is not None:
        parts.append(f"echo time {frame.echo_time:g} ms")
    if frame.b_value is not None:
        parts.append(f"b {frame.b_value:g}")
    return ", ".join(parts)


def _partition(planes: Iterable[Slice], key: Callable[[Slice], _Key]) -> dict[_Key, list[Slice]]:
    groups: dict[_Key, list[Slice]] = defaultdict(list)
    for plane in planes:
        groups[key(plane)].append(plane)
    return dict(groups)
