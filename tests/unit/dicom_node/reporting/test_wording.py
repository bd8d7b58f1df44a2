"""The tables of words: whole in every language, and every sentence that the node can put into a report is known.

Not covered: whether a reader would choose other words.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from dicom_node.base.config import FindingRule, Language, ReportSection
from dicom_node.base.types import Finding, Level
from dicom_node.jobs import claims, queue
from dicom_node.reporting import codes
from dicom_node.reporting.wording import FIELD, NUMBERS, Wording
from dicom_node.worklist.ranking import rank_again
from prima_core import anatomy, scope
from prima_core.volume import headers

PACKAGED = Path(codes.__file__).parent
ROOT = PACKAGED.parents[1]
OTHERS: tuple[Language, ...] = ("de", "fr")
PARTIAL = (queue.CLOSED_BY_CAP, claims.IMAGES_LOST, claims.IMAGES_ELSEWHERE, claims.IMAGES_QUARANTINED)
REASONS = {"UnusableSeries": 0, "_Unreadable": 0, "SetAside": 1}
NOTES = ("prepare_volume", "_majority_size", "choose_volume", "_judge")
ANSWERS = ("_not_used", "mosaic_frames", "unexpected")


def rows(filename: str) -> list[dict[str, str]]:
    with (PACKAGED / filename).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def written(node: ast.expr) -> str | None:
    """A text as a program would write it, with 7 for each number or word that it fills in; None for no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values)
    return None


def reasons() -> Iterator[str]:
    """Every note and every reason that prima_core can give for what is not used of a study."""
    for path in sorted((ROOT / "prima_core").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REASONS:
                yield from (text for argument in node.args[REASONS[node.func.id] :] if (text := written(argument)))
            elif isinstance(node, ast.FunctionDef) and node.name in NOTES:
                yield from (
                    text for inner in ast.walk(node) if isinstance(inner, ast.JoinedStr) and (text := written(inner))
                )
            elif isinstance(node, ast.FunctionDef) and node.name in ANSWERS:
                yield from (
                    text
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Return) and inner.value is not None and (text := written(inner.value))
                )
    yield headers._TOO_MUCH
    yield from (kind.name for kind in scope.KINDS)
    yield from scope._CALCULATIONS.values()


def fields(text: str) -> list[str]:
    return sorted(FIELD.findall(text))


def test_the_languages_are_those_of_the_configuration() -> None:
    assert get_args(Language) == ("en", "de", "fr")
    for language in get_args(Language):
        assert codes.report_code(f"language_{language}").code == ReportSection(language=language).language


@pytest.mark.parametrize("filename", ["wordings.csv", "sentences.csv"])
def test_every_language_has_every_text_with_the_same_places(filename: str) -> None:
    table = rows(filename)
    assert len(table) > 40
    for row in table:
        for language in OTHERS:
            assert row[language].strip(), (row["en"], language)
            assert fields(row[language]) == fields(row["en"]), (row["en"], language)


def test_a_key_and_a_sentence_stand_once() -> None:
    for filename, column in (("wordings.csv", "key"), ("sentences.csv", "en"), ("names.csv", "key")):
        values = [row[column] for row in rows(filename)]
        assert len(set(values)) == len(values), filename


def test_every_diagnosis_and_referral_has_a_name_of_its_own_in_every_language() -> None:
    known = {row["key"]: row for row in rows("names.csv")}
    diagnoses = [row["key"] for row in rows("diagnoses.csv")]
    referrals = [row["key"] for row in rows("report_codes.csv") if row["key"].startswith("referral_")]
    assert list(known) == diagnoses + referrals
    assert len(diagnoses) == 52
    for language in OTHERS:
        names = [row[language] for row in known.values()]
        assert len(set(names)) == len(names), language
        assert all(name.strip() == name and name for name in names), language


@pytest.mark.parametrize("filename", ["wordings.csv", "sentences.csv", "names.csv"])
def test_all_words_fit_latin_1_and_are_printable(filename: str) -> None:
    for row in rows(filename):
        for language in OTHERS:
            assert row[language].encode("latin-1")
            assert row[language].isprintable()
            assert "\\" not in row[language]


@pytest.mark.parametrize("language", OTHERS)
def test_every_reason_that_a_report_can_repeat_is_known_in_every_language(language: Language) -> None:
    wording = Wording(language)
    found = sorted(set(reasons()))
    assert len(found) > 40
    assert [text for text in found if wording.told(text) == text] == []


def test_a_reason_that_nobody_translated_would_be_found() -> None:
    sentence = "a reason that nobody has thought of"
    assert Wording("de").told(sentence) == sentence


