"""HL7 time stamps."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.worklist.hl7 import timestamp


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_written_with_the_zone() -> None:
    assert timestamp.write(1_767_225_600) == "20260101010000+0100"


@pytest.mark.parametrize("stamp", ["20260101010000+0100", "20260101000000+0000", "202601010100", "20260101010000.123"])
def test_read_as_the_moment_meant(stamp: str) -> None:
    moment = timestamp.read(stamp)
    assert moment is not None
    assert moment.timestamp() == 1_767_225_600


@pytest.mark.parametrize(
    ("stamp", "dicom"),
    [("20260102093000+0000", "20260102103000"), ("202601020930", "202601020930"), ("20260102", "20260102")],
)
def test_dicom_datetime_is_local_and_as_fine_as_the_stamp(stamp: str, dicom: str) -> None:
    assert timestamp.dicom_datetime(stamp) == dicom


@pytest.mark.parametrize("stamp", ["", "tomorrow", "2026010", "20261301", "00000101", "20260101010000+9999"])
def test_what_is_no_time_stamp_is_nothing(stamp: str) -> None:
    assert timestamp.read(stamp) is None
    assert timestamp.dicom_datetime(stamp) == ""


@given(st.text(st.sampled_from("0123456789+-."), max_size=24))
def test_any_digits_end_calmly(stamp: str) -> None:
    assert isinstance(timestamp.dicom_datetime(stamp), str)
