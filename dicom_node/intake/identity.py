"""Who and what an encoded data set is: the few attributes that intake must know, read without trusting the sender.

Only the first bytes are parsed, up to Series Instance UID (0020,000E); the rest of the data set is never decoded here.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.base.errors import NotDicom
from dicom_node.intake.incoming import IN_MEMORY_BYTES, TooLarge
from dicom_node.intake.plain_header import plain_values
from prima_core.base.bounded import Allowance, bounded
from prima_core.base.mr_images import MR_IMAGES
from prima_core.base.patient import (
    PATIENT_BIRTH_DATE,
    PATIENT_ID,
    PATIENT_NAME,
    SPECIFIC_CHARACTER_SET,
    patient_key,
    patient_key_of_encoded,
)

SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
ACCESSION_NUMBER = 0x00080050
ISSUER_OF_PATIENT_ID = 0x00100021
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
#: Tag → VR (PS3.6).
IDENTIFYING = {
    SPECIFIC_CHARACTER_SET: b"CS",
    SOP_CLASS_UID: b"UI",
    SOP_INSTANCE_UID: b"UI",
    ACCESSION_NUMBER: b"SH",
    PATIENT_NAME: b"PN",
    PATIENT_ID: b"LO",
    ISSUER_OF_PATIENT_ID: b"LO",
    PATIENT_BIRTH_DATE: b"DA",
    STUDY_INSTANCE_UID: b"UI",
    SERIES_INSTANCE_UID: b"UI",
}

PLAIN_BYTES = 1 << 14  # within which an ordinary image says who it is
HEADER_BYTES = IN_MEMORY_BYTES  # what a parser may be fed
# What it may make of them. Only references to source images are many in front of the UIDs; each costs up to 6 KB.
PARSED_BYTES = 16 << 20
INFLATE_STEP = 1 << 20
LONGEST_SH = 16
LONGEST_UID = 64
UNCOUNTED = nullcontext()
UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)

#: The encoded value of an attribute, empty for one that is missing.
Values = Callable[[int], bytes]

#: What pydicom raises on hostile bytes (RecursionError, from deep nesting, is a RuntimeError).
PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class InvalidUid(NotDicom):
    """A UID that every instance must have is malformed (PS3.5 9.1)."""


@dataclass(frozen=True)
class Identity:
    """UIDs as checked text without padding, and the patient key of `prima_core.base.patient`.

    accession_number: empty when it is missing or no legal SH (PS3.5 table 6.2-1); it only helps to find the order.
    issuer: see `issuer_digest`.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_key: str
    accession_number: str = ""
    issuer: str = ""

    @property
    def image(self) -> bool:
        """An MR image, which may open a study; everything else only travels along."""
        return self.sop_class_uid in MR_IMAGES


def read_identity(
    stream: BinaryIO,
    transfer_syntax_uid: str,
    max_inflated_bytes: int,
    parsing: AbstractContextManager[object] = UNCOUNTED,
) -> Identity:
    """Read the identity of the data set that starts at the stream's position.

    parsing: entered for whatever takes the general parser, which may cost memory. Raises NotDicom when it cannot be
    parsed, would cost too much to parse or lacks a UID, InvalidUid when a UID is malformed, TooLarge when a deflated
    data set inflates beyond `max_inflated_bytes`.
    """
    found = _plain(stream, transfer_syntax_uid)
    if found is None:
        with parsing:
            found = _parsed(stream, transfer_syntax_uid, max_inflated_bytes)
    return _identity(*found)


def issuer_digest(dataset: Dataset) -> str:
    """A one-way digest of Issuer of Patient ID; empty when there is none. The data set must come from a file."""
    return _issuer_digest(_raw(dataset, ISSUER_OF_PATIENT_ID))


def _issuer_digest(value: bytes) -> str:
    text = " ".join(_text(value).casefold().split())
    return hashlib.sha256(text.encode()).hexdigest()[:32] if text else ""


def checked_uid(text: str, name: str) -> str:
    """The UID without padding. Raises InvalidUid unless it is 1 to 64 digits and dots, no component empty."""
    uid = text.rstrip("\0 ")
    if not is_uid(uid):
        raise InvalidUid(f"{name} is malformed")
    return uid


def is_uid(text: str) -> bool:
    """Whether a text without padding is 1 to 64 digits and dots, no component empty (PS3.5 9.1)."""
    return len(text) <= LONGEST_UID and _matches(text)


# Each image names its class, study and series again, and itself twice.
_matches = lru_cache(maxsize=256)(lambda text: bool(UID.fullmatch(text)))


