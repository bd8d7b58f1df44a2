"""Who the images say the patient is, and the one rule of when two images contradict each other in that.

Padding, case, accents, separators and names after family and given name make no difference. What is missing on one side
contradicts nothing. Issuer of Patient ID is left out because senders fill it unevenly; name and birth date tell two
hospitals' equal IDs apart.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

SPECIFIC_CHARACTER_SET = 0x00080005
PATIENT_NAME = 0x00100010
PATIENT_ID = 0x00100020
PATIENT_BIRTH_DATE = 0x00100030
_LONGEST_KEPT = 4096  # bytes; a hostile object's values may have megabytes
_PARTS = "PatientID", "PatientName", "PatientBirthDate"


def patient_key(dataset: Dataset) -> str:
    """`id:name:birth`, each part a one-way digest or empty, for `same_patient`.

    The data set must come from a file: only elements that nobody has converted yet are read, because converting a
    malformed one makes pydicom quote it. Raises what pydicom raises for names that cannot be decoded.
    """
    return patient_key_of_encoded(lambda tag: _raw(dataset, tag))


def patient_key_of_encoded(value: Callable[[int], bytes]) -> str:
    """The same from what gives the encoded value of each attribute by its tag, empty for one that is missing."""
    said = tuple(value(tag) for tag in (SPECIFIC_CHARACTER_SET, PATIENT_ID, PATIENT_NAME, PATIENT_BIRTH_DATE))
    return _kept_key(*said) if sum(map(len, said)) <= _LONGEST_KEPT else _key(*said)


def _key(character_set: bytes, patient_id: bytes, name: bytes, birth_date: bytes) -> str:
    encodings = convert_encodings(_text(character_set).split("\\"))
    decoded = str(PersonName(name.rstrip(b"\0 "), encodings))
    return patient_key_of(_text(patient_id), decoded, _text(birth_date))


# All of a study's images say the same.
_kept_key = lru_cache(maxsize=256)(_key)


def patient_key_of(patient_id: str, name: str, birth_date: str) -> str:
    """The same from texts. name: in DICOM's form, `Family^Given…`; birth_date: YYYYMMDD."""
    birth = re.sub(r"\D", "", birth_date)
    parts = (
        _folded(patient_id),
        _folded(" ".join(name.partition("=")[0].split("^")[:2])),
        birth if len(birth) == 8 else "",
    )
    return ":".join(hashlib.sha256(part.encode()).hexdigest()[:32] if part else "" for part in parts)


def same_patient(key: str, other: str) -> bool:
    """Whether two patient keys can be one person. An empty key knows nobody."""
    return all(a == b or not a or not b for a, b in zip(_parts(key), _parts(other), strict=True))


def surely_same_patient(key: str, other: str) -> bool:
    """Whether two patient keys agree in at least one part and contradict each other in none."""
    pairs = list(zip(_parts(key), _parts(other), strict=True))
    return same_patient(key, other) and any(a and a == b for a, b in pairs)


def merge_patient_keys(key: str, other: str) -> str:
    """What is known of one person from two keys that agree; the first one's parts win."""
    return ":".join(a or b for a, b in zip(_parts(key), _parts(other), strict=True))


def contradiction(keys: Iterable[str]) -> str:
    """The keyword of the first attribute in which any two of the keys cannot be one person; an empty string if none."""
    by_part = zip(*map(_parts, ["", *keys]), strict=True)
    return next((keyword for keyword, said in zip(_PARTS, by_part, strict=True) if len({*said} - {""}) > 1), "")


def _parts(key: str) -> list[str]:
    return key.split(":") if key else [""] * len(_PARTS)


def _raw(dataset: Dataset, tag: int) -> bytes:
    element = dataset.get_item(tag)
    value = element.value if element is not None else None
    return value if isinstance(value, bytes) else b""


def _text(value: bytes) -> str:
    return value.decode("latin-1").rstrip("\0 ")


def _folded(text: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(re.sub(r"[\0,]", " ", plain.casefold()).split())
