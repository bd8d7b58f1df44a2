"""What reports say of each diagnosis, of what is not there, and of how the study was made: data for `report.py`.

Patterns are those of `grammar.py`. Slots of a finding: {noun} and {nouns} (one of `Wording.nouns`), {noun_a} (with its
article), {where} ("in the left frontal lobe"), {place} ("left frontal lobe"), {size}, {count} (a word, empty for one),
{largest} ("the largest in the left frontal lobe, 12 mm"; where there are several, only this says {where} one is),
{grade} ("mild", "chronic"), {sign} (one of `Wording.signs` that the study's series can show).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sign:
    """What a lesion looks like. sequence: that shows it, "" for all. when: what the finding's attributes must be."""

    sequence: str
    text: str
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Wording:
    """nouns: "one/several"; a noun without "/" is uncountable. sentences: used beside the general ones of its nouns.

    towards: the finding's side is where things are moved to, not where it lies. sized: the size is worth saying.
    """

    nouns: tuple[str, ...]
    signs: tuple[Sign, ...] = ()
    sentences: tuple[str, ...] = ()
    towards: bool = False
    sized: bool = True


# Of a single lesion with a countable name.
ONE = (
    "There is {noun_a}[ {where}][, measuring {size}][, {sign}].",
    "{noun_a}[ {where}] (measuring|of) {size}[, {sign}].",
    "{noun_a} is (seen|noted|identified|demonstrated|present)[ {where}][, {sign}].",
    "{Size} {place} {noun}[, {sign}].",
    "[{place} ]{noun}[, {size}][, {sign}].",
    "{place}: {noun}[, {size} in size][, {sign}].",
    "Lesion {where}[, {size}][, {sign}], (most likely|suspicious for|compatible with|in keeping with) {noun_a}.",
    "Findings (are consistent with|are in keeping with|are most compatible with|suggest) {noun_a}[ {where}][, {size}].",
    "(The appearance is that of|Imaging features favor) {noun_a}[ {where}][ (measuring|of up to) {size}].",
    "{noun_a}[ {where}], {sign}.[ It measures {size}.]",
)
SEVERAL = (
    "There are {count} {nouns}[ {where}][, {largest}][, {sign}].",
    "{count} {nouns}[ {where}][, {largest}][, {sign}].",
    "{count} {nouns} are (seen|noted|identified|demonstrated|present)[ {where}][, {sign}].",
    "{count} lesions[ {where}][, {largest}][, {sign}], (most likely|suspicious for|compatible with) {nouns}.",
    "Findings (are consistent with|are in keeping with|suggest) {count} {nouns}[ {where}][, {largest}].",
    "(The appearance is that of|Imaging features favor) {nouns}, {count} in number[, {largest}].",
    "{nouns}[ {where}], {count} in all[, {largest}][, {sign}].",
    "{count} {nouns}[, up to {size} in size][, {sign}].",
)
UNCOUNTABLE = (
    "There is {noun}[ {where}][, {sign}].",
    "{noun}[ {where}][, {sign}].",
    "{noun} is (seen|noted|identified|present)[ {where}][, {sign}].",
    "[{place}: ]{noun}[ of {size}][, {sign}].",
    "Findings (are consistent with|are in keeping with|suggest) {noun}[ {where}].",
    "There is evidence of {noun}[ {where}][ of {size}].",
    "(Appearance compatible with|Imaging features of|Picture of) {noun}[ {where}].",
    "{noun}[ {where}] is (evident|apparent|present)[, {size}].",
)
AGAIN = (
    "(Again seen is|Unchanged|Stable|Known) {noun}[ {where}][, {size}][, {sign}].",
    "{noun}[ {where}][, {size}], (without significant change|unchanged|stable) compared with the prior examination.",
    "(No interval change of|No change in size of) the known {noun}[ {where}][, now {size}].",
)
AGAIN_SEVERAL = (
    "(Unchanged|Stable|Known) {nouns}[ {where}][, {largest}].",
    "{nouns}[ {where}][, up to {size}], (without significant change|unchanged|stable) since the prior examination.",
)
IMPRESSION_ONE = (
    "(Impression: |Conclusion: |In summary, |){noun_a}[ {where}][, {size}].",
    "(Impression: |Conclusion: |)[{place} ]{noun}[ of {size}].",
    "(Impression: |Summary: |)findings (consistent with|compatible with|suspicious for) {noun_a}[ {where}].",
)
IMPRESSION_SEVERAL = (
    "(Impression: |Conclusion: |In summary, |){count} {nouns}[ {where}].",
    "(Impression: |Conclusion: |){nouns}[, {largest}].",
)
IMPRESSION_UNCOUNTABLE = ("(Impression: |Conclusion: |In summary, |){noun}[ {where}].",)

