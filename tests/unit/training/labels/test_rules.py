"""Rules on report text: sentences in the manner of real reports by hand, and phantom reports whose truth is known.

The sentences were written for this table. Phantom reports are simulated: how well the rules do on them says little
about a hospital's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.base.cohort import StudyReport
from training.base.statements import unwrapped
from training.labels.rules import RuleSettings, Said, label_report, label_reports, said_in
from training.labels.sentences import sentences
from training.labels.terms import DESCRIPTIONS, IMPLIES, NORMALS, TERMS
from training.phantom.case import CONSEQUENCES, SIMULATED, draw_case
from training.phantom.protocol import draw_protocol
from training.phantom.report import write_report
from training.phantom.types import Case, Finding

BLEED = "vascular_hemorrhagic_intracranial_hemorrhage"
IVH = "vascular_hemorrhagic_intraventricular_hemorrhage"
SAH = "vascular_hemorrhagic_subarachnoid_hemorrahage"
SDH = "trauma_subdural_hematoma"
CONTUSION = "trauma_brain_contusion"
INFARCT = "vascular_ischemic_large_vessel_stroke"
LACUNE = "vascular_ischemic_lacunar_stroke"
SVD = "vascular_ischemic_small_vessel_disease"
ANEURYSM = "vascular_malformation_cerebral_aneurysm"
AVM = "vascular_malformation_arteriovenous_malformation"
CAVERNOMA = "vascular_malformation_cavernoma"
MENINGIOMA = "tumor_adult_meningioma"
GLIOMA = "tumor_adult_glioma"
HIGH = "tumor_adult_high_grade_glioma"
LOW = "tumor_adult_low_grade_glioma"
METASTASIS = "tumor_adult_brain_metastasis"
LYMPHOMA = "tumor_adult_lymphoma"
SCHWANNOMA = "tumor_adult_schwannoma"
ABSCESS = "infectious_brain_abscess"
ENCEPHALITIS = "infectious_viral_encephalitis"
MS = "inflammatory_multiple_sclerosis"
ADENOMA = "sellar_pituitary_adenoma"
ATROPHY = "structural_cerebral_atrophy"
CHIARI = "structural_chiari_malformation"
EDEMA = "structural_edema"
MASS_EFFECT = "structural_mass_effect"
SHIFT = "structural_midline_shift"
HERNIATION = "structural_brain_herniation"
ENCEPHALOMALACIA = "structural_encephalomalacia"
CATHETER = "surgical_catheter"
CRANIOTOMY = "surgical_craniotomy"
CAVITY = "surgical_resection_cavity"
VENTRICLES = "ventricular_ventriculomegaly"
COLLOID = "cyst_colloid_cyst"
ARACHNOID = "cyst_arachnoid_cyst"

# Sentence → findings said to be present (+), absent (-), uncertain (?) or left open (~); nothing else is named.
SENTENCES: list[tuple[str, str, tuple[str, ...]]] = [
    # stated
    ("There is a 2.3 cm left frontal convexity meningioma with a dural tail.", "+", (MENINGIOMA,)),
    ("Large right MCA territory infarct with haemorrhagic transformation.", "++", (INFARCT, BLEED)),
    ("Acute lacunar infarction of the left thalamus.", "+", (LACUNE,)),
    ("Multiple lacunes in both basal ganglia.", "+", (LACUNE,)),
    ("Scattered T2 hyperintensities, in keeping with small-vessel disease (Fazekas 2).", "+", (SVD,)),
    ("Marked vasogenic oedema surrounds the tumour.", "+", (EDEMA,)),
    ("Acute-on-chronic subdural haematoma, 14 mm, with 6 mm of midline shift to the left.", "++", (SDH, SHIFT)),
    ("Multiple ring-enhancing lesions, most consistent with metastases.", "+", (METASTASIS,)),
    ("Findings are most compatible with a glioblastoma.", "++", (HIGH, GLIOMA)),
    ("Anaplastic oligodendroglioma, WHO grade 3.", "++", (HIGH, GLIOMA)),
    ("Communicating hydrocephalus.", "+", (VENTRICLES,)),
    ("The lateral ventricles are mildly dilated.", "+", (VENTRICLES,)),
    ("Right frontal VP shunt catheter with its tip in the third ventricle.", "+", (CATHETER,)),
    ("Sequelae of right pterional craniotomy.", "+", (CRANIOTOMY,)),
    ("Generalised cerebral atrophy advanced for age.", "+", (ATROPHY,)),
    ("Cerebellar tonsils extend 9 mm below the foramen magnum.", "+", (CHIARI,)),
    ("Popcorn lesion of the pons, typical for a cavernous angioma.", "+", (CAVERNOMA,)),
    ("Dawson's fingers and juxtacortical lesions.", "+", (MS,)),
    ("Pituitary macroadenoma displacing the chiasm.", "+", (ADENOMA,)),
    ("Left vestibular schwannoma likely.", "+", (SCHWANNOMA,)),
    ("IMPRESSION: 1. Acute SAH. 2. No edema. 3. Basilar tip aneurysm.", "++-+", (SAH, BLEED, EDEMA, ANEURYSM)),
    # denied
    ("No acute infarct, intracranial hemorrhage, or mass effect.", "-----", (INFARCT, BLEED, IVH, SAH, MASS_EFFECT)),
    ("No hemorrhage, mass effect or midline shift.", "-----", (BLEED, IVH, SAH, MASS_EFFECT, SHIFT)),
    ("There is no evidence of acute ischaemia.", "-", (INFARCT,)),
    ("Negative for hydrocephalus.", "-", (VENTRICLES,)),
    ("Without midline shift or herniation.", "--", (SHIFT, HERNIATION)),
    ("No intracranial aneurysm or arteriovenous malformation is identified.", "--", (ANEURYSM, AVM)),
    ("Mass effect and midline shift are absent.", "--", (MASS_EFFECT, SHIFT)),
    ("Hydrocephalus is not seen.", "-", (VENTRICLES,)),
    ("A brain abscess has been excluded.", "-", (ABSCESS,)),
    ("The previously described subdural haematoma has resolved.", "-", (SDH,)),
    ("The subdural collection is no longer visible.", "-", (SDH,)),
    ("Interval resolution of vasogenic edema.", "-", (EDEMA,)),
    ("The ventricles are not enlarged.", "-", (VENTRICLES,)),
    ("The midline is not displaced.", "-", (SHIFT,)),
    ("Intracranial aneurysm: none.", "-", (ANEURYSM,)),
    ("Neither hemorrhage nor infarction.", "----", (BLEED, IVH, SAH, INFARCT)),
    ("No mass lesion suspicious for metastasis.", "-", (METASTASIS,)),
    ("Findings are not typical of lymphoma.", "-", (LYMPHOMA,)),
    ("Lymphoma is unlikely.", "-", (LYMPHOMA,)),
    ("There is no convincing evidence for demyelination.", "-", (MS,)),
    ("No hydrocephalus, atrophy, edema.", "---", (VENTRICLES, ATROPHY, EDEMA)),
    ("No residual or recurrent glioma.", "---", (GLIOMA, HIGH, LOW)),
    ("No hemorrhage in the brainstem, infarct or mass effect.", "-----", (BLEED, IVH, SAH, INFARCT, MASS_EFFECT)),
    ("Brain: No hemorrhage.", "---", (BLEED, IVH, SAH)),
    ("Demyelination rather than small vessel disease.", "+-", (MS, SVD)),
    ("Volume loss is not greater than expected for age.", "-", (ATROPHY,)),
    ("No restricted diffusion to suggest acute infarct.", "-", (INFARCT,)),
    # both
    ("No hemorrhage but a meningioma of the falx.", "---+", (BLEED, IVH, SAH, MENINGIOMA)),
    ("No hydrocephalus; stable right parietal encephalomalacia.", "-+", (VENTRICLES, ENCEPHALOMALACIA)),
    ("Meningioma without surrounding oedema.", "+-", (MENINGIOMA, EDEMA)),
    ("No oedema around the meningioma.", "-+", (EDEMA, MENINGIOMA)),
    ("No hemorrhage in the resection cavity.", "---+", (BLEED, IVH, SAH, CAVITY)),
    ("No acute infarct, however there is an old left cerebellar infarct.", "+", (INFARCT,)),
    ("No edema, and there is a small cavernoma in the left temporal lobe.", "-+", (EDEMA, CAVERNOMA)),
    ("No hydrocephalus, right frontal meningioma.", "-+", (VENTRICLES, MENINGIOMA)),
    ("No enhancement, compatible with low-grade glioma.", "++", (LOW, GLIOMA)),
    ("There is an arachnoid cyst and hydrocephalus is not seen.", "+-", (ARACHNOID, VENTRICLES)),
    ("Infarct of the left insula with edema; hemorrhage is absent.", "++---", (INFARCT, EDEMA, BLEED, IVH, SAH)),
    ("Aside from mild atrophy, no mass effect.", "+-", (ATROPHY, MASS_EFFECT)),
    # compared
    ("Stable meningioma.", "+", (MENINGIOMA,)),
    ("No interval change in size of the known colloid cyst.", "+", (COLLOID,)),
    ("The aneurysm is not enlarged.", "+", (ANEURYSM,)),
    ("Left frontal glioma without significant interval change.", "+", (GLIOMA,)),
    ("Known multiple sclerosis, no new plaques.", "+", (MS,)),
    ("No new metastases.", "~", (METASTASIS,)),
    ("No new infarct or hemorrhage.", "~~", (INFARCT, BLEED)),
    ("Unchanged ventriculostomy catheter, and unchanged ventriculomegaly.", "++", (CATHETER, VENTRICLES)),
    ("A cavernoma, not previously seen, lies in the pons.", "+", (CAVERNOMA,)),
    ("No significant change in the left frontal meningioma or the surrounding edema.", "++", (MENINGIOMA, EDEMA)),
    ("Decreased but persistent hydrocephalus.", "+", (VENTRICLES,)),
    # uncertain
    ("Possible small aneurysm of the left MCA bifurcation.", "?", (ANEURYSM,)),
    ("Subarachnoid haemorrhage cannot be excluded.", "??", (SAH, BLEED)),
    ("Cannot exclude a small infarct.", "?", (INFARCT,)),
    ("Lesion suspicious for lymphoma.", "?", (LYMPHOMA,)),
    ("High-grade glioma versus lymphoma.", "???", (HIGH, GLIOMA, LYMPHOMA)),
    ("Glioblastoma vs. abscess.", "???", (HIGH, GLIOMA, ABSCESS)),
    ("?Meningioma.", "?", (MENINGIOMA,)),
    ("Meningioma?", "?", (MENINGIOMA,)),
    ("Enhancing mass, a metastasis or an abscess.", "??", (METASTASIS, ABSCESS)),
    ("Differential diagnosis includes lymphoma, metastasis and abscess.", "???", (LYMPHOMA, METASTASIS, ABSCESS)),
    ("This may represent encephalitis.", "?", (ENCEPHALITIS,)),
    ("Early hydrocephalus is not excluded.", "?", (VENTRICLES,)),
    ("The intraventricular hemorrhage has almost completely resolved.", "??", (IVH, BLEED)),
    ("Most likely a cavernoma, less likely a metastasis.", "+?", (CAVERNOMA, METASTASIS)),
    # nothing said of today's images
    ("The ventriculostomy catheter has been removed.", "~", (CATHETER,)),
    ("Craniotomy for resection of meningioma.", "+~", (CRANIOTOMY, MENINGIOMA)),
    ("Status post resection of a left frontal glioblastoma with resection cavity.", "~~+", (HIGH, GLIOMA, CAVITY)),
    ("History of breast cancer, rule out metastases.", "~", (METASTASIS,)),
    ("Follow-up for known aneurysm is advised in the clinic.", "~", (ANEURYSM,)),
    ("INDICATION: Rule out stroke, known multiple sclerosis.", "", ()),
    ("Clinical history: headache, ?SAH.", "", ()),
    ("Technique: stroke protocol, MRI without contrast.", "", ()),
    # other things by the same words
    ("C5/6 disc herniation.", "", ()),
    ("Multiple calvarial metastases.", "", ()),
    ("Scalp oedema and mucosal oedema of the sinuses.", "", ()),
    ("Left optic nerve atrophy.", "", ()),
    ("The sulci and ventricles are prominent.", "+", (ATROPHY,)),
]  # fmt: skip
SIGNS = {"+": Said.PRESENT, "-": Said.ABSENT, "?": Said.UNCERTAIN, "~": Said.NOTHING}


@pytest.mark.parametrize(("sentence", "signs", "keys"), SENTENCES, ids=[sentence[:50] for sentence, _, _ in SENTENCES])
def test_a_sentence_says(sentence: str, signs: str, keys: tuple[str, ...]) -> None:
    expected = dict(zip(keys, (SIGNS[sign] for sign in signs), strict=True))
    assert said_in(sentences(sentence)) == expected


REPORT = """EXAM: MRI BRAIN WITHOUT AND WITH CONTRAST

