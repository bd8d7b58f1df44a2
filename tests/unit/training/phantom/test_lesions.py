"""Each kind of finding changes the images as radiologists know it; that the shapes look right is for the eye."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from training.phantom import signal
from training.phantom.anatomy import build_head
from training.phantom.case import KINDS
from training.phantom.types import Case, Finding, Head, Map, SeriesPlan

TIMES = {
    "T1": (550, 12, 0, 90),
    "T1C": (550, 12, 0, 90),
    "T2": (4500, 100, 0, 90),
    "FLAIR": (9000, 120, 2500, 90),
    "DWI": (5000, 85, 0, 90),
    "ADC": (5000, 85, 0, 90),
    "T2STAR": (700, 20, 0, 20),
}
# What shows each kind best, and how many millilitres of the head it changes at least.
SHOWN: dict[str, tuple[str, float]] = {
    "haematoma": ("T2STAR", 5),
    "intraventricular_haemorrhage": ("T2STAR", 1),
    "subarachnoid_haemorrhage": ("FLAIR", 3),
    "subdural_haematoma": ("T2", 20),
    "contusion": ("FLAIR", 3),
    "diffuse_axonal_injury": ("T2STAR", 0.2),
    "cavernoma": ("T2STAR", 0.8),
    "territorial_infarct": ("DWI", 20),
    "lacunar_infarct": ("DWI", 0.1),
    "small_vessel_disease": ("FLAIR", 3),
    "multiple_sclerosis": ("FLAIR", 0.5),
    "high_grade_glioma": ("T1C", 8),
    "low_grade_glioma": ("FLAIR", 8),
    "metastasis": ("T1C", 1),
    "lymphoma": ("T1C", 3),
    "meningioma": ("T1C", 3),
    "schwannoma": ("T1C", 1),
    "pituitary_adenoma": ("T1C", 0.5),
    "abscess": ("DWI", 3),
    "arachnoid_cyst": ("T2", 8),
    "colloid_cyst": ("T1", 0.3),
    "craniotomy": ("T1", 3),
    "resection_cavity": ("T2", 5),
    "catheter": ("T2", 0.3),
    "cerebral_atrophy": ("T2", 20),
    "ventriculomegaly": ("T2", 20),
    "chiari_malformation": ("T1", 0.5),
    "encephalomalacia": ("T2", 10),
}


def plan(sequence: str) -> SeriesPlan:
    repetition, echo, inversion, flip = TIMES[sequence]
    return SeriesPlan(sequence, "axial", "", "", 128, 1.8, 20, 6.0, 5.0, repetition, echo, inversion, flip)


def finding(kind: str, **changes: object) -> Finding:
    shape = KINDS[kind]
    plain = Finding(
        shape.keys,
        kind,
        side=shape.sides[0],
        site=shape.sites[0],
        size_mm=shape.size_mm[0] if shape.size_mm else 0.0,
        count=4 if shape.count[0] else 1,
        attributes={name: values[0] for name, values in shape.attributes.items()},
        strength=0.9,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=6)
def _head(*kinds: str) -> Head:
    return build_head(Case(21, 50.0, "F", tuple(finding(kind) for kind in kinds)))


@functools.cache
def _healthy(sequence: str) -> tuple[Map, float]:
    """The image without any finding, and its white matter's brightness."""
    return image(_head(), sequence), white(_head(), sequence)


def head(kind: str, **changes: object) -> Head:
    return build_head(Case(21, 50.0, "F", (finding(kind, **changes),))) if changes else _head(kind)


def image(one: Head, sequence: str) -> Map:
    return signal.image(plan(sequence), one)


def inside(one: Head, sequence: str) -> float:
    """Mean brightness of the first finding."""
    return float(image(one, sequence)[one.lesion == 1].mean())


def white(one: Head, sequence: str) -> float:
    """Brightness of normal white matter."""
    normal = (one.lesion == 0) & (np.abs(one.t1_ms - 740) < 20) & (one.fluid < 0.02) & (one.fat < 0.02)
    return float(image(one, sequence)[normal].mean())


def test_every_kind_is_looked_at() -> None:
    assert set(SHOWN) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(SHOWN))
def test_each_kind_changes_the_images_against_the_same_head_without_it(kind: str) -> None:
    sequence, least_ml = SHOWN[kind]
    without, normal = _healthy(sequence)
    changed = np.abs(image(head(kind), sequence) - without) > 0.15 * normal
    assert changed.sum() * 0.008 >= least_ml
    assert head(kind).case.findings[0].diagnoses == KINDS[kind].keys


@pytest.mark.parametrize("kind", ["low_grade_glioma", "territorial_infarct"])
def test_the_faint_are_fainter(kind: str) -> None:
    sequence = SHOWN[kind][0]
    plain, faint = (
        abs(inside(one, sequence) - _healthy(sequence)[1]) for one in (head(kind), head(kind, strength=0.1))
    )
    assert faint < 0.75 * plain


