"""Identity of an encoded data set: every syntax, hostile UIDs and bytes, and which patients count as one."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)

from dicom_node.base.errors import NodeError, NotDicom
from dicom_node.intake.identity import (
    HEADER_BYTES,
    Identity,
    InvalidUid,
    TooLarge,
    checked_uid,
    read_identity,
)
from prima_core.base.patient import same_patient
from support.dicom_factory import StudyFacts, head_phantom, mr_slices

BOUND = 1 << 26
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def image() -> Dataset:
    return mr_slices(head_phantom(1, 16, 16), StudyFacts())[0]


def encoded(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == DeflatedExplicitVRLittleEndian:
        return deflated(encoded(dataset, ExplicitVRLittleEndian))
    if syntax == ExplicitVRBigEndian and "PixelData" in dataset:
        del dataset.PixelData
    buffer = BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    data = buffer.getvalue()
    # After the preamble comes the group length of the File Meta Information, which is no part of the data set.
    start = 132 + 12 + struct.unpack_from("<L", data, 140)[0] if data[128:132] == b"DICM" else meta_length(data)
    return data[start:]


def meta_length(data: bytes) -> int:
    assert data[:4] == b"\2\0\x10\0"  # only the transfer syntax was given
    return 8 + int(struct.unpack_from("<H", data, 6)[0])


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = deflater.compress(data) + deflater.flush()
    return stream + b"\0" * (len(stream) % 2)


def identity(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Identity:
    return read_identity(BytesIO(encoded(dataset, syntax)), syntax, BOUND)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_every_uncompressed_syntax_gives_the_same_identity(syntax: str) -> None:
    dataset = image()
    expected = identity(dataset)
    assert expected.sop_instance_uid == dataset.SOPInstanceUID
    assert expected.study_instance_uid == dataset.StudyInstanceUID
    assert expected.series_instance_uid == dataset.SeriesInstanceUID
    assert expected.sop_class_uid == MRImageStorage
    assert expected.image
    assert identity(dataset, syntax) == expected


def test_only_mr_images_count_as_images() -> None:
    dataset = image()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
    assert not identity(dataset).image


@pytest.mark.parametrize(
    "uid",
    [
        "",
        "../../etc/passwd",
        "1.2/3",
        "1..2",
        ".1.2",
        "1.2.",
        "1.2.a",
        "1." + "2" * 63,
        "1.2\n",
        "１.2",
        "1.2\0.3",
        "1 2",
    ],
)
def test_malformed_uids_are_refused(uid: str) -> None:
    with pytest.raises(InvalidUid):
        checked_uid(uid, "UID")


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.3\0", "1.2.3 ", "1", "1." + "2" * 62])
def test_padding_is_no_part_of_a_uid(uid: str) -> None:
    assert checked_uid(uid, "UID") == uid.rstrip("\0 ")


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_or_hostile_uid_refuses_the_object(keyword: str) -> None:
    dataset = image()
    delattr(dataset, keyword)
    with pytest.raises(NotDicom, match="has no"):
        identity(dataset)
    setattr(dataset, keyword, "../../etc/passwd")
    with pytest.raises(InvalidUid) as refusal:
        identity(dataset)
    assert "passwd" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"", b"\0", b"GARBAGE" * 100, b"\xff" * 4096], ids=["empty", "one", "text", "ff"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_bytes_that_are_not_dicom_are_refused(data: bytes, syntax: str) -> None:
    with pytest.raises(NotDicom):
        read_identity(BytesIO(data), syntax, BOUND)


def test_sequences_nested_ten_thousand_deep_are_refused() -> None:
    begin = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(NotDicom):
        read_identity(BytesIO(begin * 10_000), ExplicitVRLittleEndian, BOUND)


def hostile_header(item: bytes, coding: str = "explicit") -> bytes:
    """4 MiB: a sequence of undefined length full of these items, in front of the identifiers of a good image."""
    begin = {
        "explicit": struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF),
        "implicit": struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF),
    }[coding]
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    good = GOOD[ExplicitVRLittleEndian if coding == "explicit" else ImplicitVRLittleEndian]
    return begin + item * ((HEADER_BYTES - len(begin + end + good)) // len(item)) + end + good


EMPTY_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
OPEN_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
EMPTY_ELEMENTS = b"".join(struct.pack("<HHL", 0x0011 + 2 * (n >> 12), n & 0xFFF, 0) for n in range(500_000))


@pytest.mark.parametrize(
    ("item", "coding"),
    [
        (EMPTY_ITEM, "explicit"),
        (EMPTY_ITEM, "implicit"),
        (bytes(8), "explicit"),  # pydicom takes any tag for that of an item
        (OPEN_ITEM + EMPTY_ELEMENTS, "implicit"),
    ],
)
def test_what_a_header_costs_in_memory_is_bounded(item: bytes, coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.intake.identity.PARSED_BYTES", 4 << 20)
    syntax = ExplicitVRLittleEndian if coding == "explicit" else ImplicitVRLittleEndian
    stream = BytesIO(hostile_header(item, coding))
    tracemalloc.start()
    try:
        with pytest.raises(NotDicom, match="more elements and sequence items"):
            read_identity(stream, syntax, BOUND)
        assert tracemalloc.get_traced_memory()[1] < 4 * (4 << 20) + 2 * HEADER_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("inside", [False, True], ids=["data set", "item"])
def test_a_character_set_of_a_megabyte_is_not_looked_up(inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[object] = []
    monkeypatch.setattr("pydicom.filereader.convert_encodings", searched.append)
    element = struct.pack("<HHL", 0x0008, 0x0005, 1 << 20) + b"aa\\b" * (1 << 18)
    begin = struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) + OPEN_ITEM if inside else b""
    with pytest.raises(NotDicom, match="more elements and sequence items"):
        read_identity(BytesIO(begin + element), ImplicitVRLittleEndian, BOUND)
    assert searched == []


def test_an_image_derived_from_a_thousand_others_is_read() -> None:
    dataset = image()
    dataset.SourceImageSequence = []
    for number in range(1000):
        source, purpose = Dataset(), Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "121322", "DCM", "Source image"
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = MRImageStorage, f"1.2.{number}"
        source.PurposeOfReferenceCodeSequence = [purpose]
        source.is_undefined_length_sequence_item = True
        dataset.SourceImageSequence.append(source)
    dataset["SourceImageSequence"].is_undefined_length = True
    assert identity(dataset).sop_instance_uid == dataset.SOPInstanceUID


def test_a_declared_length_of_four_gigabytes_costs_nothing() -> None:
    element = struct.pack("<HH2sHL", 0x0008, 0x0016, b"UN", 0, 0xFFFFFFFE) + b"1.2.3"
    with pytest.raises(NotDicom):
        read_identity(BytesIO(element), ExplicitVRLittleEndian, BOUND)


def test_a_deflated_data_set_may_not_inflate_beyond_the_bound() -> None:
    bomb = deflated(encoded(image()) + bytes(BOUND))
    assert len(bomb) < BOUND // 100
    with pytest.raises(TooLarge):
        read_identity(BytesIO(bomb), DeflatedExplicitVRLittleEndian, BOUND)


def test_a_deflated_data_set_that_ends_early_is_refused() -> None:
    with pytest.raises(NotDicom):
        read_identity(BytesIO(deflated(encoded(image()))[:-10]), DeflatedExplicitVRLittleEndian, BOUND)


@settings(max_examples=200, deadline=None)
@given(
    position=st.integers(0, 600),
    junk=st.binary(min_size=1, max_size=40),
    cut=st.integers(0, 900),
    syntax=st.sampled_from(SYNTAXES),
)
def test_damaged_data_sets_raise_only_the_nodes_own_errors(position: int, junk: bytes, cut: int, syntax: str) -> None:
    data = bytearray(GOOD[syntax])
    data[position : position + len(junk)] = junk
    try:
        found = read_identity(BytesIO(bytes(data[: len(data) - cut])), syntax, BOUND)
    except NodeError:
        return
    for uid in (found.sop_instance_uid, found.sop_class_uid, found.study_instance_uid, found.series_instance_uid):
        assert checked_uid(uid, "UID") == uid


def key(**attributes: str) -> str:
    dataset = image()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate"):
        setattr(dataset, keyword, attributes.get(keyword, getattr(dataset, keyword)))
    dataset.SpecificCharacterSet = attributes.get("SpecificCharacterSet", "ISO_IR 192")
    return identity(dataset).patient_key


@pytest.mark.parametrize(
    "other",
    [
        {"PatientName": "TEST^PATIENT"},
        {"PatientName": "Test^Patient^^^"},
        {"PatientName": " Test ^ Patient "},
        {"PatientName": "Test^Patient^Middle^Dr"},
        {"PatientName": "Test, Patient"},
        {"PatientName": "Tést^Pàtient"},
        {"PatientName": "Tést^Pàtient", "SpecificCharacterSet": "ISO_IR 100"},
        {"PatientName": ""},
        {"PatientID": " TEST0001 "},
        {"PatientID": "test0001"},
        {"PatientID": ""},
        {"PatientBirthDate": ""},
        {"PatientID": "", "PatientName": "", "PatientBirthDate": ""},
    ],
)
def test_harmless_differences_leave_it_one_patient(other: dict[str, str]) -> None:
    assert same_patient(key(), key(**other))


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "TEST0002"},
        {"PatientName": "Other^Patient"},
        {"PatientName": "Test^Twin"},
        {"PatientBirthDate": "19700102"},
        {"PatientID": "", "PatientName": "Other^Patient"},
    ],
)
def test_another_id_name_or_birth_date_is_another_patient(other: dict[str, str]) -> None:
    assert not same_patient(key(), key(**other))


def test_the_patient_key_does_not_show_the_patient() -> None:
    assert not any(word in key().casefold() for word in ("test", "patient", "1970"))


def test_an_unknown_character_set_is_no_reason_to_refuse() -> None:
    dataset = image()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    data = encoded(dataset).replace(b"ISO_IR 192", b"NO SUCHSET")
    assert read_identity(BytesIO(data), ExplicitVRLittleEndian, BOUND).sop_instance_uid == dataset.SOPInstanceUID


GOOD = {syntax: encoded(image(), syntax) for syntax in SYNTAXES}
