"""What a report takes over from its source images: patient, study and order, each value checked before it is copied.

Real studies carry values that their own VR forbids. Patient name, patient ID with its issuer, accession number and UIDs
are copied exactly or there is no report; any other illegal value is left empty (type 2) or out (type 3) and logged by
name. Every image of the evidence must be of one study and one patient.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

from dicom_node.base.errors import ReportError
from dicom_node.base.events import Event, log
from dicom_node.base.types import study_id
from prima_core.base.mr_images import MR_IMAGES
from prima_core.base.patient import contradiction, patient_key

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
OF_PATIENT = ("PatientName", "PatientID")
IDENTITY = (*OF_PATIENT, "IssuerOfPatientID", "AccessionNumber")
TYPE_2 = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "ReferringPhysicianName")
TYPE_3 = ("StudyDescription", "TypeOfPatientID", "PatientAge", "AdmissionID", "TimezoneOffsetFromUTC")
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
MAX_REQUESTS = 100
UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    EOFError,
    struct.error,
    RecursionError,
    zlib.error,
)
DEFAULT_REPERTOIRE = ("", "ISO_IR 6", "ISO 2022 IR 6")
# At each of these characters the first character set is in force again (PS3.5 section 6.1.2.5.3).
DELIMITERS = {ord(sign) for sign in "\\^=\r\n\t\f"}


@dataclass(frozen=True)
class Image:
    """One source instance, as the evidence names it."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True)
class Source:
    """What the images of one study say together.

    files: of each image, by SOP Instance UID. attributes: legal values only, decoded; the type 2 ones are all there,
    perhaps empty. requests: items for Referenced Request Sequence. character_set: Specific Character Set of the source,
    empty for the default repertoire.
    """

    study_instance_uid: str
    images: tuple[Image, ...]
    files: dict[str, Path]
    attributes: Dataset
    requests: tuple[Dataset, ...]
    character_set: tuple[str, ...]


class _Illegal(ValueError):
    """A value that its VR, its enumeration or its character set forbids."""


def read_source(paths: Sequence[Path]) -> Source:
    """Read the headers of all used images, without pixels.

    Raises ReportError when an image cannot be read as DICOM, when the images are not of one study and one patient, or
    when an identifier that is never altered is unusable; the message names the attribute, never the value.
    """
    with _unquoted():
        headers = _read_all(paths)
        if not headers:
            raise ReportError("a report needs at least one used image")
        read = [_image(header) for header in headers]
        images = tuple(dict.fromkeys(read))
        files = {image.sop_instance_uid: path for image, path in zip(read, paths, strict=True)}
        study = _common("StudyInstanceUID", headers)
        attributes = _attributes(headers, study)
        requests = _requests(headers, study, attributes)
        return Source(study, images, files, attributes, requests, _character_set(headers[0]))


def check_source(paths: Sequence[Path]) -> None:
    """See at little cost whether a report will be possible, before a model is run for it.

    paths: some of the images that will be used, one of each series, say. Raises the ReportError that `read_source`
    would raise for them; logs nothing.
    """
    with _unquoted():
        headers = _read_all(paths)
        for header in headers:
            _image(header)
        for keyword in ("StudyInstanceUID", *IDENTITY):
            _common(keyword, headers)


@contextmanager
def _unquoted() -> Iterator[None]:
    """pydicom's own validation quotes the value in its warnings and its log: keep it out."""
    with disable_value_validation(), warnings.catch_warnings(action="ignore"):
        yield


def _read_all(paths: Sequence[Path]) -> list[Dataset]:
    """Headers of images that are of one patient."""
    headers = [_read(path) for path in paths]
    keyword = contradiction(patient_key(header) for header in headers)  # before anything in them is converted
    if keyword:
        raise _differs(keyword)
    return headers


def _differs(keyword: str) -> ReportError:
    return ReportError(f"{keyword} differs between the used images: no report until the study is corrected")


def _read(path: Path) -> Dataset:
    keywords = (*UIDS, *IDENTITY, *TYPE_2, *TYPE_3, "ProcedureCodeSequence", "RequestAttributesSequence")
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
    except (InvalidDicomError, BytesLengthException, *UNREADABLE) as error:
        raise ReportError("a used image can no longer be read as DICOM: compare the spool with the archive") from error


