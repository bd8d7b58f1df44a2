"""Splitting a series into volumes and choosing one: every kind of mixture, and what makes a series unusable.

Every part of a mixed series has its own brightness, so that an interleaved volume would show.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from prima_core.base.errors import UnusableSeries
from prima_core.volume.headers import read_headers
from prima_core.volume.series import SliceStack, choose_volume
from support.dicom_factory import (
    SeriesFacts,
    StudyFacts,
    enhanced_image,
    head_phantom,
    mr_slices,
    write,
    write_series,
)

STUDY, FACTS = StudyFacts(), SeriesFacts(spacing=(2.0, 2.0))
SLICES = 6
Mark = Callable[[Dataset], None]


def series_of(folder: Path, parts: list[Mark], *, interleaved: bool = False) -> SliceStack:
    """A series of several volumes at the same positions; part k is marked by `parts[k]` and lies in its own folder."""
    volumes = [mr_slices(head_phantom(SLICES, 32, 32), STUDY, FACTS) for _ in parts]
    for part, (mark, volume) in enumerate(zip(parts, volumes, strict=True)):
        for index, ds in enumerate(volume):
            ds.InstanceNumber = 1 + (index * len(parts) + part if interleaved else part * SLICES + index)
            mark(ds)
            write(ds, folder / f"part{part}" / f"{index}.dcm")
    return choose_volume(read_headers(sorted(folder.rglob("*.dcm"))).images)


def parts_of(stack: SliceStack) -> set[str]:
    return {plane.image.path.parent.name for plane in stack.slices}


def set_to(**attributes: Any) -> Mark:
    def mark(ds: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)

    return mark


def private(group: int, creator: str, element: int, vr: str, value: Any) -> Mark:
    def mark(ds: Dataset) -> None:
        ds.private_block(group, creator, create=True).add_new(element, vr, value)

    return mark


def image_type(*values: str) -> Mark:
    return set_to(ImageType=list(values))


def ge_component(number: int) -> Mark:
    def mark(ds: Dataset) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        private(0x43, "GEMS_PARM_01", 0x2F, "SS", number)(ds)

    return mark


MIXTURES: dict[str, tuple[list[Mark], int]] = {
    "first echo by time": ([set_to(EchoTime="90"), set_to(EchoTime="12")], 1),
    "first echo by number": ([set_to(EchoNumbers="2"), set_to(EchoNumbers="1")], 1),
    "highest b-value": ([set_to(DiffusionBValue=0.0), set_to(DiffusionBValue=1000.0)], 1),
    "highest b-value, Siemens": (
        [private(0x19, "SIEMENS MR HEADER", 0x0C, "IS", b) for b in ("1000", "0", "500")],
        0,
    ),
    "highest b-value, GE": ([private(0x43, "GEMS_PARM_01", 0x39, "IS", [b, 0, 0, 0]) for b in (0, 1000001000)], 1),
    "highest b-value, Philips": ([private(0x2001, "Philips Imaging DD 001", 0x03, "FL", b) for b in (0.0, 800.0)], 1),
    "trace before the ADC map": (
        [image_type("DERIVED", "PRIMARY", "DIFFUSION", "ADC"), image_type("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW")],
        1,
    ),
    "the undirected volume before single directions": (
        [set_to(SequenceName=name) for name in ("ep_b1000#1", "ep_b1000#2", "ep_b0")],
        2,
    ),
    "trace by sequence name": ([set_to(SequenceName="*ep_b0"), set_to(SequenceName="*ep_b1000t")], 1),
    "first time point": ([set_to(TemporalPositionIdentifier=n) for n in ("3", "1", "2")], 1),
    "first acquisition": ([set_to(AcquisitionNumber=n) for n in ("2", "1")], 1),
    "first acquisition time": ([set_to(AcquisitionTime=t) for t in ("101500.5", "101400.25")], 1),
    "magnitude before phase": (
        [image_type("ORIGINAL", "PRIMARY", "P", "ND"), image_type("ORIGINAL", "PRIMARY", "M", "ND")],
        1,
    ),
    "magnitude before phase, Philips": (
        [
            image_type("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"),
            image_type("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"),
        ],
        1,
    ),
    "magnitude before real, GE": ([ge_component(n) for n in (2, 3, 0)], 2),
    "magnitude as declared": ([set_to(ComplexImageComponent=c) for c in ("IMAGINARY", "MAGNITUDE")], 1),
    "water before fat": (
        [image_type("DERIVED", "PRIMARY", "DIXON", "FAT"), image_type("DERIVED", "PRIMARY", "DIXON", "WATER")],
        1,
    ),
    "first of repeats by number": ([set_to()] * 3, 0),
}


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_one_volume_is_used_and_never_a_mixture(tmp_path: Path, mixture: str, interleaved: bool) -> None:
    marks, expected = MIXTURES[mixture]
    stack = series_of(tmp_path, marks, interleaved=interleaved)
    assert parts_of(stack) == {f"part{expected}"}
    assert len(stack.slices) == SLICES
    assert "more than one volume" in stack.notes[-1]


def test_a_broken_volume_gives_way_to_a_whole_one(tmp_path: Path) -> None:
    volumes = [mr_slices(head_phantom(SLICES, 32, 32), STUDY, FACTS) for _ in range(2)]
    for part, volume in enumerate(volumes):
        for index, ds in enumerate(volume):
            ds.EchoTime = str(10 * (part + 1))
            if (part, index) != (0, 2):
                write(ds, tmp_path / f"part{part}" / f"{index}.dcm")
    stack = choose_volume(read_headers(sorted(tmp_path.rglob("*.dcm"))).images)
    assert parts_of(stack) == {"part1"}


def test_an_incomplete_last_time_point_does_not_disturb_the_first(tmp_path: Path) -> None:
    volumes = [mr_slices(head_phantom(SLICES, 32, 32), STUDY, FACTS) for _ in range(3)]
    for part, volume in enumerate(volumes):
        for index, ds in enumerate(volume[: 2 if part == 2 else SLICES]):
            ds.AcquisitionNumber = part + 1
            write(ds, tmp_path / f"part{part}" / f"{index}.dcm")
    stack = choose_volume(read_headers(sorted(tmp_path.rglob("*.dcm"))).images)
    assert parts_of(stack) == {"part0"}


def test_enhanced_frames_of_several_echoes_and_b_values_are_split_by_the_same_rule(tmp_path: Path) -> None:
    voxels = head_phantom(SLICES, 32, 32)
    ds = enhanced_image(np.concatenate([voxels] * 3), STUDY, FACTS)
    for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        part, position = divmod(index, SLICES)
        frame.PlanePositionSequence[0].ImagePositionPatient = FACTS.position(position)
        diffusion = Dataset()
        diffusion.DiffusionBValue = (0.0, 1000.0, 500.0)[part]
        frame.MRDiffusionSequence = [diffusion]
    stack = choose_volume(read_headers([write(ds, tmp_path / "a.dcm")]).images)
    assert [plane.frame.index for plane in stack.slices] == list(range(SLICES, 2 * SLICES))


def test_enhanced_stacks_of_other_orientation_are_separate_volumes(tmp_path: Path) -> None:
    ds = enhanced_image(head_phantom(9, 32, 32), STUDY, FACTS, shared=False)
    sagittal = SeriesFacts(plane="sagittal", spacing=(2.0, 2.0))
    for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence[:4]):
        frame.FrameContentSequence[0].StackID = "2"
        frame.PlaneOrientationSequence[0].ImageOrientationPatient = list(sagittal.orientation)
        frame.PlanePositionSequence[0].ImagePositionPatient = sagittal.position(index)
    # The items of the factory are shared between frames; give the others theirs back.
    for frame in ds.PerFrameFunctionalGroupsSequence[4:]:
        item = Dataset()
        item.ImageOrientationPatient = list(FACTS.orientation)
        frame.PlaneOrientationSequence = [item]
    stack = choose_volume(read_headers([write(ds, tmp_path / "a.dcm")]).images)
    assert [plane.frame.index for plane in stack.slices] == [4, 5, 6, 7, 8]


def test_slices_of_a_minority_size_are_left_out(tmp_path: Path) -> None:
    small = write_series(tmp_path / "small", head_phantom(3, 40, 32), STUDY, FACTS)
    large = write_series(tmp_path / "large", head_phantom(8, 32, 32), STUDY, FACTS)
    stack = choose_volume(read_headers(small + large).images)
    assert len(stack.slices) == 8
    assert stack.notes == ("3 slice(s) of another size than most were left out",)


BAD = {
    "gap": (lambda ds, i: _shift(ds, 4.0 if i > 4 else 0), "slices are missing"),
    "one duplicated position": (lambda ds, i: _shift(ds, -4.0 if i == 5 else 0), "same position"),
    "one other orientation": (lambda ds, i: _tilt(ds, i == 5), "not parallel"),
    "every other orientation": (lambda ds, i: _tilt(ds, i % 2 == 1), "not parallel"),
    "no position": (lambda ds, i: _drop(ds, "ImagePositionPatient", i == 3), "no valid position"),
    "no orientation": (lambda ds, i: _drop(ds, "ImageOrientationPatient", True), "no valid position or orientation"),
    "orientation of zeros": (lambda ds, i: set_to(ImageOrientationPatient=[0] * 6)(ds), "no valid position"),
    "position too short": (lambda ds, i: set_to(ImagePositionPatient=[1, 2])(ds), "no valid position"),
    "no spacing": (lambda ds, i: _drop(ds, "PixelSpacing", True), "pixel spacing"),
    "negative spacing": (lambda ds, i: set_to(PixelSpacing=["-1", "1"])(ds), "pixel spacing"),
    "smallest spacing": (lambda ds, i: set_to(PixelSpacing=["1e-300"] * 2)(ds), "field of view"),
    "spacing of a microscope": (lambda ds, i: set_to(PixelSpacing=["0.1"] * 2)(ds), "field of view"),
    "spacing of a whole body": (lambda ds, i: set_to(PixelSpacing=["1", "20"])(ds), "field of view"),
    "one other spacing": (lambda ds, i: set_to(PixelSpacing=["2", "2.1" if i == 4 else "2"])(ds), "pixel spacings"),
    "one other frame of reference": (
        lambda ds, i: set_to(FrameOfReferenceUID="1.2.3" if i == 4 else "1.2.4")(ds),
        "frames of reference",
    ),
    "a slice beside the others": (lambda ds, i: _shift(ds, 0, aside=5.0 * (i == 4)), "straight above"),
    "slices that lean": (lambda ds, i: _shift(ds, 0, aside=0.5 * i), "straight above"),
    "slices too near": (lambda ds, i: _shift(ds, -3.9 * i), "distance between slices"),
    "slices too far": (lambda ds, i: _shift(ds, 26.0 * i), "distance between slices"),
    "slope of zero": (lambda ds, i: set_to(RescaleSlope="0", RescaleIntercept="0")(ds), "rescale"),
}


@pytest.mark.parametrize("flaw", BAD)
def test_a_malformed_series_is_unusable_for_its_reason(tmp_path: Path, flaw: str) -> None:
    edit, reason = BAD[flaw]
    paths = write_series(tmp_path, head_phantom(10, 32, 32), STUDY, FACTS, edit=edit)
    with pytest.raises(UnusableSeries, match=reason):
        choose_volume(read_headers(paths).images)


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_slices_than_a_patch_is_deep_are_no_volume(tmp_path: Path, count: int) -> None:
    paths = write_series(tmp_path, head_phantom(8, 32, 32)[:count], STUDY, FACTS)
    with pytest.raises(UnusableSeries, match=f"{count} slice"):
        choose_volume(read_headers(paths).images)


def test_no_slices_are_no_volume() -> None:
    with pytest.raises(UnusableSeries, match="no slices"):
        choose_volume([])


def test_positions_rounded_by_the_scanner_are_even(tmp_path: Path) -> None:
    def jitter(ds: Dataset, index: int) -> None:
        _shift(ds, 0.02 * (-1) ** index)

    paths = write_series(tmp_path, head_phantom(10, 32, 32), STUDY, FACTS, edit=jitter)
    assert len(choose_volume(read_headers(paths).images).slices) == 10


def test_images_smaller_than_a_patch_are_unusable(tmp_path: Path) -> None:
    paths = write_series(tmp_path, head_phantom(8, 64, 31), STUDY, FACTS)
    with pytest.raises(UnusableSeries, match="fewer than 32"):
        choose_volume(read_headers(paths).images)


def test_oblique_slices_with_rounded_cosines_and_positions_lie_straight(tmp_path: Path) -> None:
    def rounded(ds: Dataset, index: int) -> None:
        ds.ImagePositionPatient = [round(float(x), 2) for x in ds.ImagePositionPatient]
        ds.ImageOrientationPatient = [round(float(x), 4) for x in ds.ImageOrientationPatient]

    angle = np.radians(23.7)
    plane = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    facts = SeriesFacts(plane=plane, spacing=(2.0, 2.0), gap=6.0)
    paths = write_series(tmp_path, head_phantom(30, 32, 32), STUDY, facts, edit=rounded)
    assert len(choose_volume(read_headers(paths).images).slices) == 30


def _shift(ds: Dataset, millimetres: float, aside: float = 0.0) -> None:
    x, y, z = ds.ImagePositionPatient
    ds.ImagePositionPatient = [float(x) + aside, y, float(z) + millimetres]


def _tilt(ds: Dataset, tilted: bool) -> None:
    if tilted:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6]


def _drop(ds: Dataset, keyword: str, dropped: bool) -> None:
    if dropped:
        delattr(ds, keyword)
