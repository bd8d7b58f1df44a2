"""The DICOM files of one study → a source's study: prepared as the node prepares it, then made pseudonymous.

Of the headers only what `StudyRecord` holds is taken over, in a form that can hold nothing else: the vendor is one of a
list, the site a pseudonym, the day shifted, the age at most 89. The texts that the model reads are scrubbed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from pydicom import config
from pydicom.datadict import tag_for_keyword

from prima_core.base.bounded import Allowance
from prima_core.base.types import PreparedStudy
from prima_core.prepare import prepare_selection
from prima_core.scope import ScopeSettings, select_series
from prima_core.volume.attributes import Attributes
from prima_core.volume.headers import read_headers
from prima_core.volume.pixels import LARGEST_PARSED, read_header
from training.base.cohort import StudyRecord, StudyReport
from training.base.pseudonyms import Pseudonyms
from training.prepare.known import Known
from training.prepare.scrub import Identity, identity_of
from training.prepare.source import SourceStudy

OLDEST = 89.0
VENDORS = {
    "siemens": "SIEMENS",
    "ge ": "GE",
    "general electric": "GE",
    "philips": "Philips",
    "canon": "Canon",
    "toshiba": "Canon",
    "hitachi": "Hitachi",
    "fujifilm": "Hitachi",
    "united imaging": "United Imaging",
    "uih": "United Imaging",
    "hyperfine": "Hyperfine",
    "esaote": "Esaote",
}
OTHER_VENDOR = "other"
_GAUSS_A_TESLA, _STRONGEST_TESLA = 10_000, 30
_PEOPLE = (
    *("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy"),
    *("RequestingPhysician", "PhysiciansOfRecord", "ConsultingPhysicianName"),
)
_NUMBERS = (
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "PatientAddress"),
    *("PatientTelephoneNumbers", "PatientBirthDate", "StudyDate", "IssuerOfPatientID", "MedicalRecordLocator"),
)
_FACTS = ("PatientSex", "Manufacturer", "InstitutionName", "MagneticFieldStrength", "SpecificCharacterSet")
_TAGS = [tag for keyword in (*_PEOPLE, *_NUMBERS, *_FACTS) if (tag := tag_for_keyword(keyword)) is not None]


def read_study(
    files: Sequence[Path], pseudonyms: Pseudonyms, known: Known | None = None, settings: ScopeSettings | None = None
) -> SourceStudy:
    """Raises OutOfScope and TwoPatients as `prepare_study` does."""
    known, settings = known or Known(), settings or ScopeSettings()
    selection = select_series(read_headers(files), settings)
    headers = [_header(series.images[0].path) for series in selection.series]
    identity = identity_of(
        (text for header in headers for keyword in _PEOPLE for text in header.texts(keyword)),
        [text for header in headers for keyword in _NUMBERS for text in header.texts(keyword)],
    )
    prepared = prepare_selection(selection, settings)
    names = prepared.study_instance_uid, headers[0].text("AccessionNumber")
    report = known.report_of(*names)
    return SourceStudy(
        record=_record(prepared, headers[0], pseudonyms),
        prepared=_scrubbed(prepared, identity),
        labels=known.labels_of(*names),
        report=report and StudyReport(tuple(map(identity.scrubbed, report.items))),
    )


def vendor_of(manufacturer: str) -> str:
    """The vendor by one spelling for each; "other" for what is not known, and "" where nothing is said."""
    text = f"{manufacturer.casefold()} "
    return next((name for start, name in VENDORS.items() if start in text), OTHER_VENDOR if text.strip() else "")


def capped_age(years: float | None) -> float | None:
    """Above 89 years an age tells who somebody is."""
    return None if years is None else min(years, OLDEST)


def sex_of(text: str) -> str:
    """F, M, O or ""."""
    first = text.strip().upper()[:1]
    return first if first in ("F", "M", "O") else ""


def tesla(strength: float | None) -> float | None:
    """Some scanners write gauss."""
    return strength / _GAUSS_A_TESLA if strength and strength > _STRONGEST_TESLA else strength


def _header(path: Path) -> Attributes:
    with config.disable_value_validation():
        allowance = Allowance(LARGEST_PARSED)
        dataset, _, _ = read_header(path, _TAGS, allowance)
        return Attributes(dataset, allowance)


def _record(prepared: PreparedStudy, header: Attributes, pseudonyms: Pseudonyms) -> StudyRecord:
    day = _day(header.text("StudyDate"))
    institution = header.text("InstitutionName").casefold()
    return StudyRecord(
        study=pseudonyms.study(prepared.study_instance_uid),
        # Not by the issuer, which senders fill unevenly: one patient as two could be on both sides of a split.
        patient=pseudonyms.patient(header.text("PatientID").casefold() or prepared.study_instance_uid),
        day=day and pseudonyms.day(day),
        age_years=capped_age(prepared.age_years),
        sex=sex_of(header.text("PatientSex")),
        vendor=vendor_of(header.text("Manufacturer")),
        site=pseudonyms.patient("institution", institution)[:8] if institution else "",
        field_strength=tesla(header.number("MagneticFieldStrength")),
    )


def _scrubbed(prepared: PreparedStudy, identity: Identity) -> PreparedStudy:
    series = tuple(replace(one, name=identity.scrubbed(one.name) or "UNK") for one in prepared.series)
    return replace(prepared, description=identity.scrubbed(prepared.description), series=series)


def _day(text: str) -> date | None:
    digits = re.sub(r"\D", "", text)[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None
