"""Findings, referrals and priorities as coded concepts.

The codes are the packaged tables `diagnoses.csv` and `report_codes.csv` (SNOMED CT, RadLex, DICOM, UCUM; PS3.16).
`exact` says whether the code means the same as `display`; where it does not, `display` must stand beside the code as
text. What no standard scheme names, and every head a site trained itself, gets a code of the private scheme 99PRIMA:
never a guess.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import unicodedata
from dataclasses import dataclass
from importlib import resources

from dicom_node.base.errors import ReportError
from dicom_node.base.types import Finding, Level, Score

PRIVATE_SCHEME = "99PRIMA"
LONG_STRING = 64  # characters in a Code Meaning (VR LO, PS3.5 section 6.2)
ACR_CATEGORY = {
    Level.CRITICAL: "actionable_cat1",
    Level.URGENT: "actionable_cat2",
    Level.ELEVATED: "actionable_cat3",
}


@dataclass(frozen=True)
class Concept:
    """A code and the words people read for it. code fits VR SH, meaning fits VR LO."""

    display: str
    scheme: str
    code: str
    meaning: str
    exact: bool = True


def diagnosis(name: str) -> Concept:
    """The concept of a diagnosis head; a private code for a name the table does not know."""
    return _table("diagnoses.csv").get(name) or _private("DX", name, printable(name))


def referral(name: str) -> Concept:
    """The concept of a referral head, e.g. `neurosurgery`; a private code for a name the table does not know."""
    return _table("report_codes.csv").get(f"referral_{name}") or _private("REF", name, f"Referral to {printable(name)}")


def report_code(key: str) -> Concept:
    """A concept name, unit or value of the report itself. Raises KeyError on an unknown key."""
    return _table("report_codes.csv")[key]


def priority(level: Level) -> Concept:
    """The coded value of a reading priority. Its meaning is close, not exact: name the level in text as well."""
    return report_code(f"priority_{level}")


def actionable_category(level: Level) -> Concept | None:
    """The ACR actionable-finding category (CID 7035) of a reading priority; None for routine."""
    key = ACR_CATEGORY.get(level)
    return report_code(key) if key else None


def finding_of(score: Score) -> Finding:
    """A diagnosis as people and scripts see it: its code, and the probability or, uncalibrated, the logit."""
    concept = diagnosis(score.name)
    calibrated = score.probability is not None
    value = score.probability if score.probability is not None else score.logit
    return Finding(score.name, concept.code, concept.scheme, concept.meaning, value, calibrated)


def printable(text: str) -> str:
    """The text on one line without control, format or unassigned characters and without the value separator."""
    kept = (" " if unicodedata.category(sign)[0] in "CZ" or sign == "\\" else sign for sign in text)
    return " ".join("".join(kept).split())


def long_string(text: str, room: int = LONG_STRING) -> str:
    """The text as a legal value of VR LO: printable, at most `room` characters, and as many bytes in UTF-8 or GB18030.

    The limit is one of characters (PS3.5 section 6.2), but many readers count bytes.
    """
    kept = printable(text)[:room]
    while max(len(kept.encode(coding)) for coding in ("utf-8", "gb18030")) > room:
        kept = kept[:-1]
    return kept.rstrip()


def _private(prefix: str, name: str, words: str) -> Concept:
    if not printable(name):
        raise ReportError("a head of the bundle has a name without a printable character: repair the bundle's labels")
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    meaning = long_string(words)
    display = words.replace("_", " ")
    return Concept(display, PRIVATE_SCHEME, f"{prefix}_{digest[:12]}".upper(), meaning, exact=meaning == words)


@functools.cache
def _table(filename: str) -> dict[str, Concept]:
    text = resources.files(__package__).joinpath(filename).read_text(encoding="utf-8")
    return {
        row["key"]: Concept(row["display"], row["scheme"], row["code"], row["meaning"], row["exact"] == "yes")
        for row in csv.DictReader(text.splitlines())
    }