_T2 = Sign("T2", "hyperintense on T2")
_FLAIR = Sign("FLAIR", "hyperintense on FLAIR")
_RESTRICTED = Sign("DWI", "with restricted diffusion")
_RECENT = Sign("DWI", "with restricted diffusion", {"age": ("hyperacute", "acute")})
_DARK = Sign("T2STAR", "with susceptibility artifact")
_RING = Sign("T1C", "with ring enhancement", {"enhancement": ("ring",)})
_SOLID = Sign("T1C", "with avid homogeneous enhancement")
_ENHANCES = Sign("T1C", "with contrast enhancement")

DIAGNOSES: dict[str, Wording] = {
    "cyst_arachnoid_cyst": Wording(
        ("arachnoid cyst/arachnoid cysts", "extra-axial cyst isointense to CSF/extra-axial cysts isointense to CSF"),
        (
            Sign("T2", "following CSF signal"),
            Sign("FLAIR", "suppressed on FLAIR"),
            Sign("DWI", "without restricted diffusion"),
        ),
    ),
    "cyst_colloid_cyst": Wording(
        ("colloid cyst/colloid cysts", "third ventricular colloid cyst/third ventricular colloid cysts"),
        (Sign("T1", "hyperintense on T1", {"t1": ("hyperintense",)}),),
    ),
    "developmental_dandy_walker_malformation": Wording(
        ("Dandy-Walker malformation",),
        sentences=(
            "Enlarged posterior fossa with cystic dilatation of the fourth ventricle and hypoplastic vermis.",
            "Hypoplasia of the vermis with a large retrocerebellar cyst communicating with the fourth ventricle.",
        ),
    ),
    "developmental_dysgenesis_corpus_callosum": Wording(
        ("dysgenesis of the corpus callosum", "callosal dysgenesis"),
        sentences=(
            "The corpus callosum is (incompletely formed|thin and incomplete|partially absent).",
            "Parallel orientation of the lateral ventricles, in keeping with callosal dysgenesis.",
        ),
    ),
    "developmental_heterotopia": Wording(
        ("gray matter heterotopia", "subependymal heterotopia", "nodular heterotopia"),
        (Sign("", "isointense to cortex on all sequences"),),
    ),
    "infectious_brain_abscess": Wording(
        ("brain abscess/brain abscesses", "cerebral abscess/cerebral abscesses", "pyogenic abscess/pyogenic abscesses"),
        (
            _RESTRICTED,
            Sign("T1C", "with ring enhancement"),
            Sign("DWI", "with marked central diffusion restriction"),
            Sign("T2", "with a T2 dark rim"),
        ),
    ),
    "infectious_viral_encephalitis": Wording(
        ("encephalitis", "viral encephalitis", "herpes encephalitis"),
        (_FLAIR, Sign("T2", "with cortical swelling")),
        (
            "Swelling and signal increase of the mesial temporal lobe[ {where}], suggestive of viral encephalitis.",
            "Cortical and subcortical signal abnormality[ {where}], encephalitis is favored.",
        ),
    ),
    "inflammatory_multiple_sclerosis": Wording(
        (
            "demyelinating lesion/demyelinating lesions",
            "demyelinating plaque/demyelinating plaques",
            "ovoid white matter lesion/ovoid white matter lesions",
        ),
        (
            _FLAIR,
            Sign("T2", "oriented perpendicular to the ventricles"),
            Sign("", "typical of multiple sclerosis"),
            Sign("T1C", "with enhancement of active plaques", {"enhancement": ("active",)}),
        ),
        (
            "Periventricular and juxtacortical white matter lesions, (typical of|consistent with) multiple sclerosis.",
            "Demyelinating disease: multiple (periventricular|callososeptal) plaques[, up to {size}].",
            "Dawson finger lesions[, up to {size}], in keeping with multiple sclerosis.",
            "White matter lesions fulfilling criteria of dissemination in space for multiple sclerosis.",
        ),
    ),
    "inflammatory_neurosarcoid": Wording(
        ("neurosarcoidosis", "leptomeningeal sarcoidosis"), (Sign("T1C", "with leptomeningeal enhancement"),)
    ),
    "sellar_craniopharyngioma": Wording(
        ("craniopharyngioma/craniopharyngiomas", "suprasellar craniopharyngioma/suprasellar craniopharyngiomas"),
        (Sign("", "with cystic and solid components"), _ENHANCES),
    ),
    "sellar_pituitary_adenoma": Wording(
        (
            "pituitary adenoma/pituitary adenomas",
            "pituitary neuroendocrine tumor/pituitary neuroendocrine tumors",
            "sellar mass/sellar masses",
        ),
        (Sign("T1C", "enhancing less than the gland"), Sign("", "enlarging the sella")),
        ("Enlarged pituitary with a mass[ of {size}], (consistent with|most likely) adenoma.",),
    ),
    "sellar_rathkes_cleft_cyst": Wording(
        ("Rathke's cleft cyst/Rathke's cleft cysts", "Rathke cleft cyst/Rathke cleft cysts"),
        (Sign("T1C", "without enhancement"),),
    ),
    "spine_syrinx": Wording(
        ("syrinx/syringes",),
        sentences=(
            "(Fluid-filled cavity in|Syrinx of|Central cavitation of) the upper cervical cord.",
            "Syringomyelia of the (imaged|visible|partly included) upper cervical cord.",
        ),
    ),
    "structural_brain_herniation": Wording(
        ("herniation", "brain herniation", "herniation of the brain"),
        sentences=(
            "Brain tissue herniates below the falx[ {where}].",
            "Brain herniation (is present|is noted)[ {where}].",
        ),
        towards=True,
    ),
    "structural_cephaloceles": Wording(
        ("cephalocele/cephaloceles", "meningoencephalocele/meningoencephaloceles"),
        (Sign("", "through a skull defect"),),
    ),
    "structural_cerebral_atrophy": Wording(
        ("cerebral atrophy", "cerebral volume loss", "brain volume loss", "generalized cerebral atrophy"),
        sentences=(
            "(Generalized|Diffuse) parenchymal volume loss, greater than expected for age.",
            "Prominence of the sulci and ventricles, in keeping with (volume loss|atrophy).",
            "The sulci and ventricles are (widened|prominent|enlarged) due to atrophy.",
            "(Global|Generalized) brain atrophy.",
        ),
    ),
    "structural_chiari_malformation": Wording(
        ("Chiari I malformation", "Chiari malformation", "cerebellar tonsillar ectopia"),
        sentences=(
            "The cerebellar tonsils (extend|lie) [{size} ]below the foramen magnum, Chiari malformation.",
            "Low-lying, peg-like cerebellar tonsils[, {size} below the foramen magnum].",
            "Tonsillar descent[ of {size}] with crowding of the foramen magnum.",
        ),
    ),
    "structural_edema": Wording(
        ("vasogenic edema", "edema", "perilesional edema", "cerebral edema"),
        (_FLAIR, _T2),
        (
            "Surrounding (vasogenic |)edema[ {where}].",
            "{Grade} edema[ {where}].",
            "Signal increase of the surrounding white matter[ {where}], representing edema.",
        ),
    ),
    "structural_encephalomalacia": Wording(
        ("encephalomalacia", "cystic encephalomalacia", "encephalomalacia with gliosis"),
        (Sign("FLAIR", "with a gliotic rim on FLAIR"), Sign("T2", "with CSF signal")),
        ("Parenchymal defect[ {where}][, {size}], chronic.", "Old tissue loss with surrounding gliosis[ {where}]."),
    ),
    "structural_mass_effect": Wording(
        ("mass effect", "local mass effect", "mass effect on the adjacent parenchyma"),
        sentences=(
            "Sulcal effacement and mass effect[ {where}].",
            "(Compression|Effacement) of the adjacent (ventricle|sulci) due to mass effect.",
            "{Grade} (local |)mass effect.",
            "There is (associated|resulting) mass effect.",
        ),
    ),
    "structural_midline_shift": Wording(
        ("midline shift", "shift of the midline structures", "displacement of the midline"),
        sentences=(
            "Midline shift[ of {size}][ {where}].",
            "The midline is (shifted|displaced)[ {where}][ by {size}].",
            "There is[ {size} of] shift of midline structures[ {where}].",
            "Displacement of the septum pellucidum[ by {size}], midline shift.",
        ),
        towards=True,
    ),
    "surgical_catheter": Wording(
        ("ventricular catheter/ventricular catheters", "shunt catheter/shunt catheters"),
        sentences=(
            "(Ventriculoperitoneal shunt|Ventricular catheter|External drain) in place[ {where}].",
            "Status post catheter placement[ {where}].",
        ),
    ),
    "surgical_craniotomy": Wording(
        ("craniotomy defect/craniotomy defects", "craniotomy/craniotomies"),
        (
            Sign("", "with bone flap in place", {"flap": ("present",)}),
            Sign("", "without bone flap", {"flap": ("absent",)}),
        ),
        (
            "(Status post|Post) [{place} ]craniotomy.",
            "Postsurgical changes of [{place} ]craniotomy.",
            "Prior craniotomy[ {where}].",
        ),
        sized=False,
    ),
    "surgical_resection_cavity": Wording(
        ("resection cavity/resection cavities", "surgical cavity/surgical cavities"),
        (
            Sign("T2", "filled with fluid"),
            Sign("FLAIR", "with a thin gliotic margin"),
            Sign("T1C", "with thin linear enhancement of its margin", {"enhancement": ("linear",)}),
            Sign("T1C", "with nodular enhancement of its margin", {"enhancement": ("nodular",)}),
        ),
        ("(Status post|Post) resection[ {where}], fluid-filled cavity[ of {size}].",),
    ),
    "trauma_brain_contusion": Wording(
        ("cerebral contusion/cerebral contusions", "brain contusion/brain contusions", "contusion/contusions"),
        (_DARK, _FLAIR),
    ),
    "trauma_diffuse_axonal_injury": Wording(
        ("diffuse axonal injury", "shear injury", "traumatic axonal injury"),
        (Sign("T2STAR", "with punctate signal loss at the gray-white junction"), _RECENT),
        ("Multiple punctate foci (in the corpus callosum|at the gray-white junction), diffuse axonal injury.",),
    ),
    "trauma_subdural_hematoma": Wording(
        ("subdural hematoma/subdural hematomas", "subdural collection of blood/subdural collections of blood"),
        (
            Sign("", "crescent-shaped"),
            Sign("FLAIR", "hyperintense to CSF on FLAIR"),
            Sign("T2", "displacing the cortex"),
        ),
        (
            "Crescentic extra-axial collection[ {where}][, up to {size} thick], subdural hematoma.",
            "Subdural hematoma[ {where}][ with a maximum thickness of {size}].",
        ),
    ),
    "tumor_adult_brain_metastasis": Wording(
        ("metastasis/metastases", "brain metastasis/brain metastases", "metastatic lesion/metastatic lesions"),
        (
            _RING,
            Sign("T1C", "with solid enhancement", {"enhancement": ("solid",)}),
            Sign("FLAIR", "with surrounding FLAIR signal"),
            Sign("", "at the gray-white junction"),
        ),
    ),
    "tumor_adult_glioma": Wording(
        ("glioma/gliomas", "glial tumor/glial tumors", "infiltrating glioma/infiltrating gliomas"), (_T2, _FLAIR)
    ),
    "tumor_adult_high_grade_glioma": Wording(
        (
            "high-grade glioma/high-grade gliomas",
            "glioblastoma/glioblastomas",
            "high-grade glial neoplasm/high-grade glial neoplasms",
        ),
        (
            Sign("T1C", "with thick irregular rim enhancement", {"enhancement": ("ring",)}),
            Sign("", "with central necrosis", {"enhancement": ("ring",)}),
            Sign("T2", "heterogeneous on T2"),
        ),
    ),
    "tumor_adult_low_grade_glioma": Wording(
        (
            "low-grade glioma/low-grade gliomas",
            "low-grade glial tumor/low-grade glial tumors",
            "diffuse low-grade glioma/diffuse low-grade gliomas",
        ),
        (Sign("FLAIR", "homogeneously hyperintense on FLAIR"), Sign("T1C", "without enhancement"), _T2),
    ),
    "tumor_adult_lymphoma": Wording(
        (
            "lymphoma/lymphoma lesions",
            "primary CNS lymphoma/primary CNS lymphoma lesions",
            "lymphomatous mass/lymphomatous masses",
        ),
        (_SOLID, _RESTRICTED),
    ),
    "tumor_adult_meningioma": Wording(
        (
            "meningioma/meningiomas",
            "dural-based mass consistent with meningioma/dural-based masses consistent with meningioma",
            "extra-axial meningioma/extra-axial meningiomas",
        ),
        (_SOLID, Sign("T1C", "with a dural tail"), Sign("", "with a broad dural base")),
    ),
    "tumor_adult_pineal_tumor": Wording(
        ("pineal tumor/pineal tumors", "pineal region mass/pineal region masses"), (_ENHANCES,)
    ),
    "tumor_adult_schwannoma": Wording(
        (
            "schwannoma/schwannomas",
            "vestibular schwannoma/vestibular schwannomas",
            "acoustic neuroma/acoustic neuromas",
        ),
        (_ENHANCES, Sign("", "extending into the internal auditory canal")),
    ),
    "tumor_pediatric_brainstem_glioma": Wording(
        ("brainstem glioma/brainstem gliomas", "diffuse midline glioma/diffuse midline gliomas"), (_FLAIR, _T2)
    ),
    "tumor_pediatric_ependymoma": Wording(("ependymoma/ependymomas",), (_ENHANCES,)),
    "tumor_pediatric_germ_cell_tumor": Wording(("germ cell tumor/germ cell tumors", "germinoma/germinomas"), (_SOLID,)),
    "tumor_pediatric_medulloblastoma": Wording(("medulloblastoma/medulloblastomas",), (_RESTRICTED, _ENHANCES)),
    "tumor_pediatric_pilocytic_astrocytoma": Wording(
        ("pilocytic astrocytoma/pilocytic astrocytomas",), (Sign("T1C", "with an enhancing mural nodule"),)
    ),
    "vascular_hemorrhagic_intracranial_hemorrhage": Wording(
        (
            "intracranial hemorrhage/intracranial hemorrhages",
            "intraparenchymal hematoma/intraparenchymal hematomas",
            "parenchymal hemorrhage/parenchymal hemorrhages",
        ),
        (_DARK, Sign("T2STAR", "with signal loss on T2*"), Sign("T2", "with mixed T2 signal")),
    ),
    "vascular_hemorrhagic_intraventricular_hemorrhage": Wording(
        ("intraventricular hemorrhage", "intraventricular blood", "ventricular blood"),
        (Sign("T2STAR", "layering dependently on T2*"), Sign("FLAIR", "with layering in the occipital horns")),
    ),
    "vascular_hemorrhagic_subarachnoid_hemorrahage": Wording(
        ("subarachnoid hemorrhage", "subarachnoid blood", "sulcal subarachnoid blood"),
        (Sign("FLAIR", "with sulcal FLAIR hyperintensity"), _DARK),
        sized=False,
    ),
    "vascular_ischemic_lacunar_stroke": Wording(
        ("lacunar infarct/lacunar infarcts", "lacune/lacunes", "lacunar stroke/lacunar strokes"), (_RECENT, _FLAIR, _T2)
    ),
    "vascular_ischemic_large_vessel_stroke": Wording(
        (
            "infarct/infarcts",
            "territorial infarct/territorial infarcts",
            "large-vessel territory infarction/large-vessel territory infarctions",
            "ischemic stroke/ischemic strokes",
        ),
        (_RECENT, _FLAIR, Sign("T2", "involving cortex and white matter")),
    ),
    "vascular_ischemic_moyamoya": Wording(("moyamoya", "moyamoya disease", "moyamoya vasculopathy")),
    "vascular_ischemic_small_vessel_disease": Wording(
        (
            "chronic small vessel ischemic disease",
            "microangiopathic white matter change",
            "small vessel disease",
            "leukoaraiosis",
        ),
        (_FLAIR, _T2),
        (
            "Periventricular and deep white matter hyperintensities, (chronic|most likely) small vessel disease.",
            "White matter changes, (likely|most likely|probably) microangiopathic.",
            "Microvascular ischemic change of the white matter.",
        ),
    ),
    "vascular_malformation_arteriovenous_malformation": Wording(
        ("arteriovenous malformation/arteriovenous malformations", "AVM/AVMs"),
        (Sign("T2", "with serpiginous flow voids"),),
    ),
    "vascular_malformation_cavernoma": Wording(
        (
            "cavernoma/cavernomas",
            "cavernous malformation/cavernous malformations",
            "cavernous angioma/cavernous angiomas",
        ),
        (
            Sign("T2", "with a dark hemosiderin rim"),
            Sign("T2STAR", "with blooming on T2*"),
            Sign("", "with a popcorn appearance"),
        ),
    ),
    "vascular_malformation_cerebral_aneurysm": Wording(
        ("aneurysm/aneurysms", "saccular aneurysm/saccular aneurysms", "intracranial aneurysm/intracranial aneurysms"),
        (Sign("T2", "with flow void"),),
    ),
    "ventricular_intracranial_hypotension": Wording(
        ("intracranial hypotension", "features of intracranial hypotension"),
        (Sign("T1C", "with diffuse pachymeningeal enhancement"),),
        ("Sagging of the brainstem, suggestive of intracranial hypotension.",),
    ),
    "ventricular_ventriculomegaly": Wording(
        ("ventriculomegaly", "enlargement of the ventricles", "ventricular dilatation", "hydrocephalus"),
        sentences=(
            "The (lateral ventricles|ventricles) are (dilated|enlarged).",
            "Enlargement of the ventricular system.",
            "Ventricular system is (dilated|enlarged) out of proportion to the sulci.",
            "Dilated (lateral and third ventricles|ventricles).",
        ),
    ),
}


