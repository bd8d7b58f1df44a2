"""Codestreams that declare one size where a search finds it and another where a decoder reads it are refused."""

from __future__ import annotations

import struct

import pytest
from pydicom.encaps import generate_frames
from pydicom.uid import HTJ2K, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from prima_core.volume.codestream import CodedImage, coded_image
from support.dicom_factory import StudyFacts, head_phantom, mr_slices


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame_header(rows: int, columns: int, marker: int = 0xC0, components: int = 1) -> bytes:
    return segment(marker, struct.pack(">BHHB", 8, rows, columns, components) + b"\1\x11\0" * components)


def siz(rows: int, columns: int, components: int = 1, step: int = 1) -> bytes:
    sizes = struct.pack(">H8IH", 0, columns + 3, rows + 2, 3, 2, columns, rows, 0, 0, components)
    return b"\xff\x4f" + segment(0x51, sizes + bytes((11, step, step)) * components)


SOI, SCAN = b"\xff\xd8", segment(0xDA, b"\1\1\0\0\x3f\0")
TABLE = segment(0xDB, bytes(65))


@pytest.mark.parametrize(
    ("frame", "syntax", "bits"),
    [
        (SOI + TABLE + b"\xff" + frame_header(20, 30) + SCAN, JPEGBaseline8Bit, 8),
        (SOI + segment(0xFE, siz(9, 9)) + frame_header(20, 30) + SCAN, JPEGBaseline8Bit, 8),
        (SOI + segment(0xFE, frame_header(9, 9)) + frame_header(20, 30) + SCAN, JPEGBaseline8Bit, 8),
        (SOI + frame_header(20, 30, 0xF7) + SCAN, JPEGLSLossless, 8),
        (siz(20, 30), JPEG2000Lossless, 12),
        (siz(20, 30), HTJ2K, 12),
    ],
)
def test_the_size_is_read_where_the_decoder_reads_it(frame: bytes, syntax: str, bits: int) -> None:
    assert coded_image(frame, syntax) == CodedImage(20, 30, 1, bits)


@pytest.mark.parametrize(
    ("frame", "syntax"),
    [
        (SOI + frame_header(20, 30) + frame_header(2000, 3000) + SCAN, JPEGBaseline8Bit),
        (SOI + frame_header(20, 30, 0xF7) + SCAN, JPEGBaseline8Bit),
        (SOI + frame_header(20, 30) + SCAN, JPEGLSLossless),
        (SOI + TABLE + SCAN, JPEGBaseline8Bit),
        (SOI + SOI + frame_header(20, 30) + SCAN, JPEGBaseline8Bit),
        (SOI + b"\xff\xc0\0\0" + frame_header(20, 30) + SCAN, JPEGBaseline8Bit),
        (SOI + b"junk" + frame_header(20, 30) + SCAN, JPEGBaseline8Bit),
        (SOI + frame_header(20, 30) + b"junk", JPEGBaseline8Bit),
        (SOI + frame_header(20, 30)[:7], JPEGBaseline8Bit),
        (siz(20, 30), JPEGBaseline8Bit),
        (b"\0" * 8 + siz(20, 30), JPEG2000Lossless),
        (siz(20, 30)[:30], JPEG2000Lossless),
        (siz(20, 30, step=2), JPEG2000Lossless),
        (siz(20, 30), RLELossless),
        (b"", JPEGBaseline8Bit),
    ],
)
def test_what_is_not_one_plain_codestream_is_refused(frame: bytes, syntax: str) -> None:
    with pytest.raises(ValueError, match=r"codestream|component"):
        coded_image(frame, syntax)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_the_codestreams_of_real_encoders_are_read(syntax: str) -> None:
    ds = mr_slices(head_phantom(1, 40, 50), StudyFacts())[0]
    ds.compress(syntax)
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    assert coded_image(frame, syntax) == CodedImage(40, 50, 1, 12)
