"""A seed → one study with its truth: patient, head, protocol, series, DICOM files, labels and report.

Seeds 2k and 2k + 1 are in 15 % of the cases two studies of one patient with the same findings, some months apart and
most often on another scanner; so it matters that studies are split by patient.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from training.base.cohort import StudyLabels
from training.phantom.anatomy import build_head
from training.phantom.case import SECOND_STORY, SIMULATED, draw_case
from training.phantom.dicom import StudyFacts, phantom_uid, write_study
from training.phantom.priority import judge
from training.phantom.protocol import draw_protocol
from training.phantom.report import write_report
from training.phantom.scanner import acquire
from training.phantom.types import Acquisition, Case, Head, StudyProtocol, Truth

FIRST_DAY, DAYS = date(2024, 1, 1), 731
FOLLOWED_UP = 0.15
FOLLOW_UP_DAYS = 30, 180

_VISIT, _PROTOCOL, _NOISE, _REPORT = range(4)  # independent streams of random numbers


@dataclass(frozen=True)
class Visit:
    """Which patient a seed's study is of, and when. days_since_first: 0 unless it is a follow-up."""

    patient_seed: int
    day: date
    days_since_first: int = 0


def visit(seed: int) -> Visit:
    """The visit of a seed; the same in every domain."""
    pair = np.random.default_rng([_VISIT, seed // 2])
    followed_up, gap = pair.random() < FOLLOWED_UP, int(pair.integers(*FOLLOW_UP_DAYS, endpoint=True))
    if not followed_up:
        own = np.random.default_rng([_VISIT, seed // 2, seed % 2])
        return Visit(seed, FIRST_DAY + timedelta(days=int(own.integers(DAYS))))
    first = FIRST_DAY + timedelta(days=int(pair.integers(DAYS - FOLLOW_UP_DAYS[1])))
    since = gap * (seed % 2)
    return Visit(seed - seed % 2, first + timedelta(days=since), since)


@dataclass(frozen=True)
class Simulation:
    """A study before it is written anywhere. facts: what its files say. truth: what is known of it."""

    facts: StudyFacts
    protocol: StudyProtocol
    head: Head
    acquisitions: tuple[Acquisition, ...]
    truth: Truth


def simulate(seed: int, domain: str) -> Simulation:
    """The seed's study. domain: see `protocol.DOMAINS`; in "teaching" its patient has more findings.

    A seed gives the same study every time. Raises BadTrainingData for an unknown domain.
    """
    protocol = draw_protocol(_stream(seed, domain, _PROTOCOL), domain)
    when = visit(seed)
    head = build_head(draw_case(when.patient_seed, SECOND_STORY if domain == "teaching" else 0.0))
    case = replace(head.case, age_years=head.case.age_years + when.days_since_first / 365.25)
    noise = _stream(seed, domain, _NOISE)
    acquisitions = tuple(acquire(head, plan, noise) for plan in protocol.series)
    facts = _facts(seed, domain, when, case)
    truth = Truth(
        study_instance_uid=facts.study_instance_uid,
        patient_id=facts.patient_id,
        day=when.day,
        vendor=protocol.vendor,
        site=protocol.site,
        field_strength=protocol.field_strength,
        case=case,
        labels=labels_of(case),
        report=write_report(case, protocol, _stream(seed, domain, _REPORT), follow_up=when.days_since_first > 0),
        contrast_to_noise=tuple(
            max(series.contrast_to_noise[index] for series in acquisitions) for index in range(len(case.findings))
        ),
    )
    return Simulation(facts, protocol, head, acquisitions, truth)


def make_study(seed: int, domain: str, folder: Path) -> Truth:
    """Write the seed's study into `folder` as DICOM and give what is known of it. Raises as `simulate`, and OSError."""
    found = simulate(seed, domain)
    write_study(folder, found.facts, found.protocol, found.acquisitions)
    return found.truth


def labels_of(case: Case) -> StudyLabels:
    """Every simulated diagnosis as present or not, referrals, priority, and the age in years."""
    judgement = judge(case)
    return StudyLabels(
        diagnosis={key: key in case.diagnoses for key in SIMULATED},
        referral=judgement.referral,
        priority=judgement.priority,
        value={"age_years": round(case.age_years, 2)},
    )


def truth_json(truth: Truth) -> str:
    """What was simulated and how plain it is, as JSON without anything that identifies the study."""
    findings = [
        {**asdict(finding), "attributes": dict(finding.attributes), "contrast_to_noise": round(contrast, 3)}
        for finding, contrast in zip(truth.case.findings, truth.contrast_to_noise, strict=True)
    ]
    return json.dumps(
        {
            "age_years": round(truth.case.age_years, 2),
            "sex": truth.case.sex,
            "vendor": truth.vendor,
            "site": truth.site,
            "field_strength": truth.field_strength,
            "findings": findings,
        }
    )


def study_uid(seed: int, domain: str) -> str:
    """The Study Instance UID that `make_study` gives."""
    return phantom_uid(_key(seed, domain), "study")


def _key(seed: int, domain: str) -> str:
    return f"{domain}:{seed}"


def _facts(seed: int, domain: str, when: Visit, case: Case) -> StudyFacts:
    patient = f"{domain.upper()}-{when.patient_seed:07}"
    return StudyFacts(
        key=_key(seed, domain),
        patient_id=f"PHANTOM-{patient}",
        patient_name=f"PHANTOM^{patient}",
        sex=case.sex,
        birth_date=when.day - timedelta(days=round(case.age_years * 365.25)),
        age_years=case.age_years,
        day=when.day,
        accession_number=f"SIM{domain[0].upper()}{seed:07}",
    )


def _stream(seed: int, domain: str, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(domain.encode()), purpose])