@dataclass(frozen=True)
class Normal:
    """Statements that something is not there or looks normal.

    unless: beginnings of the diagnosis keys that contradict them, or may; "" for any finding at all.
    """

    unless: tuple[str, ...]
    sentences: tuple[str, ...]


_TUMOR = ("tumor_", "sellar_")
_BLEEDING = (
    "vascular_hemorrhagic_",
    "vascular_malformation_",
    "trauma_",
    "tumor_",
    "surgical_",
    "infectious_",
    "structural_encephalomalacia",
)
_SPACE_TAKING = (
    *_TUMOR,
    *("cyst_", "infectious_", "trauma_", "surgical_", "structural_mass", "structural_midline", "structural_brain"),
    *(
        "structural_edema",
        "vascular_hemorrhagic_",
        "vascular_malformation_",
        "vascular_ischemic_large",
        "inflammatory_",
    ),
    *("developmental_", "structural_ceph", "spine_"),
)
_WHITE_MATTER = (
    "inflammatory_",
    "vascular_",
    "structural_edema",
    "structural_enc",
    "tumor_",
    "infectious_",
    "trauma_",
    "surgical_",
    "developmental_",
)
_VENTRICLES = (
    *("ventricular_", "structural_", "cyst_", "vascular_hemorrhagic_", "vascular_ischemic_large", "trauma_", "tumor_"),
    *("sellar_", "surgical_", "infectious_", "developmental_", "inflammatory_neurosarcoid"),
)

