"""What a phantom's findings mean for the reading list: which referral, and how soon, by one table of rules.

The rules are made up in the manner of a clinic's, so that there is something to learn; nothing clinical follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from training.phantom.types import Case, Finding

REFERRALS = ("neurosurgery", "neurology")
PRIORITIES = ("none", "low", "medium", "high")

_S, _N = "neurosurgery", "neurology"


@dataclass(frozen=True)
class Rule:
    """What a diagnosis leads to. The first rule that fits counts.

    at_least_mm: of the largest one. when: attributes of the finding, such as {"age": "acute"}.
    """

    diagnosis: str
    priority: str
    referrals: tuple[str, ...] = ()
    at_least_mm: float = 0.0
    when: Mapping[str, str] = field(default_factory=dict)

    def fits(self, finding: Finding, diagnosis: str) -> bool:
        """Whether the rule speaks of this diagnosis of a finding."""
        return (
            self.diagnosis == diagnosis
            and finding.size_mm >= self.at_least_mm
            and all(finding.attributes.get(name) == value for name, value in self.when.items())
        )


_CHRONIC = {"age": "chronic"}

RULES = (
    # Bleeding, infarcts, injury
    Rule("vascular_hemorrhagic_intracranial_hemorrhage", "low", (_N,), when=_CHRONIC),
    Rule("vascular_hemorrhagic_intracranial_hemorrhage", "high", (_S, _N)),
    Rule("vascular_hemorrhagic_intraventricular_hemorrhage", "high", (_S,)),
    Rule("vascular_hemorrhagic_subarachnoid_hemorrahage", "high", (_S, _N)),
    Rule("vascular_ischemic_large_vessel_stroke", "low", (_N,), when=_CHRONIC),
    Rule("vascular_ischemic_large_vessel_stroke", "high", (_N,)),
    Rule("vascular_ischemic_lacunar_stroke", "low", (_N,), when=_CHRONIC),
    Rule("vascular_ischemic_lacunar_stroke", "medium", (_N,)),
    Rule("vascular_ischemic_moyamoya", "medium", (_S, _N)),
    Rule("vascular_ischemic_small_vessel_disease", "low", (_N,)),
    Rule("vascular_malformation_arteriovenous_malformation", "medium", (_S,)),
    Rule("vascular_malformation_cavernoma", "low", (_S,)),
    Rule("vascular_malformation_cerebral_aneurysm", "medium", (_S,), at_least_mm=7),
    Rule("vascular_malformation_cerebral_aneurysm", "low", (_S,)),
    Rule("trauma_subdural_hematoma", "medium", (_S,), when=_CHRONIC),
    Rule("trauma_subdural_hematoma", "high", (_S,)),
    Rule("trauma_brain_contusion", "high", (_S,)),
    Rule("trauma_diffuse_axonal_injury", "low", (_N,), when=_CHRONIC),
    Rule("trauma_diffuse_axonal_injury", "high", (_S, _N)),
    # Pressure
    Rule("structural_brain_herniation", "high", (_S,)),
    Rule("structural_midline_shift", "high", (_S,)),
    Rule("structural_mass_effect", "high", (_S,), when={"grade": "severe"}),
    Rule("structural_mass_effect", "medium", (_S,)),
    Rule("structural_edema", "low", when={"grade": "mild"}),
    Rule("structural_edema", "medium"),
    Rule("ventricular_ventriculomegaly", "high", (_S,), when={"type": "obstructive"}),
    Rule("ventricular_ventriculomegaly", "medium", (_S,)),
    Rule("ventricular_intracranial_hypotension", "medium", (_N,)),
    # Infection and inflammation
    Rule("infectious_brain_abscess", "high", (_S, _N)),
    Rule("infectious_viral_encephalitis", "high", (_N,)),
    Rule("inflammatory_multiple_sclerosis", "medium", (_N,), when={"enhancement": "active"}),
    Rule("inflammatory_multiple_sclerosis", "low", (_N,)),
    Rule("inflammatory_neurosarcoid", "medium", (_N,)),
    # Tumours
    Rule("tumor_adult_high_grade_glioma", "high", (_S,)),
    Rule("tumor_adult_low_grade_glioma", "medium", (_S, _N)),
    Rule("tumor_adult_glioma", "medium", (_S,)),
    Rule("tumor_adult_brain_metastasis", "high", (_S,), at_least_mm=30),
    Rule("tumor_adult_brain_metastasis", "medium", (_S,)),
    Rule("tumor_adult_lymphoma", "medium", (_S, _N)),
    Rule("tumor_adult_meningioma", "medium", (_S,), at_least_mm=30),
    Rule("tumor_adult_meningioma", "low", (_S,)),
    Rule("tumor_adult_pineal_tumor", "medium", (_S,)),
    Rule("tumor_adult_schwannoma", "medium", (_S,), at_least_mm=25),
    Rule("tumor_adult_schwannoma", "low", (_S,)),
    Rule("tumor_pediatric_brainstem_glioma", "high", (_S,)),
    Rule("tumor_pediatric_ependymoma", "high", (_S,)),
    Rule("tumor_pediatric_germ_cell_tumor", "medium", (_S,)),
    Rule("tumor_pediatric_medulloblastoma", "high", (_S,)),
    Rule("tumor_pediatric_pilocytic_astrocytoma", "medium", (_S,)),
    Rule("sellar_craniopharyngioma", "medium", (_S,)),
    Rule("sellar_pituitary_adenoma", "medium", (_S,), at_least_mm=10),
    Rule("sellar_pituitary_adenoma", "low", (_S,)),
    Rule("sellar_rathkes_cleft_cyst", "low"),
    # Cysts, malformations, what is old or was operated on
    Rule("cyst_colloid_cyst", "high", (_S,), at_least_mm=10),
    Rule("cyst_colloid_cyst", "medium", (_S,)),
    Rule("cyst_arachnoid_cyst", "medium", (_S,), at_least_mm=50),
    Rule("cyst_arachnoid_cyst", "low"),
    Rule("developmental_dandy_walker_malformation", "low", (_S, _N)),
    Rule("developmental_dysgenesis_corpus_callosum", "low", (_N,)),
    Rule("developmental_heterotopia", "low", (_N,)),
    Rule("structural_chiari_malformation", "low", (_S,)),
    Rule("structural_cephaloceles", "medium", (_S,)),
    Rule("spine_syrinx", "medium", (_S,)),
    Rule("structural_cerebral_atrophy", "low", (_N,)),
    Rule("structural_encephalomalacia", "low"),
    Rule("surgical_catheter", "low", (_S,)),
    Rule("surgical_craniotomy", "low", (_S,)),
    Rule("surgical_resection_cavity", "low", (_S,)),
)


@dataclass(frozen=True)
class Judgement:
    """referral: each of REFERRALS, wanted or not. priority: one of PRIORITIES."""

    referral: Mapping[str, bool]
    priority: str


def judge(case: Case) -> Judgement:
    """The most urgent of all rules that apply; "none" and no referral when nothing is wrong.

    Raises KeyError when the table does not know a diagnosis.
    """
    applied = [rule for finding in case.findings for rule in _rules(finding)]
    wanted = {referral for rule in applied for referral in rule.referrals}
    return Judgement({referral: referral in wanted for referral in REFERRALS}, _most_urgent(applied))


def level(finding: Finding) -> str:
    """The priority of a patient who has nothing but this finding. Raises KeyError as `judge`."""
    return _most_urgent(_rules(finding))


def _most_urgent(rules: Iterable[Rule]) -> str:
    return max((rule.priority for rule in rules), key=PRIORITIES.index, default="none")


def _rules(finding: Finding) -> list[Rule]:
    return [_rule(finding, diagnosis) for diagnosis in finding.diagnoses]


def _rule(finding: Finding, diagnosis: str) -> Rule:
    for rule in RULES:
        if rule.fits(finding, diagnosis):
            return rule
    raise KeyError(f"no rule for {diagnosis}")
