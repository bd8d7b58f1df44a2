"""The CSA header of Siemens mosaics: well-formed, damaged, absent. The unpacked volume is in `test_geometry.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from prima_core.volume.headers import read_headers
from prima_core.volume.siemens_mosaic import csa_elements
from support.dicom_factory import StudyFacts, csa_header, head_phantom, mosaic_image, write

HEADER = csa_header(NumberOfImagesInMosaic=["11"], SliceNormalVector=["0.0", "0.0", "1.0"], Name=["text"])


def test_numbers_are_read_and_text_is_passed_over() -> None:
    assert csa_elements(HEADER) == {
        "NumberOfImagesInMosaic": (11.0,),
        "SliceNormalVector": (0.0, 0.0, 1.0),
        "Name": (),
    }


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(HEADER)), st.binary(max_size=64))
def test_a_damaged_header_is_read_as_far_as_it_makes_sense_or_not_at_all(cut: int, junk: bytes) -> None:
    elements = csa_elements(HEADER[:cut] + junk + HEADER[cut + len(junk) :])
    assert all(isinstance(values, tuple) for values in elements.values())


def drop_count(ds: Dataset) -> None:
    del ds[0x0019100A]
    ds[0x00291010].value = csa_header(SliceNormalVector=["0", "0", "1"])


def endless_count(ds: Dataset) -> None:
    del ds[0x0019100A]
    ds[0x00291010].value = csa_header(NumberOfImagesInMosaic=["inf"], SliceNormalVector=["0", "0", "1"])


def normal_of_no_numbers(ds: Dataset) -> None:
    ds[0x00291010].value = csa_header(SliceNormalVector=["nan", "0", "1"])


def drop_gap(ds: Dataset) -> None:
    del ds.SpacingBetweenSlices


def turn_normal(ds: Dataset) -> None:
    ds[0x00291010].value = csa_header(SliceNormalVector=["1", "0", "0"])


def change_grid(ds: Dataset) -> None:
    ds[0x0019100A].value = 100


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (drop_count, "without the number of its slices"),
        (endless_count, "without the number of its slices"),
        (normal_of_no_numbers, "without a slice normal"),
        (drop_gap, "slice spacing"),
        (turn_normal, "contradicts its orientation"),
        (change_grid, "no multiple of its grid"),
    ],
)
def test_a_mosaic_that_cannot_be_unpacked_exactly_says_why(tmp_path: Path, edit, problem: str) -> None:
    ds = mosaic_image(head_phantom(11, 32, 32), StudyFacts())
    edit(ds)
    image = read_headers([write(ds, tmp_path / "mosaic.dcm")]).images[0]
    assert problem in image.problem
    assert image.frames == ()
