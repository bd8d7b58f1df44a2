"""The words that each diagnosis goes by in reports: for rules, and for prompts. The first is the plainest.

Written from the diagnoses' common names and from how reports describe them; nothing here is a code. Infarcts are of two
kinds here: an infarct that is not called lacunar counts as one of a large vessel.
"""

from __future__ import annotations

from collections.abc import Mapping

TERMS: Mapping[str, tuple[str, ...]] = {
    "cyst_arachnoid_cyst": ("arachnoid cyst",),
    "cyst_colloid_cyst": ("colloid cyst",),
    "developmental_dandy_walker_malformation": ("Dandy-Walker malformation", "Dandy-Walker syndrome", "Dandy-Walker"),
    "developmental_dysgenesis_corpus_callosum": (
        "dysgenesis of the corpus callosum",
        "agenesis of the corpus callosum",
        "callosal dysgenesis",
        "callosal agenesis",
    ),
    "developmental_heterotopia": ("gray matter heterotopia", "grey matter heterotopia", "heterotopia"),
    "infectious_brain_abscess": ("brain abscess", "cerebral abscess", "abscess"),
    "infectious_viral_encephalitis": ("viral encephalitis", "herpes encephalitis", "encephalitis"),
    "inflammatory_multiple_sclerosis": (
        "multiple sclerosis",
        "demyelinating disease",
        "demyelinating lesions",
        "demyelinating plaques",
        "demyelination",
    ),
    "inflammatory_neurosarcoid": ("neurosarcoidosis", "neurosarcoid"),
    "sellar_craniopharyngioma": ("craniopharyngioma",),
    "sellar_pituitary_adenoma": ("pituitary adenoma", "pituitary macroadenoma", "pituitary microadenoma"),
    "sellar_rathkes_cleft_cyst": ("Rathke's cleft cyst", "Rathke cleft cyst"),
    "spine_syrinx": ("syrinx", "syringomyelia"),
    "structural_brain_herniation": ("brain herniation", "herniation", "uncal herniation", "tonsillar herniation"),
    "structural_cephaloceles": ("cephalocele", "encephalocele", "meningocele"),
    "structural_cerebral_atrophy": ("cerebral atrophy", "brain atrophy", "cerebral volume loss", "atrophy"),
    "structural_chiari_malformation": ("Chiari malformation", "Chiari I malformation", "Chiari"),
    "structural_edema": ("edema", "oedema", "vasogenic edema"),
    "structural_encephalomalacia": ("encephalomalacia",),
    "structural_mass_effect": ("mass effect",),
    "structural_midline_shift": ("midline shift", "shift of the midline"),
    "surgical_catheter": ("ventricular catheter", "ventriculostomy catheter", "shunt catheter", "catheter"),
    "surgical_craniotomy": ("craniotomy", "craniectomy"),
    "surgical_resection_cavity": ("resection cavity", "surgical cavity"),
    "trauma_brain_contusion": ("brain contusion", "cerebral contusion", "hemorrhagic contusion", "contusion"),
    "trauma_diffuse_axonal_injury": ("diffuse axonal injury", "axonal injury", "shear injury"),
    "trauma_subdural_hematoma": (
        "subdural hematoma",
        "subdural haematoma",
        "subdural hemorrhage",
        "subdural collection",
    ),
    "tumor_adult_brain_metastasis": (
        "brain metastasis",
        "brain metastases",
        "metastatic disease",
        "metastasis",
        "metastases",
    ),
    "tumor_adult_glioma": ("glioma", "astrocytoma", "glioblastoma", "oligodendroglioma"),
    "tumor_adult_high_grade_glioma": ("high-grade glioma", "high grade glioma", "glioblastoma"),
    "tumor_adult_low_grade_glioma": ("low-grade glioma", "low grade glioma", "oligodendroglioma"),
    "tumor_adult_lymphoma": ("lymphoma", "CNS lymphoma"),
    "tumor_adult_meningioma": ("meningioma",),
    "tumor_adult_pineal_tumor": ("pineal tumor", "pineal mass", "pineocytoma", "pineoblastoma"),
    "tumor_adult_schwannoma": ("schwannoma", "acoustic neuroma", "vestibular schwannoma"),
    "tumor_pediatric_brainstem_glioma": ("brainstem glioma", "brain stem glioma", "diffuse intrinsic pontine glioma"),
    "tumor_pediatric_ependymoma": ("ependymoma",),
    "tumor_pediatric_germ_cell_tumor": ("germ cell tumor", "germinoma"),
    "tumor_pediatric_medulloblastoma": ("medulloblastoma",),
    "tumor_pediatric_pilocytic_astrocytoma": ("pilocytic astrocytoma",),
    "vascular_hemorrhagic_intracranial_hemorrhage": (
        "intracranial hemorrhage",
        "intracranial haemorrhage",
        "intraparenchymal hemorrhage",
        "intracerebral hemorrhage",
        "parenchymal hematoma",
    ),
    "vascular_hemorrhagic_intraventricular_hemorrhage": ("intraventricular hemorrhage", "intraventricular haemorrhage"),
    "vascular_hemorrhagic_subarachnoid_hemorrahage": ("subarachnoid hemorrhage", "subarachnoid haemorrhage"),
    "vascular_ischemic_lacunar_stroke": ("lacunar infarct", "lacunar stroke", "lacune", "lacunar infarction"),
    "vascular_ischemic_large_vessel_stroke": (
        "large vessel stroke",
        "territorial infarct",
        "artery infarct",
        "artery territory infarct",
        "artery stroke",
    ),
    "vascular_ischemic_moyamoya": ("moyamoya", "moyamoya disease"),
    "vascular_ischemic_small_vessel_disease": (
        "small vessel disease",
        "microangiopathy",
        "chronic microvascular ischemic changes",
        "small vessel ischemic disease",
        "leukoaraiosis",
    ),
    "vascular_malformation_arteriovenous_malformation": ("arteriovenous malformation", "AVM"),
    "vascular_malformation_cavernoma": ("cavernoma", "cavernous malformation", "cavernous hemangioma"),
    "vascular_malformation_cerebral_aneurysm": ("cerebral aneurysm", "intracranial aneurysm", "aneurysm"),
    "ventricular_intracranial_hypotension": ("intracranial hypotension",),
    "ventricular_ventriculomegaly": ("ventriculomegaly", "hydrocephalus", "ventricular enlargement"),
}