def _image(header: Dataset) -> Image:
    uids = {keyword: _identifier(header, keyword) for keyword in UIDS}
    for keyword, uid in uids.items():
        if not uid:
            raise ReportError(f"{keyword} is missing in a used image")
    if uids["SOPClassUID"] not in MR_IMAGES:
        raise ReportError("SOPClassUID of a used image is not that of an MR image")
    return Image(uids["SOPClassUID"], uids["SOPInstanceUID"], uids["SeriesInstanceUID"])


def _attributes(headers: Sequence[Dataset], study: str) -> Dataset:
    attributes = Dataset()
    for keyword in IDENTITY:
        value = _common(keyword, headers)
        if value or keyword != "IssuerOfPatientID":
            setattr(attributes, keyword, value)
    for keyword in (*TYPE_2, *TYPE_3):
        value = _first_legal(keyword, headers, study)
        if value or keyword in TYPE_2:
            setattr(attributes, keyword, value)
    codes = _first_codes("ProcedureCodeSequence", headers, study)
    if codes:
        attributes.ProcedureCodeSequence = codes
    return attributes


def _common(keyword: str, headers: Sequence[Dataset]) -> str:
    """The one value of an identifier; an image that lacks it does not contradict the others.

    Of one patient's name and ID, whose spellings may differ, it is the first image's that has them.
    """
    values = [value for value in (_identifier(header, keyword) for header in headers) if value]
    if keyword not in OF_PATIENT and len(set(values)) > 1:
        raise _differs(keyword)
    return values[0] if values else ""


def _identifier(header: Dataset, keyword: str) -> str:
    try:
        return _value(header, keyword, _character_set(header))
    except _Illegal as error:
        raise ReportError(
            f"{keyword} is not usable and is never altered: no report until it is corrected at the source"
        ) from error


def _first_legal(keyword: str, headers: Sequence[Dataset], study: str) -> str:
    illegal = False
    for header in headers:
        try:
            value = _value(header, keyword, _character_set(header))
        except _Illegal:
            illegal = True
            continue
        if value:
            return value
    if illegal:
        _log_emptied(keyword, study)
    return ""


def _first_codes(keyword: str, headers: Sequence[Dataset], study: str) -> list[Dataset]:
    illegal = False
    for header in headers:
        items, dropped = _codes(header, keyword, _character_set(header))
        illegal = illegal or dropped
        if items:
            break
    if illegal:
        _log_emptied(keyword, study)
    return items


def _codes(holder: Dataset, keyword: str, character_set: tuple[str, ...]) -> tuple[list[Dataset], bool]:
    """The legal items of a code sequence, reduced to code, scheme and meaning, and whether any had to be dropped."""
    try:
        items = _items(holder, keyword)
    except _Illegal:
        return [], True
    legal, dropped = [], False
    for item in items:
        try:
            values = {name: _value(item, name, character_set) for name in CODE}
        except _Illegal:
            values = {}
        if values and all(values.values()):
            code = Dataset()
            for name, value in values.items():
                setattr(code, name, value)
            legal.append(code)
        else:
            dropped = True
    return legal, dropped


def _requests(headers: Sequence[Dataset], study: str, attributes: Dataset) -> tuple[Dataset, ...]:
    """The orders the images were made for, each once (SR Document General Module, PS3.3 C.17.2)."""
    requests: dict[tuple[str, str], Dataset] = {}
    illegal = False
    for header in headers:
        found, dropped = _orders(header, study, attributes)
        illegal = illegal or dropped
        for request in found[: MAX_REQUESTS - len(requests)]:
            requests.setdefault((str(request.AccessionNumber), str(request.RequestedProcedureID)), request)
    if illegal:
        _log_emptied("ReferencedRequestSequence", study)
    return tuple(requests.values())


def _orders(header: Dataset, study: str, attributes: Dataset) -> tuple[list[Dataset], bool]:
    """The usable orders of one image, and whether any had to be dropped."""
    try:
        items = _items(header, "RequestAttributesSequence")
    except _Illegal:
        return [], True
    orders, dropped = [], False
    for item in items:
        try:
            order = _request(item, study, attributes, _character_set(header))
        except _Illegal:
            dropped = True
            continue
        if order is not None:
            orders.append(order)
    return orders, dropped


