"""Every kind of report: what can be combined with what is combined, each pair of choices in at least one document.

Each document has no Error line from `dciodvfy -new`, is read by DCMTK's `dsrdump`, and comes back with the words that
were written, the patient's name and the node's own.
Not covered: combinations of three choices that no pair holds.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from pydicom import Dataset, dcmread

from dicom_node.base.config import Language, ReportSection
from dicom_node.base.types import Evidence, ImageReference, Level, Priority, Score, StudyResult
from dicom_node.jobs import claims, queue
from dicom_node.reporting import codes
from dicom_node.reporting.document import SOP_CLASSES, build_report
from dicom_node.reporting.source import decode
from dicom_node.reporting.wording import Wording
from support.character_sets import CHARACTER_SETS
from support.reports import MODEL, make_result, validate, write_study

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
EARLIER = ("1.2.3.1", "1.2.3", SOP_CLASSES["comprehensive_3d"])
CHOICES: dict[str, tuple[Any, ...]] = {
    "sop_class": tuple(SOP_CLASSES),
    "language": get_args(Language),
    "character_set": ("default", "latin 1", "cyrillic", "katakana and kanji", "kanji", "hangul", "utf-8", "gb18030"),
    "outcome": ("findings", "explained", "unexplained", "nothing", "everything"),
    "calibrated": (False, True),
    "negatives": ("summary", "all", "none"),
    "partial": (None, queue.CLOSED_BY_CAP, claims.IMAGES_ELSEWHERE),
    "revision": (1, 2),
    "state": ("clinical", "phantom", "untrained"),
    "level": tuple(Level),
}
Case = dict[str, Any]
Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairs_of(case: Case) -> set[Pair]:
    return set(itertools.combinations(case.items(), 2))


def all_pairs() -> set[Pair]:
    every = [[(name, value) for value in values] for name, values in CHOICES.items()]
    return {pair for one, other in itertools.combinations(every, 2) for pair in itertools.product(one, other)}


def covering_cases() -> list[Case]:
    """Few cases that hold every pair: each is the best of some random ones around a pair that is still missing."""
    chance = random.Random(0)
    missing, cases = all_pairs(), list[Case]()
    while missing:
        wanted = dict(min(missing, key=repr))
        tried = [
            {name: wanted.get(name, chance.choice(values)) for name, values in CHOICES.items()} for _ in range(200)
        ]
        cases.append(max(tried, key=lambda case: len(pairs_of(case) & missing)))
        missing -= pairs_of(cases[-1])
    return cases


CASES = covering_cases()


def scores(case: Case) -> tuple[Score, ...]:
    """Diagnoses of a bundle, positive ones among them unless nothing is found."""
    names = [
        line.split(",")[0] for line in (Path(codes.__file__).parent / "diagnoses.csv").read_text().splitlines()[1:]
    ]
    names.append("a_head_of_the_site")
    positive = {"nothing": (), "everything": names}.get(case["outcome"], names[::9])
    return tuple(
        Score(name, logit, 0.1 + at / 7, (0.5 + logit / 10) if case["calibrated"] else None)
        for at, name in enumerate(names)
        for logit in [(0.3 + at / 100) * (1 if name in positive else -1)]
    )


def result_of(case: Case, paths: list[Path]) -> StudyResult:
    diagnoses = scores(case)
    result = make_result(
        paths,
        diagnoses=diagnoses,
        referrals=(Score("neurosurgery", 1.0, 0.0), Score("neuro_oncology", 1.0, 0.0), Score("haematology", 1.0, 0.0)),
        model=dataclasses.replace(MODEL, training_state=case["state"]),
        partial_reason=case["partial"],
        revision=case["revision"],
        predecessors=(EARLIER,) if case["revision"] > 1 else (),
        priority=Priority(case["level"], f"priority head: high → {case['level']}"),
        notes=("t2: one slice in 2 of 240 was used, to keep at most 5000 patches", "series not used: localiser"),
    )
    images = tuple(ImageReference(uid) for uid in result.sop_instance_uids)
    found = [score.name for score in result.positive]
    evidence = {
        "explained": [Evidence(found[0], images, "LIME, 256 samples, seed 0"), Evidence(found[1], note="memory")]
        if found
        else [],
        "unexplained": [Evidence(name, note="memory") for name in found],
    }.get(case["outcome"], [])
    return dataclasses.replace(result, evidence=tuple(evidence))


def texts(item: Dataset) -> list[str]:
    """Every text below this item, in document order."""
    found = []
    for child in item.get("ContentSequence", []):
        found += [str(child.TextValue)] if child.ValueType == "TEXT" else []
        found += texts(child)
    return found


def test_every_pair_of_choices_is_in_a_document() -> None:
    assert set().union(*map(pairs_of, CASES)) == all_pairs()
    assert len(CASES) < 60


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join(re.sub(r"\W+", "_", str(v))[:12] for v in case.values())
)
def test_a_report_of_this_kind_is_valid_and_comes_back_as_it_was_written(case: Case, tmp_path: Path) -> None:
    declared, name, text = CHARACTER_SETS[case["character_set"]]
    header = {"SpecificCharacterSet": declared or None, "PatientName": name, "SeriesNumber": b"4"}
    paths = write_study(tmp_path, *({**header, "InstanceNumber": str(at).encode()} for at in range(1, 4)))
    settings = ReportSection(language=case["language"], negatives=case["negatives"])
    result = result_of(case, paths)
    built = build_report(result, paths, settings, NOW, case["sop_class"])
    document = dcmread(validate(built, tmp_path))
    kept = document.get("SpecificCharacterSet", "")
    written = document.get_item("PatientName").value.rstrip(b" ")
    assert decode(written, [kept] if isinstance(kept, str) else list(kept)) == text
    assert texts(document) == texts(built)
    wording = Wording(case["language"])
    summary = next(told for told in texts(document) if told.startswith(wording.say("unverified")))
    assert wording.say("purpose") in summary
    for score in result.positive:
        assert wording.name(codes.diagnosis(score.name)) in summary
    assert (wording.say("nothing_found") in summary) == (case["outcome"] == "nothing")
    if case["partial"]:
        assert document.CompletionFlagDescription == codes.long_string(wording.told(case["partial"]))


@pytest.mark.parametrize("language", ["de", "fr"])
@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        ("default", "ISO_IR 192"),
        ("latin 1", "ISO_IR 100"),
        ("cyrillic", "ISO_IR 192"),
        ("kanji", "ISO_IR 192"),
        ("gb18030", "GB18030"),
        ("utf-8", "ISO_IR 192"),
    ],
)
def test_the_words_of_a_language_keep_the_sources_character_set_where_it_holds_them(
    terms: str, kept: str, language: Language, tmp_path: Path
) -> None:
    declared, name, _ = CHARACTER_SETS[terms]
    paths = write_study(tmp_path, {"SpecificCharacterSet": declared or None, "PatientName": name})
    result = make_result(paths, priority=Priority(Level.URGENT, "priority head: high → urgent"))
    document = dcmread(validate(build_report(result, paths, ReportSection(language=language), NOW), tmp_path))
    assert document.SpecificCharacterSet == kept


@pytest.mark.parametrize("terms", [name for name, (declared, *_) in CHARACTER_SETS.items() if b"GBK" not in declared])
def test_english_needs_no_other_character_set_than_the_source(terms: str, tmp_path: Path) -> None:
    declared, name, _ = CHARACTER_SETS[terms]
    paths = write_study(tmp_path, {"SpecificCharacterSet": declared or None, "PatientName": name})
    result = make_result(paths, priority=Priority(Level.URGENT, "priority head: high → urgent"))
    plain = build_report(result, paths, ReportSection(), NOW)
    words = dataclasses.replace(result, diagnoses=(), referrals=(), priority=Priority(Level.URGENT, "x"))
    assert plain.get("SpecificCharacterSet") == build_report(words, paths, ReportSection(), NOW).get(
        "SpecificCharacterSet"
    )
