"""Reports: every finding is stated, nothing else is, normal statements agree with the case, and wordings vary.

What a text says is judged by the table `TERMS` here, not by the wordings that made it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from training.phantom.case import CONSEQUENCES, KINDS, SIMULATED, draw_case
from training.phantom.grammar import fits, say
from training.phantom.protocol import draw_protocol
from training.phantom.report import IMPLIED, write_report
from training.phantom.types import Case, Finding
from training.phantom.wordings import DIAGNOSES

# How a reader would recognise each diagnosis in a sentence.
TERMS = {
    "cyst_arachnoid_cyst": "arachnoid cyst|extra-axial cyst",
    "cyst_colloid_cyst": "colloid",
    "infectious_brain_abscess": "abscess",
    "inflammatory_multiple_sclerosis": "demyelinat|ovoid white matter|multiple sclerosis|dawson",
    "sellar_pituitary_adenoma": "adenoma|pituitary neuroendocrine|sellar mass",
    "structural_brain_herniation": "herniat",
    "structural_cerebral_atrophy": "atrophy|volume loss",
    "structural_chiari_malformation": "chiari|tonsillar (ectopia|descent)|peg-like",
    "structural_edema": "edema",
    "structural_encephalomalacia": "encephalomalac|parenchymal defect|tissue loss",
    "structural_mass_effect": "mass effect",
    "structural_midline_shift": "midline (is (shifted|displaced)|shift)|(shift|displacement) of (the )?midline",
    "surgical_catheter": "catheter|shunt|drain",
    "surgical_craniotomy": "craniotom",
    "surgical_resection_cavity": "resection|surgical cavit",
    "trauma_brain_contusion": "contusion",
    "trauma_diffuse_axonal_injury": "axonal injury|shear",
    "trauma_subdural_hematoma": "subdural",
    "tumor_adult_brain_metastasis": "metasta",
    "tumor_adult_glioma": "glioma|glial|glioblastoma",
    "tumor_adult_high_grade_glioma": "high-grade|glioblastoma",
    "tumor_adult_low_grade_glioma": "low-grade",
    "tumor_adult_lymphoma": "lymphoma",
    "tumor_adult_meningioma": "meningioma",
    "tumor_adult_schwannoma": "schwannoma|neuroma",
    "vascular_hemorrhagic_intracranial_hemorrhage": (
        "hemorrhage|parenchymal hematoma|blood products|(arachnoid|ventricular) blood"
    ),
    "vascular_hemorrhagic_intraventricular_hemorrhage": "intraventricular|ventricular blood",
    "vascular_hemorrhagic_subarachnoid_hemorrahage": "subarachnoid",
    "vascular_ischemic_lacunar_stroke": "lacun",
    "vascular_ischemic_large_vessel_stroke": r"(?<!lacunar )(infarct|stroke)|ischemic lesion",
    "vascular_ischemic_small_vessel_disease": "small vessel|microangiopath|leukoaraiosis|microvascular",
    "vascular_malformation_cavernoma": "cavern",
    "ventricular_ventriculomegaly": (
        "ventriculomegaly|hydrocephalus|enlargement of the ventric|"
        "ventricular dilatation|dilated|(system is|ventricles are) enlarged"
    ),
}
# Words that say more than one thing, so that a sentence may be about another finding.
SHARED = {
    "structural_edema": {"structural_edema"},
    "ventricular_ventriculomegaly": {"structural_cerebral_atrophy", "ventricular_ventriculomegaly"},
}
NEGATIVE = re.compile(r"^(no |there (is|are) (no|nothing)|the .* (is|are) not )|unremarkable|\bnormal", re.IGNORECASE)
ATTRIBUTES = {"structural_edema": {"grade": "moderate"}, "structural_brain_herniation": {"type": "subfalcine"}}


@cache
def cases(count: int = 150) -> list[Case]:
    """Cases as they are drawn, some with what may follow from them."""
    drawn = []
    for seed in range(count):
        case = draw_case(seed)
        if case.findings and seed % 3 == 0:
            kinds = [CONSEQUENCES[(seed + step) % len(CONSEQUENCES)] for step in range(1 + seed % 2)]
            consequences = [
                Finding((key,), key, "left", "", 7.0 if "shift" in key else 0.0, attributes=ATTRIBUTES.get(key, {}))
                for key in dict.fromkeys(kinds)
            ]
            case = replace(case, findings=(*case.findings, *consequences))
        drawn.append(case)
    return drawn


def report_of(case: Case, stream: int = 0, follow_up: bool = False) -> tuple[str, ...]:
    generator = np.random.default_rng([case.seed, stream])
    return write_report(case, draw_protocol(generator, "home"), generator, follow_up).items


def mentions(item: str, key: str) -> bool:
    return re.search(TERMS[key], item, re.IGNORECASE) is not None


def test_every_simulated_diagnosis_can_be_recognised_and_said() -> None:
    assert set(TERMS) == set(SIMULATED) <= set(DIAGNOSES)
    assert {key for kind in KINDS.values() for key in kind.keys} <= set(DIAGNOSES)


def test_every_diagnosis_of_the_case_is_stated() -> None:
    for case in cases():
        affirmed = [item for item in report_of(case)[1:] if not NEGATIVE.search(item)]
        for key in case.diagnoses:
            assert any(mentions(item, key) for item in affirmed), (key, affirmed)


@pytest.mark.parametrize("follow_up", [False, True])
def test_nothing_is_stated_that_the_case_does_not_have(follow_up: bool) -> None:
    for case in cases():
        for item in report_of(case, 1, follow_up)[1:]:
            if NEGATIVE.search(item):
                continue
            for key in TERMS:
                allowed = SHARED.get(key, {key}) | {key}
                assert not mentions(item, key) or allowed & case.diagnoses, (key, item)


def test_what_is_denied_or_called_normal_is_so() -> None:
    for case in cases():
        for stream in range(2):
            for item in report_of(case, stream)[1:]:
                if NEGATIVE.search(item):
                    denied = [key for key in TERMS if mentions(item, key)]
                    assert not set(denied) & case.diagnoses, (item, case.diagnoses)
                    if re.search("mass|neoplasm|tumor", item):
                        assert not any(key.startswith(("tumor_", "sellar_", "infectious_")) for key in case.diagnoses)
                    if "hemorrhage" in item:
                        assert not any(key.startswith(("vascular_hem", "trauma_")) for key in case.diagnoses)


def test_a_normal_study_is_called_normal_and_only_that() -> None:
    healthy = [case for case in cases() if not case.findings]
    assert healthy
    for case in healthy:
        assert re.search("normal|unremarkable|^no |without (abnormal|pathologic)", report_of(case)[-1], re.IGNORECASE)
    for case in cases():
        if case.findings:
            assert not any(
                re.search("MRI of the brain.$|^no .*finding|brain MRI", item) for item in report_of(case)[1:]
            )


@pytest.mark.parametrize("kind", KINDS)
def test_at_least_eight_wordings_a_kind(kind: str) -> None:
    varied = KINDS[kind]
    finding = Finding(varied.keys, kind, varied.sides[0], varied.sites[0], varied.size_mm[0] if varied.size_mm else 0.0)
    case = Case(1, 50, "F", (finding,))
    key = next(key for key in varied.keys if not set(IMPLIED.get(key, ())) & set(varied.keys))
    said = set()
    for stream in range(60):
        first = next(item for item in report_of(case, stream)[1:] if mentions(item, key) and not NEGATIVE.search(item))
        said.add(re.sub(r"[\d.]+ (mm|cm)", "#", first))
    assert len(said) >= 8, said


def test_sizes_sides_sites_and_numbers_are_those_of_the_finding() -> None:
    one = Finding(("tumor_adult_meningioma",), "meningioma", "right", "convexity", 23.4)
    several = Finding(("tumor_adult_brain_metastasis",), "metastasis", "left", "cerebellum", 12.0, count=3)
    for stream in range(60):
        text = " ".join(report_of(Case(1, 50, "F", (one,)), stream)[1:])
        assert set(re.findall(r"[\d.]+ (?:mm|cm)", text)) <= {"23 mm", "2.3 cm"}
        assert "right" in text or "convexity" not in text
        assert "left" not in text
        text = " ".join(report_of(Case(1, 50, "F", (several,)), stream)[1:])
        assert re.search("three|3", text, re.IGNORECASE)
        assert not re.search(r"(?<!largest )in the left cerebellum", text), "only the largest is there"


def test_the_technique_names_the_sequences_that_were_made() -> None:
    for case in cases(40):
        generator = np.random.default_rng(case.seed)
        protocol = draw_protocol(generator, "away")
        technique = write_report(case, protocol, generator).items[0]
        made = {plan.sequence for plan in protocol.series}
        assert ("FLAIR" in technique) == ("FLAIR" in made)
        assert ("ADC" in technique) == ("ADC" in made)
        assert bool(re.search("gadolinium|post-contrast|contrast-enhanced", technique)) == ("T1C" in made)


def test_signs_of_a_sequence_need_that_sequence() -> None:
    finding = Finding(("infectious_brain_abscess",), "abscess", "left", "frontal lobe", 20.0)
    for stream in range(60):
        generator = np.random.default_rng(stream)
        protocol = draw_protocol(generator, "home")
        report = write_report(Case(1, 50, "F", (finding,)), protocol, generator)
        made = {plan.sequence for plan in protocol.series}
        assert "T1C" in made or "enhancement" not in report.text
        assert "DWI" in made or "restrict" not in report.text


def test_a_follow_up_speaks_of_the_time_before() -> None:
    case = next(case for case in cases() if case.findings)
    texts = [" ".join(report_of(case, stream, follow_up=True)).lower() for stream in range(20)]
    assert all(
        re.search("unchanged|stable|known|again|no interval change|without significant|no change", t) for t in texts
    )
    assert not any(re.search("no prior|no previous|comparison: none", text) for text in texts)


def test_a_seed_gives_the_same_report_and_others_give_others() -> None:
    case = draw_case(3)
    assert report_of(case) == report_of(case)
    assert len({report_of(case, stream) for stream in range(10)}) == 10


def test_the_grammar_leaves_out_what_is_not_known() -> None:
    generator = np.random.default_rng(0)
    slots = {"noun": "cyst", "size": "", "where": "on the left"}
    assert say(["{Noun}[ {where}][, {size}]."], slots, generator) == "Cyst on the left."
    assert not fits("{noun} of {size}.", slots)
    with pytest.raises(ValueError, match="no pattern fits"):
        say(["{noun} of {size}."], slots, generator)
    with pytest.raises(KeyError):
        say(["{unknown}"], slots, generator)
