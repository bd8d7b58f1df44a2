"""The first 1,024 bytes of every file in the spool: preamble and File Meta Information (PS3.10 7.1).

Always of one length, so that a data set can be written behind them before its digest is known. Encoded here rather than
by pydicom, which takes longer for it than the disk takes for an image.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from pydicom.dataset import FileMetaDataset

from dicom_node.base.errors import NotDicom
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.base.types import Arrival

HEADER_LENGTH = 1024
PREAMBLE = bytes(128) + b"DICM"
GROUP_LENGTH = struct.Struct("<HH2sHL")  # (0002,0000) UL, whose value does not count itself
SHORT = struct.Struct("<HH2sH")  # PS3.5 7.1.2: tag, VR and length of all elements but OB
LONG = struct.Struct("<HH2sxxL")


def encoded_header(arrival: Arrival) -> bytes:
    """The header of an arrival's file, its circumstances as Private Information (0002,0102)."""
    note = {
        "received_at": arrival.received_at,
        "urgent": arrival.urgent,
        "association_id": arrival.association_id,
        "digest": arrival.digest,
    }
    elements = b"".join(
        (
            VERSION,
            _short(0x0002, b"UI", arrival.sop_class_uid, b"\0"),
            _short(0x0003, b"UI", arrival.sop_instance_uid, b"\0"),
            _short(0x0010, b"UI", arrival.transfer_syntax_uid, b"\0"),
            IMPLEMENTATION,
            _short(0x0016, b"AE", arrival.calling_ae, b" "),
            CREATOR,
        )
    )
    before = len(PREAMBLE) + GROUP_LENGTH.size + len(elements) + LONG.size
    text = json.dumps(note).encode().ljust(HEADER_LENGTH - before)
    elements += LONG.pack(2, 0x0102, b"OB", len(text)) + text
    header = PREAMBLE + GROUP_LENGTH.pack(2, 0, b"UL", 4, len(elements)) + elements
    if len(header) != HEADER_LENGTH:
        raise NotDicom("object's UIDs and titles are longer than DICOM allows")
    return header


def noted(meta: FileMetaDataset) -> dict[str, Any]:
    """The circumstances in a file's header. Raises what pydicom and json raise on a damaged one."""
    note: dict[str, Any] = json.loads(bytes(meta.PrivateInformation).rstrip(b"\0 "))
    return note


def offset(meta: FileMetaDataset) -> int:
    """Where the data set begins in the file."""
    return len(PREAMBLE) + GROUP_LENGTH.size + int(meta.FileMetaInformationGroupLength)


def _short(element: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    value += padding * (len(value) % 2)
    return SHORT.pack(2, element, vr, len(value)) + value


# What is the same in every header.
VERSION = LONG.pack(2, 0x0001, b"OB", 2) + b"\0\1"
IMPLEMENTATION = _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0") + _short(
    0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "
)
CREATOR = _short(0x0100, b"UI", IMPLEMENTATION_CLASS_UID, b"\0")
