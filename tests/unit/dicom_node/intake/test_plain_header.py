"""The walk over an ordinary data set: it says what the parser says, or nothing."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from dicom_node.base.errors import NodeError
from dicom_node.intake import identity
from dicom_node.intake.identity import Identity, read_identity
from support.dicom_factory import StudyFacts, head_phantom, mr_slices

BOUND = 1 << 26
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]


def image(**attributes: object) -> Dataset:
    dataset = mr_slices(head_phantom(1, 16, 16), StudyFacts())[0]
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == ImplicitVRLittleEndian
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def walked(data: bytes, syntax: str) -> Identity | None:
    """What the walk alone makes of it."""
    values = identity._plain(BytesIO(data), syntax)
    return identity._identity(*values) if values is not None else None


def parsed(data: bytes, syntax: str) -> Identity:
    """What the parser alone makes of it."""
    return identity._identity(*identity._parsed(BytesIO(data), syntax, BOUND))


ORDINARY = {
    "an image": image(),
    "names in UTF-8": image(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Änne=山田^太郎"),
    "names in Latin-1": image(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Änne"),
    "an issuer and an accession number": image(IssuerOfPatientID="HOSPITAL B", AccessionNumber="A 17 "),
    "nobody's": image(PatientName="", PatientID="", PatientBirthDate="", AccessionNumber=""),
    "private elements": image(),
}
ORDINARY["private elements"].add_new(0x00090010, "LO", "SOMEBODY")
ORDINARY["private elements"].add_new(0x00091001, "UN", bytes(7000))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("kind", ORDINARY)
def test_the_walk_says_what_the_parser_says(kind: str, syntax: str) -> None:
    data = encoded(ORDINARY[kind], syntax)
    assert walked(data, syntax) == parsed(data, syntax) == read_identity(BytesIO(data), syntax, BOUND)


def test_a_compressed_image_is_ordinary() -> None:
    assert walked(encoded(image(), ExplicitVRLittleEndian), JPEG2000Lossless) is not None


def of_undefined_length() -> bytes:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    dataset = image(ReferencedImageSequence=Sequence([item]))
    dataset["ReferencedImageSequence"].is_undefined_length = True
    return encoded(dataset, ExplicitVRLittleEndian)


WHOLE = encoded(image(), ExplicitVRLittleEndian)
OUT_OF_THE_ORDINARY = {
    "a sequence of undefined length": of_undefined_length(),
    "tags that do not ascend": WHOLE.replace(b"\x08\0\x18\0", b"\x08\0\x10\0"),
    "no VR": WHOLE.replace(b"\x10\0\x10\0PN", b"\x10\0\x10\0??"),
    "a character set of another VR": encoded(image(SpecificCharacterSet="ISO_IR 100"), ExplicitVRLittleEndian).replace(
        b"\x08\0\x05\0CS", b"\x08\0\x05\0US"
    ),
    "an end before the UIDs": WHOLE[:200],
    "a command's element": b"\0\0\0\0UL\4\0\0\0\0\0" + WHOLE,
    "implicit after all": encoded(image(), ImplicitVRLittleEndian),
}


@pytest.mark.parametrize("kind", OUT_OF_THE_ORDINARY)
def test_what_is_out_of_the_ordinary_is_left_to_the_parser(kind: str) -> None:
    stream = BytesIO(OUT_OF_THE_ORDINARY[kind])
    assert identity._plain(stream, ExplicitVRLittleEndian) is None
    assert stream.tell() == 0


def test_explicit_where_implicit_was_said_is_left_to_the_parser() -> None:
    assert walked(WHOLE, ImplicitVRLittleEndian) is None


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of damaged values
@settings(max_examples=1000, deadline=None)
@given(st.data(), st.sampled_from(SYNTAXES), st.sampled_from(sorted(ORDINARY)))
def test_of_a_damaged_data_set_the_walk_says_the_same_or_nothing(data: st.DataObject, syntax: str, kind: str) -> None:
    damaged = bytearray(encoded(ORDINARY[kind], syntax)[:1500])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[place] = data.draw(st.integers(0, 255))
        else:
            del damaged[place : place + data.draw(st.integers(1, 12))]
    try:
        found = walked(bytes(damaged), syntax)
    except NodeError as error:
        with pytest.raises(type(error)):
            parsed(bytes(damaged), syntax)
        return
    assert found is None or found == parsed(bytes(damaged), syntax)
