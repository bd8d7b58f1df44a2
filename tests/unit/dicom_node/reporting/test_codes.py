"""The packaged code tables against the verified source tables and the limits of DICOM; names the tables do not know.

Not covered: whether the codes are still active in a site's own terminology release.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dicom_node.base.errors import ReportError
from dicom_node.base.types import Level, Score
from dicom_node.reporting import codes

PACKAGED = Path(codes.__file__).parent
NEVER = {"111047", "2667000", "RID49483"}


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def all_concepts() -> list[codes.Concept]:
    diagnoses = [codes.diagnosis(key) for key in table(PACKAGED / "diagnoses.csv")]
    return diagnoses + [codes.report_code(key) for key in table(PACKAGED / "report_codes.csv")]


def test_every_diagnosis_of_the_verified_table_has_its_code(shared_data: Path) -> None:
    verified = table(shared_data.parent / "spec" / "diagnoses.csv")
    assert len(verified) == 52
    for key, row in verified.items():
        concept = codes.diagnosis(key)
        standard = (row["scheme"], row["code"], row["meaning"])
        alternative = ("RADLEX", row["alt_code"], row["alt_meaning"])
        assert (concept.scheme, concept.code, concept.meaning) == (standard if row["code"] else alternative)
        if row["verified"] != "yes" or not row["source"].startswith("match=exact"):
            assert not concept.exact, key


def test_report_codes_are_those_of_the_verified_table(shared_data: Path) -> None:
    verified = table(shared_data.parent / "spec" / "report_codes.csv")
    compared = 0
    for key in table(PACKAGED / "report_codes.csv").keys() & verified.keys():
        concept, row = codes.report_code(key), verified[key]
        if row["verified"] == "yes":
            assert (concept.scheme, concept.code, concept.meaning) == (row["scheme"], row["code"], row["meaning"])
            compared += 1
        else:
            assert concept.scheme in (codes.PRIVATE_SCHEME, row["alt_scheme"])
    assert compared > 30


def test_every_code_fits_its_vr() -> None:
    for concept in all_concepts():
        assert 1 <= len(concept.code) <= 16
        assert 1 <= len(concept.scheme) <= 16
        assert 1 <= len(concept.meaning) <= 64
        assert concept.meaning == codes.long_string(concept.meaning)
        assert concept.code not in NEVER


def test_no_code_stands_for_two_meanings() -> None:
    meanings: dict[tuple[str, str], str] = {}
    for concept in all_concepts():
        assert meanings.setdefault((concept.scheme, concept.code), concept.meaning) == concept.meaning


def test_referrals_of_a_bundle_find_their_referral_code() -> None:
    assert codes.referral("neurosurgery").code == "183546007"
    assert codes.referral("neurology").code == "183521007"
    assert codes.referral("neuro_oncology").scheme == codes.PRIVATE_SCHEME


def test_an_unknown_name_gets_a_private_code_of_its_own() -> None:
    concept = codes.diagnosis("hippocampal_sclerosis")
    assert concept.scheme == codes.PRIVATE_SCHEME
    assert concept.meaning == "hippocampal_sclerosis"
    assert concept.display == "hippocampal sclerosis"
    assert concept.code != codes.diagnosis("hippocampal_sclerosis_left").code
    assert codes.referral("haematology").meaning == "Referral to haematology"


@pytest.mark.parametrize("name", ["x" * 500, "a\\b\x00\x1b[31mc\r\n\u202ed", "\ud800 lone surrogate", "脳梗塞" * 40])
def test_a_hostile_name_becomes_a_legal_code(name: str) -> None:
    for concept in (codes.diagnosis(name), codes.referral(name)):
        assert len(concept.code) <= 16
        assert 1 <= len(concept.meaning) <= 64
        assert "\\" not in concept.meaning
        assert concept.meaning.isprintable()
        assert concept.meaning.encode()


def test_a_name_too_long_for_its_meaning_stands_beside_its_code_in_full() -> None:
    concept = codes.diagnosis("y" * 100)
    assert not concept.exact
    assert concept.display == "y" * 100


def test_a_text_is_cut_to_so_many_bytes_because_readers_count_them() -> None:
    assert codes.long_string("é" * 64) == "é" * 32
    assert codes.long_string("ö" * 64) == "ö" * 16, "four bytes each in GB18030"
    assert codes.long_string("x" * 63 + "é") == "x" * 63
    assert codes.long_string("脳" * 3, room=7) == "脳" * 2


def test_a_name_without_a_printable_character_is_refused() -> None:
    with pytest.raises(ReportError, match="labels"):
        codes.diagnosis("\x00\n")


def test_a_finding_carries_its_logit_or_its_calibrated_probability() -> None:
    uncalibrated = codes.finding_of(Score("tumor_adult_glioma", 0.5, 0.1))
    assert (uncalibrated.score, uncalibrated.calibrated) == (0.5, False)
    assert (uncalibrated.name, uncalibrated.scheme, uncalibrated.code) == ("tumor_adult_glioma", "SCT", "393564001")
    calibrated = codes.finding_of(Score("tumor_adult_glioma", 0.5, 0.1, probability=0.0))
    assert (calibrated.score, calibrated.calibrated) == (0.0, True)


def test_every_level_has_a_code_and_only_routine_has_no_acr_category() -> None:
    assert len({codes.priority(level).code for level in Level}) == len(Level)
    categories = {level: codes.actionable_category(level) for level in Level}
    assert {level: concept and concept.code for level, concept in categories.items()} == {
        Level.CRITICAL: "RID49480",
        Level.URGENT: "RID49481",
        Level.ELEVATED: "RID49482",
        Level.ROUTINE: None,
    }
