"""DICOM files on disk: the header once, the pixels frame by frame when they are wanted.

The header pass remembers where the pixel data starts, so that decoding needs no second parse and never holds more than
one frame (PS3.5 section 8 and annex A). All transfer syntaxes for which a pydicom plugin is installed can be decoded.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless

from prima_core.base.bounded import ELEMENT_COSTS, ITEM_COSTS, Allowance, bounded
from prima_core.base.errors import UnusableSeries
from prima_core.volume.attributes import Attributes
from prima_core.volume.codestream import CodedImage, coded_image
from prima_core.volume.faults import MALFORMED, raise_trouble

LARGEST_SIDE = 8192
MOST_FRAMES = 20_000
# Ten functional groups a frame, each one item in a sequence with two ends, and three elements whose values, if they are
# of eight bytes, cannot be told from elements: 850 MB, or 650,000 empty items.
LARGEST_PARSED = MOST_FRAMES * 10 * (ITEM_COSTS + 9 * ELEMENT_COSTS)
_LARGEST_INFLATED = 1 << 30
_PIXEL_DATA = 0x7FE00010
_ANY_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, _PIXEL_DATA})  # Float and Double Float Pixel Data beside it
_META_PREFIX = 144  # preamble 128, "DICM" 4, File Meta Information Group Length element 12
_EXPLICIT_VRS = (b"OB\0\0", b"OW\0\0")  # with the reserved bytes; as an implicit length no even number
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelValue:
    """Offset of the Pixel Data value, in a deflated file after inflation, and its length as the element declares it."""

    offset: int
    length: int


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data of a file lies and how it is coded (Image Pixel module, PS3.3 C.7.6.3)."""

    path: Path
    transfer_syntax: str
    offset: int  # of the value; in a deflated file, after inflation
    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def stored_range(self) -> tuple[int, int]:
        """Least and greatest stored value that the header allows."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


def read_header(path: Path, tags: Sequence[int], allowance: Allowance) -> tuple[Dataset, str, PixelValue | str]:
    """Parse the wanted tags in front of the pixel data: dataset, transfer syntax, pixel value or why it has none.

    Raises one of `faults.MALFORMED` when the file is not DICOM or is damaged, TooMuchToParse among them, and an OSError
    with an errno when it cannot be read.
    """
    with path.open("rb") as file:
        stream = bounded(file, allowance)
        syntax = _transfer_syntax(stream, allowance)
        if syntax == DeflatedExplicitVRLittleEndian:
            stream = bounded(_inflated(file), allowance)
        dataset = read_dataset(
            stream, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=_at_pixels, specific_tags=list(tags)
        )
        return dataset, syntax, _find_value(stream, syntax)


def _transfer_syntax(stream: BinaryIO, allowance: Allowance) -> UID:
    """From the File Meta Information (PS3.10 section 7.1), behind which the stream then stands."""
    read_preamble(stream, force=False)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    return UID(Attributes(meta, allowance).text("TransferSyntaxUID"))


def decode_frames(pixels: PixelElement, indices: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
    """Stored values of the frames `indices` (ascending), each (rows, columns), before rescale.

    Raises UnusableSeries when a frame is missing, damaged, of another size or holds other values than the header says,
    MemoryError or an OSError with an errno when the machine is at fault.
    """
    try:
        with pixels.path.open("rb") as file:
            stream: BinaryIO = file
            if pixels.transfer_syntax == DeflatedExplicitVRLittleEndian:
                stream = _inflated(file)
            stream = bounded(stream, Allowance(sys.maxsize))  # a fragment may claim 4 GiB that are not there
            stream.seek(pixels.offset)
            decode = _decode_encapsulated if UID(pixels.transfer_syntax).is_encapsulated else _decode_native
            for frame in decode(stream, pixels, indices):
                _check_values(frame, pixels)
                yield frame
    except MALFORMED as error:
        raise_trouble(error)
        raise UnusableSeries(f"an image's pixel data cannot be decoded ({type(error).__name__})") from error


def _check_values(frame: npt.NDArray[Any], pixels: PixelElement) -> None:
    """Bits above Bits Stored are another thing than the image (an overlay, padding) or the header is wrong."""
    low, high = pixels.stored_range
    if frame.min() < low or frame.max() > high:
        raise UnusableSeries("an image holds values beyond its Bits Stored")


def _decode_native(stream: BinaryIO, pixels: PixelElement, indices: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
    decoder = get_decoder(pixels.transfer_syntax)
    for frame, _ in decoder.iter_array(stream, indices=indices, raw=True, **_options(pixels, pixels.frames)):
        yield frame


def _decode_encapsulated(stream: BinaryIO, pixels: PixelElement, indices: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
    syntax = pixels.transfer_syntax
    decoder = get_decoder(syntax)
    # pylibjpeg-rle panics on damaged streams, which no `except Exception` catches; pydicom's own decoder does not.
    plugin = "pydicom" if syntax == RLELossless else ""
    wanted, found = set(indices), 0
    for index, frame in enumerate(generate_frames(stream, number_of_frames=pixels.frames)):
        if index in wanted:
            if syntax != RLELossless:  # whose segments have no size of their own
                _check_coded(coded_image(frame, syntax), pixels)
            options = _options(pixels, 1)
            yield decoder.as_array(encapsulate([frame]), index=0, raw=True, decoding_plugin=plugin, **options)[0]
            found += 1
    if found < len(wanted):
        raise ValueError("fewer frames than Number of Frames")


def _check_coded(coded: CodedImage, pixels: PixelElement) -> None:
    if (coded.rows, coded.columns, coded.components) != (pixels.rows, pixels.columns, 1):
        raise ValueError("the coded image has another size than Rows and Columns")
    if coded.precision > pixels.bits_allocated:
        raise ValueError("the coded image has more bits than Bits Allocated")


def _options(pixels: PixelElement, frames: int) -> dict[str, Any]:
    syntax = UID(pixels.transfer_syntax)
    whole_words = not syntax.is_encapsulated or syntax == RLELossless
    return {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "number_of_frames": frames,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": pixels.bits_allocated,
        # pydicom would blank the bits above Bits Stored, which `_check_values` wants to see.
        "bits_stored": pixels.bits_allocated if whole_words else pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW",
    }


def _find_value(stream: BinaryIO, syntax: UID) -> PixelValue | str:
    """The Pixel Data value if the stream stands at that element (PS3.5 section 7.1), else why there is none to use.

    pydicom tolerates a file that is coded otherwise than its transfer syntax says. The pixels of such a file would be
    read some bytes off, so it is refused: explicit coding shows a VR, and implicit coding no VR where the length is.
    """
    head = stream.read(12)
    order: Literal["little", "big"] = "little" if syntax.is_little_endian else "big"
    group, element = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)
    if len(head) < 8 or (group << 16 | element) != _PIXEL_DATA:
        return "no pixel data"
    if (head[4:8] in _EXPLICIT_VRS) == syntax.is_implicit_VR:
        return "pixel data that is coded otherwise than the transfer syntax says"
    size = 8 if syntax.is_implicit_VR else 12
    length = int.from_bytes(head[size - 4 : size], order)
    if (length == _UNDEFINED_LENGTH) != syntax.is_encapsulated:
        return "pixel data whose encapsulation contradicts the transfer syntax"
    return PixelValue(stream.tell() - len(head) + size, length)


def _inflated(file: BinaryIO) -> io.BytesIO:
    """The data set of a deflated file, positioned at its start (PS3.5 section A.5). Refuses to inflate without end."""
    file.seek(0)
    prefix = file.read(_META_PREFIX)
    file.seek(_META_PREFIX + int.from_bytes(prefix[-4:], "little"))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(file.read(), _LARGEST_INFLATED)
    if not inflater.eof:
        raise ValueError("deflated data set is cut or too large")
    return io.BytesIO(data)


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _ANY_PIXEL_DATA