# What reports say of a finding without its name: regular expressions on text as `rules.plain` leaves it (lower case,
# American spelling, no hyphens).
DESCRIPTIONS: Mapping[str, tuple[str, ...]] = {
    "cyst_arachnoid_cyst": ("extra ?axial (csf (intensity |signal )?)?cysts?",),
    "developmental_dysgenesis_corpus_callosum": (
        "(dysgenesis|agenesis|hypogenesis|hypoplasia) of (the )?corpus callosum",
        "corpus callosum is (not )?((partially|partly) )?(absent|incompletely formed|dysgenetic)",
    ),
    "inflammatory_multiple_sclerosis": (
        "demyelinat(ing|ed|ion)( (white matter )?(lesion|plaque|disease|process|change|foc)(s|es|us|i)?)?",
        "dawson fingers?( lesions?)?",
        "ovoid (periventricular )?white matter lesions?",
        "ms (lesion|plaque)s?",
    ),
    "inflammatory_neurosarcoid": ("(leptomeningeal|intracranial|cerebral) sarcoid(osis)?",),
    "sellar_pituitary_adenoma": (
        "(macro|micro)?adenomas?",
        "pituitary neuroendocrine tumors?( pitnet)?",
        "pitnets?",
    ),
    "spine_syrinx": ("syringes", "syringohydromyelia", "hydromyelia"),
    "structural_brain_herniation": ("herniates?",),
    "structural_cephaloceles": ("meningoencephaloceles?",),
    "structural_cerebral_atrophy": (
        "volume loss",
        "involutional changes?",
        "(prominen(ce|t)|widen(ing|ed)|enlarge(ment|d))( of)?( the)? (ventricles and sulci|sulci and ventricles)",
        "(ventricles and sulci|sulci and ventricles) are (\\w+ )?(prominent|widened|enlarged)( due to atrophy)?",
    ),
    "structural_chiari_malformation": (
        "tonsillar (ectopia|descent)",
        "(low lying|peg like),? (peg like |low lying )?(cerebellar )?tonsils?",
        "tonsils? (extend|lie|descend|project|reach)s?[^.;,]{0,30} below the foramen magnum",
    ),
    "structural_edema": ("edematous", "(brain|cerebral|gyral) swelling"),
    "structural_encephalomalacia": ("encephalomalacic( changes?)?", "parenchymal defect", "tissue loss"),
    "structural_mass_effect": (
        "(sulcal|ventricular) (effacement|compression)( and mass effect)?",
        "(effacement|compression) of (the )?(\\w+ ){0,3}(ventricles?|sulcus|sulci|horns?|cisterns?)",
    ),
    "structural_midline_shift": (
        "midline (structures )?(is|are) (not )?(\\w+ly )?(shifted|displaced|deviated)",
        "(shift(ing)?|displacement|deviation) of (the )?(midline|septum pellucidum)( structures)?",
        "(right|left)ward (midline )?shift",
        "midline (displacement|deviation)",
    ),
    "surgical_catheter": (
        "(ventriculoperitoneal|ventriculoatrial|vp|va) shunts?( (catheter|tube)s?)?",
        "external (ventricular )?drains?",
        "ventricul(ar drain|ostomy)( (catheter|tube))?",
        "shunt tubes?",
        "evd",
    ),
    "surgical_craniotomy": ("cranioplasty",),
    "surgical_resection_cavity": (
        "(operative|postoperative|postsurgical) cavity",
        "resection bed",
        "post resection(?! of)[^.;]{0,60} cavity",
    ),
    "trauma_diffuse_axonal_injury": ("shear(ing)? injur(y|ies)", "dai"),
    "trauma_subdural_hematoma": (
        "subdural (fluid |blood )?(hematoma|hemorrhage|collection|bleed)s?( of blood)?",
        "subdural blood",
        "sdhs?",
    ),
    "tumor_adult_brain_metastasis": ("metastatic (brain )?(lesion|deposit|focus|foci|tumor|mass)(s|es)?",),
    "tumor_adult_glioma": ("glial (series )?(tumor|neoplasm)s?", "gliomatosis( cerebri)?"),
    "tumor_adult_high_grade_glioma": (
        "high grade (glial (tumor|neoplasm)|astrocytoma)s?",
        "anaplastic (astrocytoma|oligodendroglioma)s?",
        "grade (iii|iv|3|4) (glioma|astrocytoma|oligodendroglioma)s?",
        "gbm",
    ),
    "tumor_adult_low_grade_glioma": (
        "low grade (glial (tumor|neoplasm)|astrocytoma)s?",
        "diffuse astrocytomas?",
        "grade (ii|2) (glioma|astrocytoma|oligodendroglioma)s?",
    ),
    "tumor_adult_lymphoma": ("lymphomatous (mass|lesion|deposit|infiltration)(s|es)?",),
    "tumor_adult_pineal_tumor": ("pineal (region )?(tumor|mass|neoplasm)(s|es)?",),
    "tumor_adult_schwannoma": ("(acoustic )?neurinomas?", "nerve sheath tumors?"),
    "tumor_pediatric_brainstem_glioma": ("(diffuse )?(midline|pontine) gliomas?", "dipg"),
    "vascular_hemorrhagic_intracranial_hemorrhage": (
        "h(emorrhages?|emorrhagic (transformation|conversion|stroke))",
        "bleed(s|ing)?|ich",
        "(intra ?parenchymal|parenchymal|intra ?cerebral|cerebral|lobar|intra ?cranial|intra ?axial|cerebellar|thalamic"
        "|basal ganglia|epidural|extradural) (\\w+ )?(hematoma|hemorrhage|bleed)s?",
    ),
    "vascular_hemorrhagic_intraventricular_hemorrhage": (
        "(intra ?)?ventricular (blood|bleed|clot|hemorrhage)s?",
        "intra ?ventricular extension",
        "(blood|hemorrhage) (layering )?(with)?in the (\\w+ )?(ventricles?|occipital horns?)",
        "ivh",
    ),
    "vascular_hemorrhagic_subarachnoid_hemorrahage": (
        "subarachnoid (blood|bleed|hemorrhage)s?",
        "(blood|hemorrhage) (with)?in the (basal cisterns|sulci)",
        "sah",
    ),
    "vascular_ischemic_lacunar_stroke": (
        "lacun(e|es|ar (type )?(infarct(ion)?|stroke|ischemia|lesion)s?)",
        "small vessel infarct(ion)?s?",
    ),
    "vascular_ischemic_large_vessel_stroke": (
        "infarct(ion)?s?",
        "(large vessel )?(ischemic )?strokes?",
        "ischemi(a|c (event|lesion|insult|change)s?)",
    ),
    "vascular_ischemic_small_vessel_disease": (
        "(small|micro) ?(vessel|vascular) (type )?(ischemic )?(disease|change|ischemia|angiopathy)s?",
        "microangiopath(y|ic)( white matter)?( (disease|change|lesion)s?)?",
        "microvascular",
        "(age related|chronic ischemic) white matter (changes?|disease|lesions?)",
        "fazekas (grade )?[123i]+",
    ),
    "vascular_malformation_cavernoma": ("cavernous (angioma|malformation|hemangioma)s?",),
    "vascular_malformation_cerebral_aneurysm": ("aneurysmal (dilatation|sac|outpouching)",),
    "ventricular_ventriculomegaly": (
        "(enlargement|dilat(at)?ion|prominence) of (the )?((?!sulci)\\w+ ){0,3}ventric(les?|ular system)",
        "ventricular (dilat(at)?ion|enlargement|prominence)",
        "ventric(les?|ular system) (is|are|appears?) (not )?(\\w+ly )?(dilated|enlarged)",
        "(dilated|enlarged) (\\w+ ){0,3}ventric(les?|ular system)",
        "hydrocephalic",
    ),
}