INDICATION: 63-year-old with headache, evaluate for metastatic
disease. Known meningioma.

FINDINGS:
There is no evidence of acute infarct,
hemorrhage, mass effect, or midline
shift. Multiple enhancing lesions, the largest in the left
cerebellum measuring 1.4 cm, consistent with metastases.

IMPRESSION:
1. Multiple intracranial metastases.
2. No hydrocephalus.
"""


def test_wrapped_lines_are_sentences_again_and_the_reason_for_the_examination_is_left_out() -> None:
    told = sentences(REPORT)
    assert told == (
        "There is no evidence of acute infarct, hemorrhage, mass effect, or midline shift.",
        "Multiple enhancing lesions, the largest in the left cerebellum measuring 1.4 cm, consistent with metastases.",
        "Multiple intracranial metastases.",
        "No hydrocephalus.",
    )
    labels = label_report(REPORT).diagnosis
    assert {key for key, present in labels.items() if present} == {METASTASIS}


@pytest.mark.parametrize(
    "text",
    [
        "THERE IS NO ACUTE INTRACRANIAL HEMORRHAGE OR EVIDENCE FOR AN ACUTE TERRITORIAL\nINFARCT.",
        "There is no evidence of an\nAVM or infarct.",
        "no hemorrhage or\ninfarct",
    ],
)
def test_a_no_is_not_lost_at_the_end_of_a_line(text: str) -> None:
    assert set(said_in(sentences(text)).values()) == {Said.ABSENT}


def test_lines_without_full_stops_stay_apart() -> None:
    text = "no hemorrhage\nmeningioma left frontal\nstable atrophy"
    assert unwrapped(text) == text
    said = said_in(sentences(text))
    assert (said[BLEED], said[MENINGIOMA], said[ATROPHY]) == (Said.ABSENT, Said.PRESENT, Said.PRESENT)


def test_a_section_without_findings_heading_ends_with_its_line() -> None:
    items = ("Technique: axial T2.", "There is a meningioma.", "Impression: meningioma.")
    assert sentences("\n".join(items)) == items[1:]
    assert sentences("CLINICAL HISTORY\nStroke?\nREPORT\nNo infarct.") == ("No infarct.",)


def test_what_uncertain_and_unmentioned_count_as_is_a_setting() -> None:
    text = "Possible aneurysm. No hydrocephalus. No new metastases. There is a meningioma."
    default = label_report(text).diagnosis
    assert {key for key, present in default.items() if present} == {MENINGIOMA}
    assert set(TERMS) - set(default) == {ANEURYSM, METASTASIS}
    for uncertain, expected in (("positive", True), ("negative", False)):
        assert label_report(text, RuleSettings(uncertain)).diagnosis[ANEURYSM] is expected  # type: ignore[arg-type]
    said = label_report(text, RuleSettings(unmentioned="unknown")).diagnosis
    assert said == {MENINGIOMA: True, VENTRICLES: False}


def test_a_report_that_says_nothing_of_the_images_gives_no_labels() -> None:
    assert label_reports({"a": StudyReport(()), "b": StudyReport(("Indication: stroke.",))}) == {
        "a": label_report(""),
        "b": label_report(""),
    }
    assert label_report("").diagnosis == {}


def test_a_normal_study_denies_everything() -> None:
    labels = label_report("Normal MRI of the brain.", RuleSettings(unmentioned="unknown")).diagnosis
    assert labels == dict.fromkeys(TERMS, False)
    assert label_report("Not a normal MRI.", RuleSettings(unmentioned="unknown")).diagnosis == {}


def test_what_is_there_outweighs_what_another_sentence_denies() -> None:
    assert said_in(["No acute infarct.", "Old infarct of the left insula."]) == {INFARCT: Said.PRESENT}
    assert said_in(["No glioma.", "High-grade glioma is suspected."])[GLIOMA] is Said.UNCERTAIN
    assert said_in(["No high-grade glioma."]) == {HIGH: Said.ABSENT}


def test_the_tables_name_findings_that_have_terms() -> None:
    named = {*DESCRIPTIONS, *IMPLIES, *IMPLIES.values(), *(key for keys in NORMALS.values() for key in keys)}
    assert named <= set(TERMS)
    for key, words in TERMS.items():
        for word in words:
            assert said_in([f"There is {word}."])[key] is Said.PRESENT, word
            assert said_in([f"There is no {word}."])[key] is Said.ABSENT, word


def phantoms(count: int) -> list[Case]:
    """Cases as they are drawn, every third with what may follow from its findings."""
    attributes = {"structural_edema": {"grade": "moderate"}, "structural_brain_herniation": {"type": "subfalcine"}}
    drawn = []
    for seed in range(count):
        case = draw_case(seed)
        if case.findings and seed % 3 == 0:
            kinds = [CONSEQUENCES[(seed + step) % len(CONSEQUENCES)] for step in range(1 + seed % 2)]
            more = [
                Finding((kind,), kind, "left", "", 7.0 if "shift" in kind else 0.0, 1, attributes.get(kind, {}))
                for kind in dict.fromkeys(kinds)
            ]
            case = replace(case, findings=(*case.findings, *more))
        drawn.append(case)
    return drawn


def test_phantom_reports_are_labelled_as_they_were_simulated() -> None:
    """Mean F1 over the simulated findings; a present finding left unknown counts as missed."""
    hit, said, true = (dict.fromkeys(SIMULATED, 0) for _ in range(3))
    for case in phantoms(150):
        generator = np.random.default_rng([case.seed, 7])
        protocol = draw_protocol(generator, "home" if case.seed % 2 else "away")
        report = write_report(case, protocol, generator, follow_up=case.seed % 7 == 0)
        labels = label_reports({"s": report})["s"].diagnosis
        for key in SIMULATED:
            present = labels.get(key, False)
            said[key] += present
            true[key] += key in case.diagnoses
            hit[key] += present and key in case.diagnoses
    scores = {key: 2 * hit[key] / (said[key] + true[key]) for key in SIMULATED if true[key]}
    assert len(scores) > 25
    assert np.mean(list(scores.values())) > 0.95, scores
    assert min(scores.values()) > 0.75, scores
