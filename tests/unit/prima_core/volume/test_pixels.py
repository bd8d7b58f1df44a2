"""Files whose pixel data lies or is coded otherwise than they say: no volume is made from bytes that are no image.

What a damaged or cut codestream gives is in `test_geometry.py`, what codestreams may declare in `test_codestream.py`.
"""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from prima_core.volume.headers import read_headers
from prima_core.volume.pixels import decode_frames
from support.dicom_factory import StudyFacts, head_phantom, mr_slices, write

PIXEL_DATA = b"\xe0\x7f\x10\x00"


def problem_of(path: Path) -> str:
    image = read_headers([path]).images[0]
    assert bool(image.pixels) != bool(image.problem)
    return image.problem


def image_of(side: int = 64) -> Dataset:
    return mr_slices(head_phantom(1, side, side), StudyFacts())[0]


def test_noise_behind_a_short_value_is_not_read(tmp_path: Path) -> None:
    ds = image_of()
    ds.PixelData = ds.PixelData[:100]
    ds.add_new(0xFFFCFFFC, "OB", np.random.default_rng(0).bytes(20_000))
    assert "shorter" in problem_of(write(ds, tmp_path / "a.dcm"))


@pytest.mark.filterwarnings("ignore:Expected")  # pydicom's, which goes on with the coding that it finds
@pytest.mark.parametrize("coded", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_file_coded_otherwise_than_its_transfer_syntax_says_is_refused(tmp_path: Path, coded: UID) -> None:
    ds = image_of()
    says = ImplicitVRLittleEndian if coded == ExplicitVRLittleEndian else ExplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.file_meta.TransferSyntaxUID = says
    write_file_meta_info(buffer, ds.file_meta)
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(128) + b"DICM" + buffer.getvalue() + encoded(ds, coded))
    assert "otherwise than the transfer syntax says" in problem_of(path)


def encoded(ds: Dataset, syntax: UID) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = syntax.is_implicit_VR, True
    write_dataset(stream, Dataset({element.tag: element for element in ds}))
    return stream.getvalue()


def test_pixel_data_of_another_representation_than_bytes_or_words_is_refused(tmp_path: Path) -> None:
    path = write(image_of(), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(PIXEL_DATA + b"OW", PIXEL_DATA + b"UN"))
    assert "otherwise than" in problem_of(path)


def test_a_fragment_that_claims_four_gigabytes_costs_nothing(tmp_path: Path) -> None:
    path = write(image_of(), tmp_path / "a.dcm", JPEG2000Lossless)
    data = path.read_bytes()
    fragment = data.index(b"\xff\x4f\xff\x51") - 4  # the length in front of SOC
    path.write_bytes(data[:fragment] + b"\xfe\xff\xff\xff" + data[fragment + 4 :])
    pixels = read_headers([path]).images[0].pixels
    assert pixels is not None
    tracemalloc.start()
    try:
        (frame,) = decode_frames(pixels, [0])
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(frame, head_phantom(1, 64, 64)[0])


def test_pixels_that_cannot_be_read_just_now_are_not_damaged(tmp_path: Path) -> None:
    path = write(image_of(), tmp_path / "a.dcm")
    pixels = read_headers([path]).images[0].pixels
    assert pixels is not None
    path.unlink()
    with pytest.raises(FileNotFoundError):
        list(decode_frames(pixels, [0]))


def test_raw_pixels_in_items_under_a_native_syntax_are_refused(tmp_path: Path) -> None:
    ds = image_of()
    ds.PixelData = encapsulate([ds.PixelData])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.save_as(path := tmp_path / "a.dcm", enforce_file_format=True)
    # Of the same length, so that only this one value of the file changes.
    path.write_bytes(path.read_bytes().replace(JPEG2000Lossless.encode(), b"1.2.840.10008.1.2.1\0\0\0"))
    assert "encapsulation" in problem_of(path)


def test_a_length_under_an_encapsulated_syntax_is_refused(tmp_path: Path) -> None:
    path = write(image_of(), tmp_path / "a.dcm", JPEG2000Lossless)
    path.write_bytes(path.read_bytes().replace(PIXEL_DATA + b"OB\0\0\xff\xff\xff\xff", PIXEL_DATA + b"OB\0\0\0\1\0\0"))
    assert "encapsulation" in problem_of(path)