NORMALS = (
    Normal(
        ("vascular_ischemic_large", "vascular_ischemic_lacunar", "vascular_ischemic_moya"),
        (
            "No (evidence of |)acute (infarct|infarction).",
            "There is nothing to suggest acute (infarction|ischemia).",
            "No (acute|recent) ischemic (lesion|change).",
            "No evidence of (acute or subacute|recent) (infarction|ischemia).",
        ),
    ),
    Normal(
        _BLEEDING,
        (
            "No (evidence of |)intracranial hemorrhage.",
            "No (acute |)(hemorrhage|blood products).",
            "There is no (intra-axial or extra-axial|intracranial) (hemorrhage|bleeding).",
            "No hemorrhage is (seen|identified).",
        ),
    ),
    Normal(
        ("trauma_", "cyst_arachnoid", "vascular_hemorrhagic_", "surgical_", "infectious_", "tumor_adult_meningioma"),
        (
            "No extra-axial (collection|fluid collection).",
            "No (subdural|extra-axial) (collection|hematoma) is (seen|identified).",
            "There is no extra-axial fluid collection.",
        ),
    ),
    Normal(
        _SPACE_TAKING,
        (
            "No (intracranial |)mass or mass effect.",
            "No (mass lesion|space-occupying lesion|intracranial mass).",
            "There is no mass, mass effect or midline shift.",
            "No evidence of (a tumor|neoplasm|a mass lesion).",
        ),
    ),
    Normal(
        ("structural_midline", "structural_mass", "structural_brain", "trauma_sub"),
        (
            "No midline shift.",
            "The midline is not (shifted|displaced).",
            "Midline structures are (in place|centered|in normal position).",
            "No midline shift or herniation.",
        ),
    ),
    Normal(
        _VENTRICLES,
        (
            "The ventricles (and sulci |)are normal (in size|in size and configuration|for age).",
            "Normal (size of the ventricles|ventricular system).",
            "Ventricular system and CSF spaces are (age-appropriate|unremarkable|of normal width).",
            "No hydrocephalus.",
        ),
    ),
    Normal(
        ("structural_cerebral", "ventricular_", "structural_enc", "surgical_"),
        (
            "Brain volume is (normal|appropriate) for age.",
            "No (abnormal |)(atrophy|volume loss).",
            "Sulci and gyri are (normal|age-appropriate).",
        ),
    ),
    Normal(
        _WHITE_MATTER,
        (
            "Normal (signal of the white matter|white matter signal).",
            "No (focal |)white matter (lesion|signal abnormality).",
            "The (brain parenchyma|white matter) (is of normal signal|shows normal signal).",
        ),
    ),
    Normal(
        ("sellar_", "ventricular_intra"),
        (
            "The (sella|pituitary gland) is (unremarkable|normal).",
            "Normal appearance of the pituitary (gland|).",
            "Sellar and parasellar regions are (unremarkable|normal).",
        ),
    ),
    Normal(
        (
            *("structural_chiari", "structural_brain", "structural_mass", "structural_edema", "ventricular_intra"),
            *("developmental_dandy", "spine_", "cyst_", "trauma_", "tumor_", "infectious_", "surgical_"),
            "vascular_hemorrhagic_",
        ),
        (
            "The craniocervical junction is (unremarkable|normal).",
            "Cerebellar tonsils are in normal position.",
            "Posterior fossa structures are unremarkable.",
        ),
    ),
    Normal(
        ("developmental_", "tumor_", "structural_", "vascular_", "inflammatory_", "surgical_", "trauma_"),
        (
            "The corpus callosum is (normal|fully formed|unremarkable).",
            "Midline structures including the corpus callosum are normal.",
        ),
    ),
    Normal(
        ("surgical_", "structural_ceph"),
        ("The calvarium is (intact|unremarkable).", "Bone marrow signal of the skull is (normal|unremarkable)."),
    ),
    Normal(
        ("vascular_", "trauma_"),
        (
            "Major intracranial flow voids are (preserved|present|maintained).",
            "Normal flow voids of the large vessels.",
        ),
    ),
)
ALWAYS = (
    "The (orbits|globes|orbital contents) are (unremarkable|normal).",
    "Paranasal sinuses (and mastoid air cells |)are (clear|well aerated).",
    "The nasopharynx is (unremarkable|normal).",
)
WHOLLY_NORMAL = (
    "(Normal|Unremarkable) MRI of the brain.",
    "No intracranial abnormality.",
    "No (acute |)intracranial (abnormality|pathology).",
    "Normal (brain MRI|examination|study).",
    "No (abnormal|pathological) finding.",
    "Unremarkable (examination|study) of the brain for age.",
    "Brain MRI without (abnormal|pathologic) findings.",
    "No structural abnormality of the brain (is seen|is identified|).",
)
FIRST_VISIT = (
    "No prior examination (is available|) for comparison.",
    "Comparison: none.",
    "There are no previous studies.",
)
LATER_VISIT = (
    "Compared with the prior examination, there is no (significant|relevant) change.",
    "Comparison: previous MRI, (stable|unchanged) findings.",
    "No interval change (since|compared with) the previous (study|MRI).",
)
TECHNIQUE = (
    "(Technique: |)(multiplanar|multisequence|multiplanar multisequence) MRI of the brain[ {contrast}]: {series}.",
    "(Technique: |)MR imaging of the (head|brain)[ {contrast}] at {field}. Sequences: {series}.",
    "(Examination|Technique): {series}[ {contrast}].",
    "{series} images of the brain (were acquired|were obtained)[ {contrast}].",
)
SEQUENCES = {
    "T1": ("T1", "T1-weighted"),
    "T1C": ("post-contrast T1", "contrast-enhanced T1", "T1 after gadolinium"),
    "T2": ("T2", "T2-weighted", "T2 TSE"),
    "FLAIR": ("FLAIR", "T2 FLAIR"),
    "DWI": ("DWI", "diffusion-weighted"),
    "ADC": ("ADC map", "ADC"),
    "T2STAR": ("T2*", "gradient echo", "susceptibility-weighted"),
}
WITH_CONTRAST = ("with and without contrast", "before and after gadolinium", "with intravenous contrast")
WITHOUT_CONTRAST = ("without contrast", "without intravenous contrast", "")
COUNTS = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "several"), 5: ("five", "several")}
MANY = ("multiple", "numerous", "many")
# How a site is spoken of: with its preposition, and as a region.
PLACES = {
    "convexity": ("over", "convexity"),
    "middle cerebral artery": ("in", "middle cerebral artery territory"),
    "anterior cerebral artery": ("in", "anterior cerebral artery territory"),
    "posterior cerebral artery": ("in", "posterior cerebral artery territory"),
    "cerebellar artery": ("in", "cerebellar artery territory"),
    "parafalcine": ("in", "parafalcine region"),
    "sphenoid wing": ("at", "sphenoid wing"),
    "cerebellopontine angle": ("in", "cerebellopontine angle"),
    "foramen of Monro": ("at", "foramen of Monro"),
    "foramen magnum": ("at", "foramen magnum"),
    "lateral ventricles": ("in", "lateral ventricle"),
}
