"""What a peer sends, made harmless: a bounded data set of checked attributes in plain Python text.

Everything behind this module works on data sets that `read` or `plain` made: standard attributes only, each with a VR
that its tag may have, text already decoded. Written bytes are Explicit VR Little Endian in UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from pydicom import config
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, encode_string
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import PersonName

from dicom_node.base.errors import PermanentError

MAX_BYTES = 4 << 20  # a worklist item that names ten thousand images is well below
MAX_DEPTH = 16  # the deepest sequence of the UPS and MWL tables is five items deep
UTF_8 = "ISO_IR 192"
CHARACTER_SET = Tag("SpecificCharacterSet")
TIMEZONE = Tag("TimezoneOffsetFromUTC")
TEXT_VRS = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})


class UnreadableDataSet(PermanentError):
    """The bytes are no data set, or it is larger or deeper than any worklist needs."""


class InvalidAttribute(PermanentError):
    """One attribute has a wrong VR or a value that its VR cannot hold. tag: which; the message names it alone."""

    def __init__(self, tag: BaseTag, reason: str = "is invalid") -> None:
        super().__init__(f"{keyword_for_tag(tag) or tag} {reason}")
        self.tag = tag


def read(encoded: BytesIO | bytes | None, transfer_syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """The data set in these bytes, plain; nothing at all is an empty one.

    Raises UnreadableDataSet or InvalidAttribute.
    """
    content = encoded.getvalue() if isinstance(encoded, BytesIO) else encoded or b""
    # In place of what outgrew its bound the receiver puts another kind of BytesIO, which keeps nothing.
    if len(content) > MAX_BYTES or (isinstance(encoded, BytesIO) and type(encoded) is not BytesIO):
        raise UnreadableDataSet("data set is too large for a worklist")
    syntax = UID(transfer_syntax)
    try:
        raw = read_dataset(BytesIO(content), syntax.is_implicit_VR, syntax.is_little_endian)
    except Exception as error:  # pydicom raises anything at all on hostile bytes
        raise UnreadableDataSet("data set cannot be decoded") from error
    return plain(raw)


def plain(dataset: Dataset, depth: int = 0) -> Dataset:
    """A copy with standard attributes only, as plain text and numbers.

    Private attributes, group lengths and those not in the dictionary are left out. Raises as `read` does.
    """
    if depth > MAX_DEPTH:
        raise UnreadableDataSet("sequences are nested too deeply")
    copy = Dataset()
    for tag in _standard_tags(dataset):
        try:
            copy.add(_plain_element(dataset[tag], depth))
        except (UnreadableDataSet, InvalidAttribute):
            raise
        except RecursionError as error:
            raise UnreadableDataSet("sequences are nested too deeply") from error
        except Exception as error:  # values are converted only now, and pydicom raises anything
            raise InvalidAttribute(tag, "cannot be decoded") from error
    return copy


def write(dataset: Dataset) -> bytes:
    """The plain data set, encoded. Raises InvalidAttribute when a value cannot be written."""
    copy = Dataset()
    copy.update(dataset)
    copy.SpecificCharacterSet = UTF_8
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    try:
        write_dataset(buffer, copy)
    except Exception as error:  # a value of the wrong kind raises anything
        raise InvalidAttribute(CHARACTER_SET, "or another attribute cannot be encoded") from error
    return bytes(buffer.getvalue())


def merged(dataset: Dataset, changes: Dataset) -> Dataset:
    """`dataset` with every attribute of `changes` in place of its own."""
    copy = Dataset()
    copy.update(dataset)
    copy.update(changes)
    return copy


def for_answer(dataset: Dataset, asked: object = None) -> Dataset:
    """The same attributes with the Specific Character Set that they need, the one asked for if it can hold them.

    Without text outside ASCII none is named (PS3.4 section K.4.1.1.3.2).
    """
    answer = Dataset()
    answer.update(dataset)
    answer.pop(CHARACTER_SET, None)
    texts = [text for text in _texts(answer) if not text.isascii()]
    if texts:
        answer.SpecificCharacterSet = asked if asked and _expresses(asked, texts) else UTF_8
    return answer


def is_empty(element: DataElement | None) -> bool:
    """Whether it is absent or has no value; a sequence without items has none."""
    if element is None or element.value is None:
        return True
    value = element.value
    return not (value if isinstance(value, bytes) or element.VR == "SQ" else str(value))


def text_of(dataset: Dataset, keyword: str) -> str:
    """The first value of an attribute as text without padding; empty when there is none."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return "" if value is None else str(value).strip(" \0")


def _standard_tags(dataset: Dataset) -> Iterator[BaseTag]:
    for tag in dataset.keys():  # noqa: SIM118 - iterating over a Dataset yields elements, converted and maybe raising
        if tag.group >= 0x0008 and tag.element != 0 and not tag.is_private and dictionary_has_tag(tag):
            yield tag


def _plain_element(element: DataElement, depth: int) -> DataElement:
    if element.VR not in dictionary_VR(element.tag).split(" or "):
        raise InvalidAttribute(element.tag, "has a wrong value representation")
    value = [plain(item, depth + 1) for item in element.value] if element.VR == "SQ" else _plain_value(element.value)
    return DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def _plain_value(value: object) -> object:
    if isinstance(value, PersonName):
        return str(value)
    if isinstance(value, MultiValue):
        return [_plain_value(item) for item in value]
    return value


def _texts(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in TEXT_VRS and element.value:
            values = element.value if isinstance(element.value, MultiValue) else [element.value]
            yield from (str(value) for value in values)


def _expresses(character_set: object, texts: list[str]) -> bool:
    names = (
        [str(name) for name in character_set] if isinstance(character_set, list | MultiValue) else [str(character_set)]
    )
    try:
        encodings = convert_encodings(list(names))
        # pydicom writes Latin-1 where the default repertoire is named; that is ASCII (PS3.5 section 6.1.2.2).
        strict = ["ascii" if encoding == default_encoding else encoding for encoding in encodings]
        return all(decode_bytes(encode_string(text, strict), encodings, set()) == text for text in texts)
    except (LookupError, ValueError, UnicodeError):
        return False