def _request(item: Dataset, study: str, attributes: Dataset, character_set: tuple[str, ...]) -> Dataset | None:
    procedure_id = _value(item, "RequestedProcedureID", character_set)
    if not procedure_id:
        return None
    request = Dataset()
    request.StudyInstanceUID = _value(item, "StudyInstanceUID", character_set) or study
    request.ReferencedStudySequence = []
    request.AccessionNumber = _value(item, "AccessionNumber", character_set) or attributes.AccessionNumber
    request.PlacerOrderNumberImagingServiceRequest = ""
    request.FillerOrderNumberImagingServiceRequest = ""
    request.RequestedProcedureID = procedure_id
    request.RequestedProcedureDescription = _value(item, "RequestedProcedureDescription", character_set)
    request.RequestedProcedureCodeSequence = _codes(item, "RequestedProcedureCodeSequence", character_set)[0]
    return request


def _items(holder: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence. Raises _Illegal when it cannot be parsed."""
    try:
        return [item for item in holder.get(keyword) or [] if isinstance(item, Dataset)]
    except (InvalidDicomError, BytesLengthException, OSError, *UNREADABLE) as error:
        raise _Illegal from error


def _log_emptied(keyword: str, study: str) -> None:
    log(Event.REPORT_ATTRIBUTE_EMPTIED, "warning", study=study_id(study), reason=keyword)


def _character_set(header: Dataset) -> tuple[str, ...]:
    value = header.get("SpecificCharacterSet") or ""
    terms = [str(term) for term in value] if isinstance(value, MultiValue | list) else [str(value)]
    known = all(term in python_encoding for term in terms)  # an unknown term tells nothing: only ASCII can be read
    return tuple(terms) if known and any(terms) else ()


def _value(holder: Dataset, keyword: str, character_set: tuple[str, ...]) -> str:
    """The decoded single value, without padding; empty when absent. Raises _Illegal on what its VR forbids."""
    tag = tag_for_keyword(keyword)
    element = holder.get_item(tag) if tag is not None and tag in holder else None
    content = element.value if element is not None else None
    if content is None or isinstance(content, str):
        text = content or ""
    elif isinstance(content, bytes):
        text = decode(content.rstrip(b"\0 "), character_set)
    else:
        raise _Illegal
    text = text.rstrip("\0 ")
    if text and not _legal(keyword, text):
        raise _Illegal
    return text


def decode(value: bytes, character_set: Sequence[str]) -> str:
    """Text of these bytes under these terms of Specific Character Set. Raises ValueError when they do not fit."""
    if (character_set[0] if character_set else "") in DEFAULT_REPERTOIRE:
        head, *escaped = value.split(b"\x1b")
        in_ascii = (head, *(part for part in escaped if part[:2] in (b"(B", b"(J")))
        if not all(part.isascii() for part in in_ascii):
            raise _Illegal
    text = decode_bytes(value, convert_encodings(list(character_set)), DELIMITERS)
    if "\ufffd" in text:
        raise _Illegal
    return text


def _legal(keyword: str, text: str) -> bool:
    if any(ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0 or sign == "\\" for sign in text):
        return False
    if keyword in ENUMERATED:
        return text in ENUMERATED[keyword]
    if keyword == "TimezoneOffsetFromUTC":
        return bool(re.fullmatch(r"[+-](0\d|1[0-4])[0-5]\d", text))
    rule = RULES.get(dictionary_VR(keyword))
    return rule is not None and rule(text)


def legal_uid(uid: str) -> bool:
    """Whether this may stand in a UI element (PS3.5 section 9.1; first two components: ITU-T X.660)."""
    return RULES["UI"](uid)


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return bool(re.fullmatch(r"\d{8}", text, re.ASCII))


def _is_person_name(text: str) -> bool:
    groups = text.split("=")
    return len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)


ENUMERATED = {"PatientSex": ("M", "F", "O"), "TypeOfPatientID": ("TEXT", "RFID", "BARCODE")}
RULES: dict[str, Callable[[str], bool]] = {  # PS3.5 section 6.2
    "AS": _matches(r"\d{3}[DWMY]"),
    "DA": _is_date,
    "LO": lambda text: len(text) <= 64,
    "PN": _is_person_name,
    "SH": lambda text: len(text) <= 16,
    "TM": _matches(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"),
    "UI": _matches(r"(?=.{1,64}$)([01]\.[1-3]?\d|2\.(0|[1-9]\d*))(\.(0|[1-9]\d*))*"),
}
