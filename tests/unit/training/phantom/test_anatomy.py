from __future__ import annotations

import functools
from dataclasses import fields, replace

import numpy as np
import pytest

from training.phantom.anatomy import EDEMA_ML, SHIFT_MM, build_head
from training.phantom.case import KINDS, draw_case
from training.phantom.template import SHAPE
from training.phantom.types import Case, Finding, Head

VOXEL_ML = 0.008
MAPS = ("fluid", "fat", "proton_density", "t1_ms", "t2_ms", "t2star_ms", "adc", "uptake")


@functools.cache
def healthy(age: float = 35.0, seed: int = 5, sex: str = "F") -> Head:
    return build_head(Case(seed, age, sex, ()))


def finding(kind: str, **changes: object) -> Finding:
    shape = KINDS[kind]
    size = shape.size_mm[0] if shape.size_mm else 0.0
    plain = Finding(shape.keys, kind, side=shape.sides[0], site=shape.sites[0], size_mm=size, strength=0.9)
    return replace(plain, **changes)  # type: ignore[arg-type]


def brain(head: Head) -> np.ndarray:
    """Voxels of gray and white matter, by what they are like."""
    solid = (head.fluid < 0.3) & (head.proton_density > 0.6) & (head.fat < 0.1) & (head.t2_ms > 65) & (head.adc < 0.95)
    return np.asarray(solid)


def test_the_same_case_gives_the_same_head_and_another_seed_another() -> None:
    again = build_head(Case(5, 35.0, "F", ()))
    for one in fields(Head):
        assert np.array_equal(getattr(again, one.name), getattr(healthy(), one.name)), one.name
    assert not np.array_equal(healthy(seed=6).t1_ms, healthy().t1_ms)


@pytest.mark.parametrize("seed", [3, 8])
def test_maps_are_finite_in_range_and_of_one_shape(seed: int) -> None:
    head = build_head(draw_case(seed))
    for name in MAPS:
        values = getattr(head, name)
        assert values.shape == SHAPE, name
        assert values.dtype == np.float32, name
        assert np.isfinite(values).all(), name
        assert values.min() >= -1e-4, name
    for name in ("fluid", "fat", "uptake"):
        assert getattr(head, name).max() <= 1.0001, name
    assert min(head.t1_ms.min(), head.t2_ms.min(), head.t2star_ms.min()) > 1


def test_a_head_has_the_volumes_of_a_head() -> None:
    head = healthy()
    assert 900 < brain(head).sum() * VOXEL_ML < 1700
    cranial = (head.fluid > 0.5).sum() * VOXEL_ML
    assert 80 < cranial < 500
    assert head.lesion.max() == 0
    assert head.case.findings == ()


def test_the_affine_takes_the_middle_of_the_grid_to_the_middle_of_the_head() -> None:
    head = healthy()
    z, y, x = np.argwhere(brain(head)).mean(axis=0)
    middle = (head.affine @ [x, y, z, 1])[:3]
    assert np.allclose(middle, (0, 15, 5), atol=14)


def test_the_old_have_more_fluid_and_men_larger_heads() -> None:
    assert healthy(age=88).fluid.sum() > 1.1 * healthy().fluid.sum()
    assert (healthy(sex="M").proton_density > 0.1).sum() > 1.03 * (healthy().proton_density > 0.1).sum()


def test_a_large_mass_shifts_the_midline_away_from_it_and_the_size_is_measured() -> None:
    for side, towards in (("left", "right"), ("right", "left")):
        head = build_head(Case(5, 35, "F", (finding("subdural_haematoma", side=side, size_mm=22.0),)))
        shift = next(one for one in head.case.findings if one.kind == "midline_shift")
        assert shift.side == towards
        assert shift.size_mm >= SHIFT_MM
        assert "structural_midline_shift" in head.case.diagnoses
        assert "structural_mass_effect" in head.case.diagnoses
        # The same on the maps: the deep fluid near the middle has moved that way.
        moved = ventricular_middle(head) - ventricular_middle(healthy())
        assert np.sign(moved) == (1 if towards == "left" else -1)
        assert abs(moved) > 0.4 * shift.size_mm


def ventricular_middle(head: Head) -> float:
    """x in mm of the lateral ventricles' middle."""
    inside = head.fluid[58:70, 42:62, 34:62] > 0.7
    x = np.nonzero(inside)[2].mean() + 34
    return float(x * head.affine[0, 0] + head.affine[0, 3])


def test_a_thin_collection_shifts_nothing() -> None:
    head = build_head(Case(5, 35, "F", (finding("subdural_haematoma", size_mm=4.0),)))
    assert "structural_midline_shift" not in head.case.diagnoses
    assert "structural_brain_herniation" not in head.case.diagnoses


def test_oedema_is_a_label_where_it_was_painted_and_only_there() -> None:
    soaked = build_head(Case(5, 35, "F", (finding("abscess", size_mm=34.0),)))
    numbers = [one.kind for one in soaked.case.findings]
    assert "structural_edema" in soaked.case.diagnoses
    assert (soaked.lesion == numbers.index("edema") + 1).sum() * VOXEL_ML > EDEMA_ML / 2
    dry = build_head(Case(5, 35, "F", (finding("low_grade_glioma", size_mm=34.0),)))
    assert "structural_edema" not in dry.case.diagnoses


def test_one_finding_more_leaves_the_others_as_they_were() -> None:
    lacune = finding("lacunar_infarct", site="thalamus")
    alone = build_head(Case(5, 35, "F", (lacune,)))
    beside = build_head(Case(5, 35, "F", (lacune, finding("cavernoma", site="occipital lobe", side="right"))))
    assert np.array_equal(alone.lesion == 1, beside.lesion == 1)


def test_masses_draw_and_push_without_bending_bone() -> None:
    head = build_head(Case(5, 35, "F", (finding("high_grade_glioma", size_mm=60.0),)))
    outline, before = (one.proton_density.max(axis=1) > 0.1 for one in (head, healthy()))
    assert (outline != before).mean() < 0.002
