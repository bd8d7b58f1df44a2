"""Rules on report text: sentences in the manner of real reports by hand, and phantom reports whose truth is known.

The sentences were written for this table. Phantom reports are simulated: how well the rules do on them says little about
a hospital's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.base.cohort import StudyReport
from training.labels.rules import RuleSettings, Said, label_report, label_reports, said_in
from training.labels.sentences import sentences, unwrapped
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
    ("IMPRESSION: 1. Acute SAH. 2. No hydrocephalus. 3. Basilar tip aneurysm.", "++-+", (SAH, BLEED, VENTRICLES, ANEURYSM)),
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
    ("Unchanged position of the ventriculostomy catheter, and unchanged ventriculomegaly.", "++", (CATHETER, VENTRICLES)),
    ("A cavernoma, not previously seen, lies in the pons.", "+", (CAVERNOMA,)),
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
    # nothing said of today's images
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
