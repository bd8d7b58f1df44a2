"""Which studies train, validate and test: always by patient, so that nobody is on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from training.base.cohort import StudyRecord
from training.base.errors import BadTrainingData

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Pseudonyms of the studies of each part. Valid once constructed by one of the functions below."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def refuse_empty(split: Split) -> None:
    """Raises BadTrainingData when nothing would train, validate or test."""
    if empty := [part for part in PARTS if not getattr(split, part)]:
        raise BadTrainingData(f"no study would be in the {empty[0]} part")


def split_by_patient(records: Iterable[StudyRecord], validation: float, test: float, seed: int = 0) -> Split:
    """Every patient in one part, by a digest of the pseudonym: a study added later moves nobody.

    validation, test: expected shares of the patients, 0…1.
    """
    part_of: dict[str, str] = {}
    for record in records:
        position = int.from_bytes(hashlib.sha256(f"{seed}:{record.patient}".encode()).digest()[:8]) / 2**64
        inside = "test" if position < test else "validation" if position < test + validation else "train"
        part_of[record.study] = inside
    return _split(part_of)


def split_by_day(records: Iterable[StudyRecord], validation_from: date, test_from: date) -> Split:
    """A prospective split: studies before the first day train, those from the second on test, the rest validate.

    A patient stays where the first study falls; later studies of that patient that would fall elsewhere are left out,
    as are studies without a day. Days are those of the records, so shifted ones.
    """
    if validation_from > test_from:
        raise BadTrainingData("a prospective split validates before it tests")
    part_of: dict[str, str] = {}
    first: dict[str, str] = {}
    for record in sorted((one for one in records if one.day), key=lambda one: (one.day or date.min, one.study)):
        day = record.day or date.min
        part = "train" if day < validation_from else "validation" if day < test_from else "test"
        if first.setdefault(record.patient, part) == part:
            part_of[record.study] = part
    return _split(part_of)


def split_by_list(records: Iterable[StudyRecord], part_of: Mapping[str, str]) -> Split:
    """The parts that a site chose itself: study → train, validation or test; studies it does not name are left out.

    Raises BadTrainingData when a part is unknown or one patient is in two parts.
    """
    seen: dict[str, str] = {}
    chosen: dict[str, str] = {}
    for record in records:
        part = part_of.get(record.study)
        if part is None:
            continue
        if part not in PARTS:
            raise BadTrainingData(f"study {record.study}: unknown part {part!r}; use {', '.join(PARTS)}")
        if seen.setdefault(record.patient, part) != part:
            raise BadTrainingData(f"patient {record.patient} is in {seen[record.patient]} and in {part}")
        chosen[record.study] = part
    return _split(chosen)


def _split(part_of: Mapping[str, str]) -> Split:
    train, validation, test = (tuple(sorted(s for s, p in part_of.items() if p == part)) for part in PARTS)
    return Split(train, validation, test)
