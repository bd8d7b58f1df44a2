"""A BIDS data set (Brain Imaging Data Structure 1.10): `sub-*/[ses-*/]anat/*.nii[.gz]`, side-cars, participants.tsv.

A session is a study, a subject without sessions is one. A series goes by the SeriesDescription and ProtocolName of its
side-car, else by its suffix (T1w, FLAIR …). Labels and reports are found under `sub-X_ses-Y`, `sub-X/ses-Y` or `sub-X`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prima_core.names import series_name
from prima_core.scope import ScopeSettings
from training.base.cohort import StudyRecord, StudyReport
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.prepare.dicom_study import capped_age, sex_of, tesla, vendor_of
from training.prepare.known import Known, read_table
from training.prepare.nifti import SUFFIXES
from training.prepare.scrub import Identity, identity_of
from training.prepare.source import SourceStudy
from training.prepare.volumes import VolumeFile, prepare_volumes

_LARGEST_SIDE_CAR = 4 << 20
_PEOPLE = ("PatientName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName")
_NUMBERS = ("PatientID", "AccessionNumber", "StudyID", "PatientBirthDate")


@dataclass(frozen=True)
class Bids:
    """A source over a data set's folder. Reference: `sub-X` or `sub-X/ses-Y`."""

    folder: Path
    pseudonyms: Pseudonyms
    known: Known = field(default_factory=Known)
    settings: ScopeSettings = field(default_factory=ScopeSettings)

    def references(self) -> Sequence[str]:
        """All sessions with an anat folder. Raises BadTrainingData when there is none."""
        folders = sorted([*self.folder.glob("sub-*/anat"), *self.folder.glob("sub-*/ses-*/anat")])
        if not folders:
            raise BadTrainingData(f"{self.folder}: no sub-*/anat and no sub-*/ses-*/anat")
        return [folder.parent.relative_to(self.folder).as_posix() for folder in folders]

    def study(self, reference: str) -> str:
        """The pseudonym. The data set's folder is no part of it: subjects of two data sets need two keys."""
        return self.pseudonyms.study(reference)

    def fetch(self, reference: str, _scratch: Path) -> SourceStudy:
        """Reads the files where they are. Raises OutOfScope and BadTrainingData."""
        subject = reference.partition("/")[0]
        paths = [path for path in sorted((self.folder / reference / "anat").iterdir()) if _volume(path)]
        side_cars = [_side_car(path) for path in paths]
        identity = _identity(subject, side_cars)
        participant = self._participant(subject)
        age = _number(participant.get("age", ""))
        prepared = prepare_volumes(
            self.study(reference),
            identity.scrubbed(_text(side_cars, "StudyDescription")),
            [_file(path, car, identity) for path, car in zip(paths, side_cars, strict=True)],
            self.settings,
            age,
        )
        names = reference.replace("/", "_"), reference, subject
        report = self.known.report_of(*names)
        return SourceStudy(
            record=self._record(reference, participant, age, side_cars),
            prepared=prepared,
            labels=self.known.labels_of(*names),
            report=report and StudyReport(tuple(map(identity.scrubbed, report.items))),
        )

    def _participant(self, subject: str) -> Mapping[str, str]:
        path = self.folder / "participants.tsv"
        rows = read_table(path, "participant_id", delimiter="\t") if path.exists() else iter(())
        return next((row for row in rows if row["participant_id"] in (subject, subject.removeprefix("sub-"))), {})

    def _record(
        self, reference: str, participant: Mapping[str, str], age: float | None, side_cars: Sequence[Mapping[str, Any]]
    ) -> StudyRecord:
        site = (participant.get("site") or _text(side_cars, "InstitutionName")).casefold()
        return StudyRecord(
            study=self.study(reference),
            patient=self.pseudonyms.patient(reference.partition("/")[0]),
            age_years=capped_age(age),
            sex=sex_of(participant.get("sex", "")),
            vendor=vendor_of(_text(side_cars, "Manufacturer")),
            site=self.pseudonyms.patient("institution", site)[:8] if site else "",
            field_strength=tesla(_number(_text(side_cars, "MagneticFieldStrength"))),
        )


def _volume(path: Path) -> bool:
    return path.name.startswith("sub-") and path.name.endswith(SUFFIXES)


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix))


def _side_car(path: Path) -> dict[str, Any]:
    """The side-car of a volume, or nothing. Raises BadTrainingData when it is no JSON object."""
    side_car = path.with_name(f"{_stem(path)}.json")
    if not side_car.exists():
        return {}
    try:
        if side_car.stat().st_size > _LARGEST_SIDE_CAR:
            raise BadTrainingData("a side-car is larger than any")
        content = json.loads(side_car.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadTrainingData("a side-car is not JSON") from error
    if not isinstance(content, dict):
        raise BadTrainingData("a side-car is not a JSON object")
    return content


def _file(path: Path, side_car: Mapping[str, Any], identity: Identity) -> VolumeFile:
    suffix = _stem(path).rpartition("_")[2]
    description, protocol = _text([side_car], "SeriesDescription"), _text([side_car], "ProtocolName")
    name = series_name(description or ("" if protocol else suffix), protocol, suffix)
    return VolumeFile(path, _stem(path), identity.scrubbed(name) or suffix)


def _identity(subject: str, side_cars: Sequence[Mapping[str, Any]]) -> Identity:
    people = (_text([car], key) for car in side_cars for key in _PEOPLE)
    numbers = [_text([car], key) for car in side_cars for key in _NUMBERS]
    return identity_of(people, [*numbers, subject.removeprefix("sub-")])


def _text(side_cars: Sequence[Mapping[str, Any]], key: str) -> str:
    """The first value that is a text or number."""
    values = (car.get(key) for car in side_cars)
    return next((str(value) for value in values if isinstance(value, str | int | float) and value != ""), "")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
