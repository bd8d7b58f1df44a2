"""Text to segments and back, through the hl7 library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.worklist.hl7 import segments
from dicom_node.worklist.hl7.encoding import STANDARD, escape
from dicom_node.worklist.hl7.refusal import Refused
from dicom_node.worklist.hl7.segments import MAX_DELIMITERS, Segment, join, parse

MSH = Segment("MSH", ("|", "^~\\&", "APP"))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6))
def test_no_text_adds_or_moves_a_segment_or_field(texts: list[str]) -> None:
    fields = (*(escape(text) for text in texts), "end")
    assert parse(join((MSH, Segment("PID", fields), Segment("ZZZ", ("x",)))), STANDARD) == (
        MSH,
        Segment("PID", fields),
        Segment("ZZZ", ("x",)),
    )


def test_trailing_blank_fields_are_left_out() -> None:
    assert join((MSH, Segment("PID", ("1", "", "", "")))) == "MSH|^~\\&|APP\rPID|1\r"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r"])
def test_segment_ends_of_any_kind_are_read(end: str) -> None:
    assert parse(end.join(("MSH|^~\\&|APP", "PID|1")) + end, STANDARD) == (MSH, Segment("PID", ("1",)))


@pytest.mark.parametrize(
    "text", ["", "\r", "PID|1", "MSH|^~\\&|\rMSH", "MSH|^~\\&|\rPID|1\rMSH|^~\\&|", "MSH|^~\\&|\rBHS"]
)
def test_what_is_not_one_message_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        parse(text, STANDARD)


@pytest.mark.parametrize("mark", ["|", "^", "~", "&", "\\", "\rA"])
def test_a_message_of_delimiters_is_refused_before_it_eats_the_memory(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments.hl7, "parse", lambda _: pytest.fail("the library was given the message"))
    with pytest.raises(Refused, match="fields and components"):
        parse("MSH|^~\\&|\rPID" + mark * MAX_DELIMITERS, STANDARD)