@pytest.mark.parametrize("language", OTHERS)
def test_regions_are_known_in_every_language(language: Language) -> None:
    for region in anatomy._ELSEWHERE:
        assert region in {row["en"] for row in rows("sentences.csv")}
    assert Wording(language).note("series not used: shows another region (spine, neck)") == {
        "de": "Serie nicht verwendet: zeigt eine andere Region (Wirbelsäule, Hals)",
        "fr": "série non utilisée : montre une autre région (rachis, cou)",
    }.get(language)


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("reason", PARTIAL)
def test_a_partial_reason_is_known_and_fits_its_attribute(reason: str, language: Language) -> None:
    told = Wording(language).told(reason)
    assert told != reason
    assert codes.long_string(told) == told


@pytest.mark.parametrize("language", get_args(Language))
@pytest.mark.parametrize("level", Level)
def test_a_priority_and_its_rule_are_in_one_language(level: Level, language: Language) -> None:
    rules = [FindingRule(name="acute 'bleed': first", findings=("x",), level="critical")]
    finding = Finding("x", "1386000", "SCT", "Intracranial hemorrhage", 1.0, calibrated=False)
    wording = Wording(language)
    by_rule = wording.told(rank_again("high", {"high": "urgent"}, [finding], rules).rule)
    assert by_rule == {
        "en": "rule 'acute 'bleed': first': Intracranial hemorrhage -> critical",
        "de": "Regel 'acute 'bleed': first': Intrakranielle Blutung -> kritisch",
        "fr": "règle 'acute 'bleed': first' : Hémorragie intracrânienne -> critique",
    }.get(language)
    if level is not Level.CRITICAL:
        by_head = wording.told(rank_again("head's own", {"head's own": level.value}, [], []).rule)
        assert by_head.endswith(f"head's own -> {wording.level(level)}")
        assert by_head.encode("latin-1")


def test_a_note_behind_a_series_name_is_known_whatever_the_name() -> None:
    wording = Wording("de")
    assert wording.note("t2: flair: the series holds more than one volume; used: phase, 20 slices") == (
        "t2: flair: die Serie enthält mehr als ein Volumen; verwendet: phase, 20 slices"
    )
    assert wording.note("7: 3 slice(s) of another size than most were left out") == (
        "7: Schichten von anderer Größe als die meisten ausgelassen: 3"
    )
    assert wording.note("t2: 2 image(s) left out: localiser") == (
        "t2: ausgelassene Bilder: 2 (Übersichtsaufnahme (Localizer))"
    )
    assert wording.note("t2: something: else") == "t2: something: else"


def test_english_notes_stay_as_they_are_on_one_line_and_in_ascii() -> None:
    assert Wording("en").note("t2: one\r\nslice → two") == "t2: one slice -> two"


def test_what_the_site_named_itself_stays_in_its_own_words() -> None:
    wording = Wording("de")
    assert wording.name(codes.diagnosis("hippocampal_sclerosis")) == "hippocampal sclerosis"
    assert wording.name(codes.referral("haematology")) == "Referral to haematology"
    assert wording.exact(codes.diagnosis("y" * 100)) == "y" * 100
    assert wording.state("mended") == 'Modell im Zustand "mended"'


def test_a_head_named_like_the_code_of_another_is_not_taken_for_it() -> None:
    wording = Wording("de")
    assert codes.diagnosis("vascular_ischemic_large_vessel_stroke").meaning == "Ischemic stroke"
    assert wording.name(codes.diagnosis("Ischemic stroke")) == "Ischemic stroke"
    assert wording.told("rule 'r': Ischemic stroke -> urgent") == "Regel 'r': Ischemic stroke -> dringend"


def test_an_inexact_code_has_its_exact_english_words_and_the_readers_name() -> None:
    concept = codes.diagnosis("tumor_adult_high_grade_glioma")
    assert Wording("en").exact(concept) == "High-grade glioma"
    assert Wording("fr").exact(concept) == "High-grade glioma (Gliome de haut grade)"
    assert Wording("fr").exact(codes.diagnosis("vascular_ischemic_moyamoya")) == "Moyamoya"


def test_numbers_have_the_decimal_sign_of_the_language() -> None:
    assert [Wording(language).number(-0.25, ".3g") for language in get_args(Language)] == ["-0.25", "-0,25", "-0,25"]


def test_a_value_is_never_read_as_a_place() -> None:
    assert Wording("en").say("note", note="{model} {0}") == "Note: {model} {0}"


def test_only_numbers_match_the_places_of_numbers() -> None:
    used = {name for row in rows("sentences.csv") for name in FIELD.findall(row["en"])}
    assert used > NUMBERS - {"volume"}
    assert not re.search(r"\d", "".join(used))
    told = "LIME, 256 samples, seed 0; fewer samples than configured: 64 (memory)"
    assert Wording("de").told(told) == (
        "LIME, 256 Stichproben, Startwert 0; weniger Stichproben als eingestellt: 64 (Arbeitsspeicher)"
    )
