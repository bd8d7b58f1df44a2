"""Log lines: numbered, structured, and closed to anything that may hold patient data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import dicom_node
from dicom_node.base.events import Event, configure_logging, log
from support.logs import default_logging_afterwards


@pytest.fixture(autouse=True)
def logging_afterwards() -> Iterator[None]:
    with default_logging_afterwards():
        yield


def test_a_line_is_one_json_object_with_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    log(Event.STUDY_COMPLETE, study="abc", count=3)
    line = json.loads(capsys.readouterr().err)
    assert (line["number"], line["event"], line["study"], line["count"]) == (3001, "study complete", "abc", 3)
    assert line["level"] == "info"


@pytest.mark.parametrize("field", ["patient_name", "study_uid", "accession", "message"])
def test_an_unknown_field_is_an_error_in_the_program(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        log(Event.STUDY_COMPLETE, **{field: "DOE^JOHN"})


def test_uids_appear_at_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    log(Event.OBJECT_STORED, "debug", sop_uid="1.2.3")
    assert capsys.readouterr().err == ""
    configure_logging("debug")
    log(Event.OBJECT_STORED, "debug", sop_uid="1.2.3")
    assert "1.2.3" in capsys.readouterr().err


def test_every_event_has_a_number_of_its_own() -> None:
    assert len({event.number for event in Event}) == len(Event)


def test_every_event_is_logged_somewhere() -> None:
    package = Path(dicom_node.__file__).parent
    source = "".join(path.read_text() for path in package.rglob("*.py") if path.name != "events.py")
    assert [event.name for event in Event if f"Event.{event.name}" not in source] == []
