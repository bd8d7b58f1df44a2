"""What a compressed frame says of itself, read strictly before a decoder allocates memory for it.

A decoder and a check that read different parts of a frame can be played off against each other. So nothing is searched
for: the frame starts with its codestream, as PS3.5 section A.4 demands, and its segments are walked one by one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

_SOI, _SOS = 0xD8, 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn without DHT, JPG, DAC
_JPEG_LS_FRAMES = frozenset({0xF7})  # SOF55
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})  # TEM, RSTn, SOI, EOI: none may stand before SOS
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # SOC followed by SIZ


@dataclass(frozen=True)
class CodedImage:
    """Size, samples a pixel and bits a sample that a codestream declares."""

    rows: int
    columns: int
    components: int
    precision: int


def coded_image(frame: bytes, transfer_syntax: str) -> CodedImage:
    """The image that a JPEG, JPEG-LS, JPEG 2000 or HTJ2K frame declares. Raises ValueError when it is malformed."""
    try:
        if transfer_syntax in JPEG2000TransferSyntaxes:
            return _jpeg_2000(frame)
        if transfer_syntax in JPEGLSTransferSyntaxes:
            return _jpeg(frame, _JPEG_LS_FRAMES)
        if transfer_syntax in JPEGTransferSyntaxes:
            return _jpeg(frame, _JPEG_FRAMES)
    except (struct.error, IndexError) as error:
        raise ValueError("the codestream is cut") from error
    raise ValueError("a transfer syntax whose codestreams are not known")


def _jpeg(frame: bytes, frame_markers: frozenset[int]) -> CodedImage:
    """Marker segments up to the first scan, of which exactly one is a frame header (ISO/IEC 10918-1 annex B)."""
    if frame[:2] != bytes((0xFF, _SOI)):
        raise ValueError("the codestream does not start with SOI")
    found: CodedImage | None = None
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _SOS:
            break
        (length,) = struct.unpack_from(">H", frame, at + 2)
        if marker in _WITHOUT_LENGTH or length < 2:
            raise ValueError("the codestream holds a marker out of place")
        if marker in _JPEG_FRAMES | _JPEG_LS_FRAMES:
            if found or marker not in frame_markers:
                raise ValueError("the codestream holds a second frame header or one of another coding")
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            found = CodedImage(rows, columns, components, precision)
        at += 2 + length
    if found is None or frame[at] != 0xFF:
        raise ValueError("the codestream has no frame header in front of its first scan")
    return found


def _jpeg_2000(frame: bytes) -> CodedImage:
    """The SIZ segment that follows SOC (ISO/IEC 15444-1 A.5.1). JP2 boxes are refused (PS3.5 section A.4.4)."""
    if frame[:4] != _JPEG_2000_START:
        raise ValueError("the frame is no raw JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    components, depth, across, down = struct.unpack_from(">H3B", frame, 40)
    if (across, down) != (1, 1):
        raise ValueError("the coded component is subsampled")
    return CodedImage(bottom - top, right - left, components, (depth & 0x7F) + 1)
