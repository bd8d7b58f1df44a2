"""The header, read from bytes that nothing else is known of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.worklist.hl7.encoding import Delimiters
from dicom_node.worklist.hl7.header import check_control_id, read_header
from dicom_node.worklist.hl7.refusal import Refused


def test_fields_are_numbered_as_in_the_standard() -> None:
    header = read_header(b"MSH|^~\\&|A^1.2^ISO|F|R|G|20260101||ORM^O01|M1|P|2.3.1|||AL|NE||8859/1~ISO IR87\rPID|")
    assert (header.control_id, header.message_type, header.component(12)) == ("M1", "ORM^O01", "2.3.1")
    assert (header.component(3, 2), header.component(15), header.component(16)) == ("1.2", "AL", "NE")
    assert header.character_sets == "8859/1~ISO IR87"
    assert header.field(99) == header.component(3, 9) == ""


def test_a_senders_own_delimiters_are_taken() -> None:
    assert read_header(b"MSH!@#$%!A@B").delimiters == Delimiters("!", "@", "#", "$", "%")


def test_a_cut_off_message_still_has_a_header() -> None:
    assert read_header(b"MSH|^~\\&|||||||ORM^O01|M1|P").control_id == "M1"


@pytest.mark.parametrize(
    "raw", [b"", b"MSH", b"MSH|", b"PID|^~\\&|", b"MSH|||||", b"MSH|^~\\|A", b"MSHA^~\\&A", b"MSH|^^\\&|A"]
)
def test_what_is_no_header_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused):
        read_header(raw)


@pytest.mark.parametrize("control_id", [b"", b"  ", b"x" * 200])
def test_a_message_needs_a_usable_control_id(control_id: bytes) -> None:
    with pytest.raises(Refused, match="MSH-10"):
        check_control_id(read_header(b"MSH|^~\\&|||||||ORM^O01|" + control_id + b"|P"))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_header_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(read_header(raw).control_id, str)
    except Refused:
        return