# Phrases that hold a word from above and mean something that has no key here.
OTHER_THINGS: tuple[str, ...] = (
    "(venous|punctate|splenic|bone) infarct(ion)?s?",
    "(lung|pulmonary|liver|hepatic|bone|bony|osseous|calvarial|skull|spinal|vertebral|nodal|marrow) "
    "metasta(sis|ses|tic (disease|lesions?|deposits?))",
    "(disc|disk|hiatal|orbital fat) herniations?",
    "(optic|optic nerve|hippocampal|cerebellar|brainstem|muscle|multiple system|mesial temporal) atrophy",
    "(hippocampal|focal|local|cerebellar|mesial temporal) volume loss",
    "(scalp|soft tissue|subcutaneous|mucosal|bone marrow|marrow|orbital|periorbital|optic disc) (edema|contusion)",
    "(epidural|dental|periodontal|tonsillar|orbital|subperiosteal|scalp) abscess(es)?",
    "(aortic|septal|atrial septal|carotid bulb) aneurysms?",
    "(central venous|urinary) catheters?|catheter angiogra(phy|m)",
    "(scalp|subgaleal|retinal|vitreous|gastrointestinal|spinal) (hemorrhage|hematoma|bleed)s?",
    "ex vacuo (dilat(at)?ion|enlargement)( of (the )?(\\w+ ){0,3}ventric(les?|ular system))?",
    "(pleomorphic|parotid|adrenal|parathyroid|thyroid) adenomas?",
    "(micro|petechial )hemorrhages?",
    "heat stroke|stroke (protocol|team|alert|code)|code stroke",
)