@pytest.mark.parametrize("kind", ["territorial_infarct", "lacunar_infarct", "abscess"])
def test_restricted_diffusion_is_bright_on_dwi_and_dark_on_adc(kind: str) -> None:
    one = head(kind)
    restricted = (one.lesion == 1) & (one.adc < 0.6)
    assert image(one, "DWI")[restricted].mean() > 1.3 * white(one, "DWI")
    assert image(one, "ADC")[restricted].mean() < 0.8 * white(one, "ADC")


@pytest.mark.parametrize("kind", ["high_grade_glioma", "metastasis", "meningioma", "schwannoma", "lymphoma"])
def test_enhancement_shows_on_t1c_only(kind: str) -> None:
    one = head(kind)
    bare = replace(one, uptake=np.zeros_like(one.uptake))
    for sequence in ("T1", "FLAIR"):
        assert np.array_equal(image(one, sequence), image(bare, sequence))
    lesion = one.lesion == 1
    assert image(one, "T1C")[lesion].mean() > 1.25 * image(bare, "T1C")[lesion].mean()


@pytest.mark.parametrize("kind", ["low_grade_glioma", "arachnoid_cyst", "small_vessel_disease", "encephalomalacia"])
def test_what_does_not_take_up_agent_does_not_enhance(kind: str) -> None:
    one = head(kind)
    assert inside(one, "T1C") < 1.1 * inside(replace(one, uptake=np.zeros_like(one.uptake)), "T1C")


def test_a_cavernoma_blooms() -> None:
    """Dark on T2* over more than it is dark on T2."""
    one = head("cavernoma")
    near = np.abs(image(one, "T2STAR") - image(_head(), "T2STAR")) > 0
    dark = [(image(one, sequence)[near] < 0.4 * white(one, sequence)).sum() for sequence in ("T2STAR", "T2")]
    assert dark[0] > 1.5 * dark[1]


@pytest.mark.parametrize(
    ("age", "t1_bright", "t2_bright"),
    [("acute", False, False), ("early subacute", True, False), ("late subacute", True, True)],
)
def test_a_clot_looks_its_age(age: str, t1_bright: bool, t2_bright: bool) -> None:
    one = head("haematoma", attributes={"age": age}, strength=1.0)
    core = (one.lesion == 1) & (one.t2_ms > 30) & ((one.t1_ms < 450) == t1_bright)
    assert (image(one, "T1")[core].mean() > 1.1 * white(one, "T1")) == t1_bright
    assert (image(one, "T2")[core].mean() > white(one, "T2")) == t2_bright


def test_an_arachnoid_cyst_is_fluid_on_every_sequence() -> None:
    one = head("arachnoid_cyst")
    assert one.fluid[one.lesion == 1].mean() > 0.8
    assert inside(one, "FLAIR") < 0.6 * white(one, "FLAIR")


def test_blood_in_sulci_is_not_nulled_on_flair() -> None:
    one = head("subarachnoid_haemorrhage")
    bloody = (one.lesion == 1) & (_head().fluid > 0.6)
    assert image(one, "FLAIR")[bloody].mean() > 3 * image(_head(), "FLAIR")[bloody].mean()


def test_wide_ventricles_hold_more_and_grow_with_strength() -> None:
    deep = (slice(48, 72), slice(30, 84), slice(28, 68))
    volumes = [
        one.fluid[deep].sum() for one in (_head(), head("ventriculomegaly", strength=0.2), head("ventriculomegaly"))
    ]
    assert volumes[1] > 1.25 * volumes[0]
    assert volumes[2] > 1.25 * volumes[1]


def test_tonsils_reach_into_the_canal() -> None:
    tissue = [(1 - one.fluid) * one.proton_density for one in (head("chiari_malformation", size_mm=16.0), _head())]
    below = (slice(14, 24), slice(72, 82), slice(44, 52))
    assert tissue[0][below].sum() > 1.15 * tissue[1][below].sum()


def test_a_lesion_on_the_left_is_on_the_left() -> None:
    for side, direction in (("left", 1), ("right", -1)):
        one = head("high_grade_glioma", side=side)
        x = np.nonzero(one.lesion == 1)[2].mean() * one.affine[0, 0] + one.affine[0, 3]
        assert np.sign(x) == direction


def test_several_are_several() -> None:
    from scipy import ndimage

    single, many = (ndimage.label(head("metastasis", count=count).lesion == 1)[1] for count in (1, 8))
    assert single == 1
    assert many >= 5


def test_a_cavity_lies_where_the_tumour_is() -> None:
    pair = tuple(finding(kind, site="parietal lobe") for kind in ("high_grade_glioma", "resection_cavity"))
    one = build_head(Case(21, 50.0, "F", pair))
    centres = [np.argwhere(one.lesion == number).mean(axis=0) for number in (1, 2)]
    assert np.linalg.norm(centres[0] - centres[1]) * 2 < 45
