"""A seed → who the patient is and what is wrong: how often, together with what, how large and how faint.

All of it is in three tables (`STORIES`, `KINDS`, `BY_CHANCE`), written down before anything was trained and never tuned
to a model. Numbers are in the manner of a hospital's, with rare things made common enough to learn. `SECOND_STORY` is
for those who train alone; nobody is judged on such patients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from training.phantom.types import Case, Finding

ICH = "vascular_hemorrhagic_intracranial_hemorrhage"
YOUNGEST, OLDEST = 16.0, 93.0
LOBES = ("frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe")
ARTERIES = (
    ("middle cerebral artery",) * 6
    + ("anterior cerebral artery", "posterior cerebral artery") * 2
    + ("cerebellar artery",)
)
BLOOD_AGES = ("hyperacute", "acute", "acute", "early subacute", "late subacute", "chronic")
Choices = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Kind:
    """How one kind of finding varies.

    keys: of the diagnoses. size_mm: median, sigma of the logarithm, least, most; empty where size means nothing.
    sites: one is drawn (repeats make it likelier). sides: likewise. count: mean of a geometric number beyond one, and
    the most. attributes: name → choices. faint: parameters of the beta distribution that strength is drawn from.
    """

    keys: tuple[str, ...]
    size_mm: tuple[float, ...] = ()
    sites: tuple[str, ...] = ("",)
    sides: tuple[str, ...] = ("left", "right")
    count: tuple[float, int] = (0.0, 1)
    attributes: Choices = field(default_factory=dict)
    faint: tuple[float, float] = (1.3, 1.0)


DIFFUSE = ("both",)
MIDDLE = ("midline",)
RING = {"enhancement": ("ring", "ring", "ring", "solid")}

KINDS: dict[str, Kind] = {
    "haematoma": Kind(
        (ICH,),
        (28, 0.5, 7, 68),
        ("basal ganglia",) * 4 + ("thalamus",) * 2 + ("pons", "cerebellum") + LOBES,
        attributes={"age": BLOOD_AGES},
    ),
    "intraventricular_haemorrhage": Kind(
        (ICH, "vascular_hemorrhagic_intraventricular_hemorrhage"),
        sites=("lateral ventricles",),
        sides=("both", "both", "left", "right"),
        attributes={"age": ("acute", "acute", "early subacute")},
        faint=(1.8, 1.5),
    ),
    "subarachnoid_haemorrhage": Kind(
        (ICH, "vascular_hemorrhagic_subarachnoid_hemorrahage"),
        (85, 0.3, 40, 150),
        (*LOBES[:3], "basal cisterns", "basal cisterns"),
        attributes={"age": ("acute",)},
        faint=(2.4, 1.3),
    ),
    "subdural_haematoma": Kind(
        ("trauma_subdural_hematoma",),
        (10, 0.5, 3, 26),
        ("convexity",),
        attributes={"age": ("acute", "early subacute", "late subacute", "chronic", "chronic")},
    ),
    "contusion": Kind(
        ("trauma_brain_contusion",),
        (24, 0.4, 9, 50),
        ("frontal lobe", "temporal lobe"),
        count=(0.8, 4),
        attributes={"age": ("acute", "early subacute")},
    ),
    "diffuse_axonal_injury": Kind(
        ("trauma_diffuse_axonal_injury",),
        (6, 0.3, 3.5, 11),
        sides=DIFFUSE,
        count=(12, 30),
        attributes={"age": ("acute", "acute", "chronic")},
        faint=(3, 1.2),
    ),
    "cavernoma": Kind(
        ("vascular_malformation_cavernoma",),
        (13, 0.4, 5, 32),
        (*LOBES, "pons", "cerebellum", "basal ganglia"),
        count=(0.3, 5),
    ),
    "territorial_infarct": Kind(
        ("vascular_ischemic_large_vessel_stroke",),
        (62, 0.35, 24, 110),
        ARTERIES,
        attributes={"age": ("hyperacute", "acute", "acute", "subacute")},
    ),
    "lacunar_infarct": Kind(
        ("vascular_ischemic_lacunar_stroke",),
        (9, 0.3, 4.5, 15),
        ("basal ganglia", "basal ganglia", "thalamus", "corona radiata", "pons"),
        count=(0.5, 5),
        attributes={"age": ("acute", "acute", "chronic")},
    ),
    "small_vessel_disease": Kind(
        ("vascular_ischemic_small_vessel_disease",),
        sides=DIFFUSE,
        sites=("deep white matter",),
        count=(16, 45),
        faint=(2.0, 1.7),
    ),
    "multiple_sclerosis": Kind(
        ("inflammatory_multiple_sclerosis",),
        (13, 0.3, 6, 25),
        sides=DIFFUSE,
        sites=("periventricular white matter",),
        count=(11, 30),
        attributes={"enhancement": ("none", "none", "active")},
    ),
    "high_grade_glioma": Kind(
        ("tumor_adult_high_grade_glioma", "tumor_adult_glioma"),
        (40, 0.35, 14, 72),
        (*LOBES, "frontal lobe", "temporal lobe", "corpus callosum"),
        attributes=RING,
    ),
    "low_grade_glioma": Kind(
        ("tumor_adult_low_grade_glioma", "tumor_adult_glioma"),
        (38, 0.35, 14, 72),
        (*LOBES, "frontal lobe", "temporal lobe"),
        attributes={"enhancement": ("none",)},
    ),
    "metastasis": Kind(
        ("tumor_adult_brain_metastasis",),
        (18, 0.5, 5, 46),
        (*LOBES, "frontal lobe", "parietal lobe", "cerebellum", "cerebellum"),
        count=(2.0, 14),
        attributes=RING,
    ),
    "lymphoma": Kind(
        ("tumor_adult_lymphoma",),
        (27, 0.35, 10, 50),
        ("corpus callosum", "basal ganglia", "thalamus", "frontal lobe", "deep white matter"),
        attributes={"enhancement": ("homogeneous",)},
    ),
    "meningioma": Kind(
        ("tumor_adult_meningioma",),
        (28, 0.45, 8, 68),
        ("convexity", "convexity", "parafalcine", "sphenoid wing"),
        attributes={"enhancement": ("homogeneous",)},
    ),
    "schwannoma": Kind(
        ("tumor_adult_schwannoma",),
        (19, 0.4, 7, 40),
        ("cerebellopontine angle",),
        attributes={"enhancement": ("heterogeneous",)},
    ),
    "pituitary_adenoma": Kind(
        ("sellar_pituitary_adenoma",),
        (17, 0.5, 6, 42),
        ("sella",),
        MIDDLE,
    ),
    "abscess": Kind(
        ("infectious_brain_abscess",),
        (26, 0.3, 12, 48),
        LOBES,
        attributes={"enhancement": ("ring",)},
    ),
    "arachnoid_cyst": Kind(
        ("cyst_arachnoid_cyst",),
        (36, 0.4, 14, 76),
        ("middle cranial fossa",) * 3 + ("posterior fossa", "convexity"),
        faint=(5, 1),
    ),
    "colloid_cyst": Kind(
        ("cyst_colloid_cyst",),
        (11, 0.35, 5, 22),
        ("foramen of Monro",),
        MIDDLE,
        attributes={"t1": ("hyperintense", "hyperintense", "isointense")},
        faint=(4, 1),
    ),
    "craniotomy": Kind(
        ("surgical_craniotomy",),
        (66, 0.2, 40, 95),
        (*LOBES[:3], "convexity"),
        attributes={"flap": ("present",) * 5 + ("absent",)},
        faint=(3, 1),
    ),
    "resection_cavity": Kind(
        ("surgical_resection_cavity",),
        (32, 0.3, 15, 58),
        LOBES,
        attributes={"enhancement": ("none", "linear", "linear", "nodular")},
    ),
    "catheter": Kind(
        ("surgical_catheter",),
        sites=("frontal lobe", "frontal lobe", "parietal lobe"),
        sides=("right", "right", "left"),
        faint=(3, 1.2),
    ),
    "cerebral_atrophy": Kind(("structural_cerebral_atrophy",), sides=DIFFUSE, faint=(1.6, 1.4)),
    "ventriculomegaly": Kind(
        ("ventricular_ventriculomegaly",),
        sides=DIFFUSE,
        attributes={"type": ("communicating", "obstructive")},
        faint=(1.8, 1.4),
    ),
    "chiari_malformation": Kind(
        ("structural_chiari_malformation",),
        (10, 0.35, 5, 22),
        ("foramen magnum",),
        MIDDLE,
    ),
    "encephalomalacia": Kind(
        ("structural_encephalomalacia",),
        (46, 0.35, 18, 90),
        ARTERIES,
        attributes={"age": ("chronic",)},
        faint=(3, 1.1),
    ),
}

# There is no room for more.
SITE_MOST_MM = {
    "pons": 22.0,
    "cerebellum": 42.0,
    "thalamus": 34.0,
    "basal ganglia": 62.0,
    "cerebellar artery": 60.0,
    "posterior fossa": 45.0,
}

CONSEQUENCES = (
    "structural_edema",
    "structural_mass_effect",
    "structural_midline_shift",
    "structural_brain_herniation",
)
SIMULATED = tuple(sorted({key for kind in KINDS.values() for key in kind.keys} | set(CONSEQUENCES)))


@dataclass(frozen=True)
class Story:
    """Why a patient comes. share: how often, relative. age: mean and deviation. women: their share.

    always: kinds that this patient has. often: kind → probability; "operated" stands for all of OPERATED.
    """

    share: float
    age: tuple[float, float] = (52, 17)
    women: float = 0.5
    always: tuple[str, ...] = ()
    often: Mapping[str, float] = field(default_factory=dict)


OPERATED = ("craniotomy", "resection_cavity")
SECOND_STORY = 0.75  # share of the patients of a teaching collection for whom a second story is drawn as well
FEWEST = {"multiple_sclerosis": 3, "diffuse_axonal_injury": 4}  # a single dot is not the disease
STORIES: tuple[Story, ...] = (
    Story(9.6, (44, 16), 0.55),  # headache, dizziness, no finding
    Story(
        1.3,
        (66, 13),
        0.45,
        ("haematoma",),
        {"intraventricular_haemorrhage": 0.45, "catheter": 0.15, "ventriculomegaly": 0.15},
    ),
    Story(
        1.2,
        (55, 13),
        0.6,
        ("subarachnoid_haemorrhage",),
        {"intraventricular_haemorrhage": 0.45, "ventriculomegaly": 0.3, "catheter": 0.3},
    ),
    Story(
        1.3,
        (40, 17),
        0.3,
        ("contusion",),
        {
            "subdural_haematoma": 0.4,
            "subarachnoid_haemorrhage": 0.35,
            "diffuse_axonal_injury": 0.35,
            "craniotomy": 0.15,
        },
    ),
    Story(
        1.0,
        (33, 13),
        0.3,
        ("diffuse_axonal_injury",),
        {"contusion": 0.3, "subarachnoid_haemorrhage": 0.2, "intraventricular_haemorrhage": 0.15, "catheter": 0.15},
    ),
    Story(1.2, (72, 11), 0.4, ("subdural_haematoma",), {"craniotomy": 0.3, "subarachnoid_haemorrhage": 0.1}),
    Story(1.6, (69, 13), 0.5, ("territorial_infarct",), {"lacunar_infarct": 0.12, "encephalomalacia": 0.15}),
    Story(1.2, (68, 11), 0.45, ("lacunar_infarct",), {"encephalomalacia": 0.08}),
    Story(1.7, (37, 11), 0.72, ("multiple_sclerosis",)),
    Story(1.6, (61, 12), 0.42, ("high_grade_glioma",), {"operated": 0.35}),
    Story(1.5, (40, 12), 0.45, ("low_grade_glioma",), {"operated": 0.3}),
    Story(1.6, (62, 11), 0.52, ("metastasis",), {"operated": 0.2}),
    Story(1.4, (60, 13), 0.7, ("meningioma",), {"craniotomy": 0.15}),
    Story(1.4, (53, 13), 0.5, ("schwannoma",), {"ventriculomegaly": 0.12}),
    Story(1.4, (47, 14), 0.5, ("pituitary_adenoma",)),
    Story(1.4, (63, 12), 0.45, ("lymphoma",)),
    Story(1.4, (48, 15), 0.4, ("abscess",), {"craniotomy": 0.15}),
    Story(1.1, (40, 16), 0.45, ("arachnoid_cyst",)),
    Story(1.4, (44, 13), 0.5, ("colloid_cyst",), {"ventriculomegaly": 0.35, "catheter": 0.15}),
    Story(1.2, (42, 14), 0.5, ("cavernoma",)),
    Story(1.3, (62, 17), 0.5, ("ventriculomegaly",), {"catheter": 0.55}),
    Story(1.4, (35, 12), 0.65, ("chiari_malformation",), {"ventriculomegaly": 0.15, "catheter": 0.08}),
    Story(1.3, (60, 15), 0.48, ("encephalomalacia",), {"craniotomy": 0.25}),
    Story(0.6, (50, 15), 0.5, OPERATED),
)

# Found beside the reason for the examination: kind → probability by age.
BY_CHANCE: Mapping[str, Callable[[float], float]] = {
    "small_vessel_disease": lambda age: 0.75 / (1 + np.exp(-(age - 70) / 6.5)),
    "cerebral_atrophy": lambda age: 0.55 / (1 + np.exp(-(age - 76) / 5)),
    "lacunar_infarct": lambda age: 0.10 / (1 + np.exp(-(age - 68) / 6)),
    "meningioma": lambda age: 0.012 if age > 45 else 0.0,
    "arachnoid_cyst": lambda age: 0.012,
    "cavernoma": lambda age: 0.008,
    "pituitary_adenoma": lambda age: 0.006,
}


def draw_case(seed: int, second_story: float = 0.0) -> Case:
    """The patient of a seed: age, sex and findings, the one that matters most first.

    second_story: share of the patients who have the findings of another story besides (none, if it is the healthy
    one), behind their own: life rarely brings them together, but there is more to learn from one head. A flap or cavity
    of the second story lies where one of the first would.
    """
    generator = np.random.default_rng([seed, 1])
    shares = np.array([story.share for story in STORIES])
    draw = functools.partial(generator.choice, len(STORIES), p=shares / shares.sum())
    story = STORIES[int(draw())]
    age = float(np.clip(generator.normal(*story.age), YOUNGEST, OLDEST))
    sex = "F" if generator.random() < story.women else "M"
    kinds = [*story.always, *_often(story, generator), *_by_chance(age, story, generator)]
    if second_story and generator.random() < second_story:
        other = STORIES[int(draw())]
        kinds += [*other.always, *_often(other, generator)]
    findings = _agree([_draw(kind, generator) for kind in dict.fromkeys(kinds)])
    return Case(seed, round(age, 1), sex, findings)


def _often(story: Story, generator: np.random.Generator) -> Iterable[str]:
    for kind, probability in story.often.items():
        if generator.random() < probability:
            yield from OPERATED if kind == "operated" else (kind,)


def _by_chance(age: float, story: Story, generator: np.random.Generator) -> Iterable[str]:
    crowded = "multiple_sclerosis" in story.always
    for kind, probability in BY_CHANCE.items():
        if generator.random() < probability(age) and not (crowded and kind == "small_vessel_disease"):
            yield kind


def _draw(name: str, generator: np.random.Generator) -> Finding:
    kind = KINDS[name]
    beyond, most = kind.count
    site = str(generator.choice(kind.sites))
    return Finding(
        diagnoses=kind.keys,
        kind=name,
        side=str(generator.choice(kind.sides)),
        site=site,
        size_mm=min(_size(kind, generator), SITE_MOST_MM.get(site, np.inf)),
        count=min(most, 1 + (int(generator.geometric(1 / (1 + beyond))) - 1 if beyond else 0)),
        attributes={key: str(generator.choice(values)) for key, values in kind.attributes.items()},
        strength=round(float(generator.beta(*kind.faint)), 3),
    )


def _size(kind: Kind, generator: np.random.Generator) -> float:
    if not kind.size_mm:
        return 0.0
    median, sigma, least, most = kind.size_mm
    return round(float(np.clip(median * np.exp(generator.normal(0, sigma)), least, most)), 1)


def _agree(findings: list[Finding]) -> tuple[Finding, ...]:
    """Findings of one patient that must fit together: flap and cavity lie where the first finding is."""
    first = findings[0] if findings else None
    kinds = {finding.kind for finding in findings}
    return tuple(_fit(finding, first, kinds) for finding in findings)


def _fit(finding: Finding, first: Finding | None, kinds: set[str]) -> Finding:
    if finding.kind in OPERATED and first and first.side in ("left", "right"):
        return replace(finding, side=first.side, site=_operable(first.site))
    if finding.kind in FEWEST:
        return replace(finding, count=max(FEWEST[finding.kind], finding.count))
    if finding.kind == "small_vessel_disease":
        count = max(2, round(1.4 * finding.strength * finding.count))
        return replace(finding, count=count, attributes={"grade": _grade(finding.strength)})
    if finding.kind == "ventriculomegaly" and "colloid_cyst" in kinds:
        return replace(finding, attributes={"type": "obstructive"})
    return finding


def _operable(site: str) -> str:
    """Where a surgeon goes in."""
    return site if site in (*LOBES, "convexity", "parafalcine", "cerebellum") else "frontal lobe"


def _grade(strength: float) -> str:
    return "mild" if strength < 0.4 else "moderate" if strength < 0.7 else "severe"