def _plain(stream: BinaryIO, transfer_syntax_uid: str) -> tuple[Values, str] | None:
    """The values of an ordinary data set and its patient key, or None; then the stream stands where it stood."""
    if transfer_syntax_uid in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        return None
    begin = stream.tell()
    header = stream.read(PLAIN_BYTES)
    values = plain_values(header, transfer_syntax_uid == ImplicitVRLittleEndian, IDENTIFYING, SERIES_INSTANCE_UID)
    if values is not None:
        value = partial(_value, values)
        try:
            return value, patient_key_of_encoded(value)
        except PARSE_ERRORS:  # to be said in the parser's words
            pass
    stream.seek(begin)
    return None


def _identity(value: Values, key: str) -> Identity:
    return Identity(
        sop_class_uid=_uid(value(SOP_CLASS_UID), "SOP Class UID"),
        sop_instance_uid=_uid(value(SOP_INSTANCE_UID), "SOP Instance UID"),
        study_instance_uid=_uid(value(STUDY_INSTANCE_UID), "Study Instance UID"),
        series_instance_uid=_uid(value(SERIES_INSTANCE_UID), "Series Instance UID"),
        patient_key=key,
        accession_number=_accession_number(value(ACCESSION_NUMBER)),
        issuer=_issuer_digest(value(ISSUER_OF_PATIENT_ID)),
    )


def _value(values: dict[int, bytes], tag: int) -> bytes:
    return values.get(tag, b"")


def _parsed(stream: BinaryIO, transfer_syntax_uid: str, max_inflated_bytes: int) -> tuple[Values, str]:
    """The same of any data set. Raises NotDicom, TooLarge."""
    header = _header(stream, transfer_syntax_uid, max_inflated_bytes)
    allowance = Allowance(PARSED_BYTES)
    try:
        found = read_dataset(
            bounded(BytesIO(header), allowance),
            is_implicit_VR=transfer_syntax_uid == ImplicitVRLittleEndian,
            is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
            stop_when=lambda tag, _vr, _length: int(tag) > SERIES_INSTANCE_UID,
            specific_tags=list(IDENTIFYING),
        )
        return partial(_raw, found), patient_key(found)
    except PARSE_ERRORS as error:
        if allowance.exhausted:
            raise NotDicom("data set holds more elements and sequence items than that of any image") from None
        # Parser messages may quote values; the type is all that may be said.
        raise NotDicom(f"data set cannot be read as DICOM ({type(error).__name__})") from None


def _header(stream: BinaryIO, transfer_syntax_uid: str, max_inflated_bytes: int) -> bytes:
    if transfer_syntax_uid != DeflatedExplicitVRLittleEndian:
        return stream.read(HEADER_BYTES)
    try:
        return _inflated_header(stream, max_inflated_bytes)
    except zlib.error:
        raise NotDicom("data set is not deflated although its transfer syntax says so") from None


def _inflated_header(stream: BinaryIO, max_inflated_bytes: int) -> bytes:
    """The first bytes of a deflated data set, after the whole of it proved to be sound and within the bound."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    kept = bytearray()
    total = 0
    chunk = stream.read(INFLATE_STEP)
    while chunk and not inflater.eof:
        plain = inflater.decompress(chunk, INFLATE_STEP)
        total += len(plain)
        if total > max_inflated_bytes:
            raise TooLarge("deflated data set inflates beyond intake.max_object_bytes")
        kept += plain[: HEADER_BYTES - len(kept)]
        chunk = inflater.unconsumed_tail or stream.read(INFLATE_STEP)
    if not inflater.eof:
        kept += inflater.flush()[: HEADER_BYTES - len(kept)]
    if not inflater.eof:
        raise NotDicom("deflated data set ends early")
    return bytes(kept)


def _raw(dataset: Dataset, tag: int) -> bytes:
    # Raw elements only: converting a value makes pydicom warn, and quote it, when it is malformed.
    try:
        element = dataset.get_item(tag)
    except PARSE_ERRORS:  # pydicom converts one without a value after all, and knows no such VR
        return b""
    value = element.value if element is not None else None
    return value if isinstance(value, bytes) else b""


def _text(value: bytes) -> str:
    return value.decode("latin-1").rstrip("\0 ")


def _accession_number(value: bytes) -> str:
    text = _text(value).strip()
    return text if len(text) <= LONGEST_SH and text.isascii() and text.isprintable() and "\\" not in text else ""


def _uid(value: bytes, name: str) -> str:
    text = _text(value)
    if not text:
        raise NotDicom(f"data set has no {name}")
    return checked_uid(text, name)
