"""What hostile bytes become: a plain data set or an error that names an attribute and no value."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.intake.limits import OversizedDataSet
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom.dataset import InvalidAttribute, UnreadableDataSet


def element(group: int, number: int, vr: str, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian."""
    if vr in ("SQ", "UN", "OB", "UT"):
        return struct.pack("<HH2sHL", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def nested(depth: int) -> bytes:
    """(0040,0100) within itself, this deep, with undefined lengths."""
    begin = struct.pack("<HH2sHL", 0x0040, 0x0100, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return begin * depth + end * depth


def test_text_is_decoded_by_its_character_set() -> None:
    encoded = element(8, 5, "CS", b"ISO_IR 100") + element(0x10, 0x10, "PN", "Müller".encode("latin-1"))
    assert str(data_sets.read(encoded).PatientName) == "Müller"
    written = data_sets.write(data_sets.read(encoded))
    assert "Müller".encode() in written
    assert str(data_sets.read(written).PatientName) == "Müller"


def test_code_extensions_are_decoded() -> None:
    original = Dataset()
    original.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    original.PatientName = "Yamada^Tarou=山田^太郎"
    encoded = BytesIO()
    original.save_as(encoded, implicit_vr=False, little_endian=True)
    assert str(data_sets.read(encoded.getvalue()).PatientName) == "Yamada^Tarou=山田^太郎"


def test_both_syntaxes_are_read() -> None:
    original = Dataset()
    original.PatientID = "1"
    for syntax, implicit in ((ExplicitVRLittleEndian, False), (ImplicitVRLittleEndian, True)):
        encoded = BytesIO()
        original.save_as(encoded, implicit_vr=implicit, little_endian=True)
        assert data_sets.read(encoded, syntax).PatientID == "1"


def test_private_and_unknown_attributes_and_group_lengths_are_left_out() -> None:
    encoded = (
        element(8, 0, "UL", struct.pack("<L", 4))
        + element(9, 0x10, "LO", b"ME")
        + element(9, 0x1001, "LO", b"x ")
        + element(0x10, 0x20, "LO", b"1 ")
        + element(0x10, 0x7FFE, "LO", b"x ")
    )
    assert [item.keyword for item in data_sets.read(encoded)] == ["PatientID"]


def test_nothing_is_an_empty_data_set() -> None:
    assert not data_sets.read(None)
    assert not data_sets.read(BytesIO())


@pytest.mark.parametrize(
    ("encoded", "keyword"),
    [
        (element(0x10, 0x20, "SQ", b""), "PatientID"),
        (element(0x40, 0x100, "LO", b"text"), "ScheduledProcedureStepSequence"),
        (element(0x10, 0x1030, "DS", b"heavy "), "PatientWeight"),
        (element(0x10, 0x21C0, "US", b"\1\2\3"), "PregnancyStatus"),
    ],
)
def test_a_wrong_vr_or_value_is_named_without_the_value(encoded: bytes, keyword: str) -> None:
    with pytest.raises(InvalidAttribute, match=keyword) as refused:
        data_sets.read(encoded)
    assert "heavy" not in str(refused.value)


@pytest.mark.parametrize("depth", [data_sets.MAX_DEPTH + 1, 5_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(UnreadableDataSet):
        data_sets.read(nested(depth))


def test_the_nesting_of_real_worklists_is_read() -> None:
    assert data_sets.read(nested(6))


def test_a_large_data_set_is_refused_unread() -> None:
    with pytest.raises(UnreadableDataSet, match="too large"):
        data_sets.read(bytes(data_sets.MAX_BYTES + 1))


def test_what_the_receiver_cut_off_is_not_taken_for_an_empty_data_set() -> None:
    cut_off = OversizedDataSet()
    cut_off.write(element(0x10, 0x20, "LO", b"1 "))
    with pytest.raises(UnreadableDataSet, match="too large"):
        data_sets.read(cut_off)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_data_set_or_one_of_two_errors(encoded: bytes) -> None:
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        try:
            readable = data_sets.read(encoded, syntax)
        except (UnreadableDataSet, InvalidAttribute):
            continue
        assert isinstance(readable, Dataset)


@pytest.mark.parametrize(
    ("asked", "name", "expected"),
    [
        (None, "Doe", None),
        ("ISO_IR 100", "Doe", None),
        ("ISO_IR 100", "Müller", "ISO_IR 100"),
        ("ISO_IR 144", "Müller", "ISO_IR 192"),
        ("ISO_IR 144", "Иванов", "ISO_IR 144"),
        ("GB18030", "王", "GB18030"),
        (None, "Müller", "ISO_IR 192"),
        ("nonsense", "Müller", "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], "Yamada=山田", ["", "ISO 2022 IR 87"]),
        (["", "ISO 2022 IR 87"], "Müller", "ISO_IR 192"),
    ],
)
def test_an_answer_is_in_the_asked_character_set_if_that_can_hold_it(
    asked: object, name: str, expected: object
) -> None:
    dataset = Dataset()
    dataset.PatientName = name
    answer = data_sets.for_answer(data_sets.plain(dataset), asked)
    assert answer.get("SpecificCharacterSet") == expected
    encoded = BytesIO()
    answer.save_as(encoded, implicit_vr=False, little_endian=True)
    assert str(data_sets.read(encoded).PatientName) == name


def test_text_deep_in_a_sequence_decides_as_well() -> None:
    item, dataset = Dataset(), Dataset()
    item.CodeMeaning = "Schädel"
    dataset.RequestedProcedureCodeSequence = [item]
    assert data_sets.for_answer(dataset).SpecificCharacterSet == "ISO_IR 192"
