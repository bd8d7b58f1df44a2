"""Person names between DICOM and HL7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.worklist.hl7 import person
from dicom_node.worklist.hl7.encoding import STANDARD, codec
from dicom_node.worklist.hl7.header import Header
from dicom_node.worklist.hl7.message import Message
from dicom_node.worklist.hl7.segments import Segment

part = st.text(st.characters(exclude_characters="^=\\", exclude_categories=["Cc", "Cs", "Z"]), max_size=12)


def read(field: str, first: int = 1) -> str:
    message = Message(Header(STANDARD, ()), (), codec("UNICODE UTF-8"))
    return person.to_dicom(message.repetitions(Segment("PID", (field,)), 1), first)


def test_prefix_and_suffix_change_places() -> None:
    assert person.from_dicom("Muster^Anna^Maria^Dr.^jun.") == "Muster^Anna^Maria^jun.^Dr."
    assert read("Muster^Anna^Maria^jun.^Dr.") == "Muster^Anna^Maria^Dr.^jun."


def test_an_identifier_may_come_before_the_name() -> None:
    assert read("77^House^Gregory^^^Dr.", first=2) == "House^Gregory^^Dr."


def test_ideographic_and_phonetic_forms_are_groups() -> None:
    dicom = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert person.from_dicom(dicom) == "Yamada^Tarou^^^^^^A~山田^太郎^^^^^^I~やまだ^たろう^^^^^^P"
    assert read(person.from_dicom(dicom)) == dicom


@pytest.mark.parametrize("field", ["a\\S\\b^c", "a=b^c", "a\\X0A\\b^c"])
def test_what_dicom_would_take_for_a_delimiter_becomes_a_space(field: str) -> None:
    assert read(field) == "a b^c"


@given(st.lists(part, min_size=1, max_size=5))
def test_any_dicom_name_survives(parts: list[str]) -> None:
    name = "^".join(parts).rstrip("^")
    assert read(person.from_dicom(name)) == name