# Statements that all is well somewhere, and of which findings that is said; none named: of all.
NORMALS: Mapping[str, tuple[str, ...]] = {
    r"^((impression|conclusion|summary|opinion): )?(normal|unremarkable) (brain |head )?"
    r"(mri|mr|mr imaging|study|examination|scan)( of the (brain|head))?( for age)?\W*$": (),
    "ventric(les|ular system)[^.;,]{0,40} (normal|unremarkable|age appropriate)|normal (size of the ventricles|"
    "ventric(les|ular system))": ("ventricular_ventriculomegaly",),
    "(brain|cerebral) volume is (normal|appropriate|preserved)": ("structural_cerebral_atrophy",),
    "sulci (and gyri )?are (normal|age appropriate)": ("structural_cerebral_atrophy",),
    "tonsils are (in normal position|normal|normally positioned)|craniocervical junction is (normal|unremarkable)": (
        "structural_chiari_malformation",
    ),
    "midline (structures )?(is|are) (in place|centered|midline|in normal position)|midline is maintained": (
        "structural_midline_shift",
    ),
    "(sella|pituitary( gland)?) (is|are) (normal|unremarkable)|normal (appearance of the )?pituitary": (
        "sellar_pituitary_adenoma",
    ),
}

# A finding that is a case of another one.
IMPLIES: Mapping[str, str] = {
    "tumor_adult_high_grade_glioma": "tumor_adult_glioma",
    "tumor_adult_low_grade_glioma": "tumor_adult_glioma",
    "vascular_hemorrhagic_intraventricular_hemorrhage": "vascular_hemorrhagic_intracranial_hemorrhage",
    "vascular_hemorrhagic_subarachnoid_hemorrahage": "vascular_hemorrhagic_intracranial_hemorrhage",
}
