from __future__ import annotations

import numpy as np
import pytest

from training.phantom import signal
from training.phantom.signal import FLUID, GRAY, WHITE, Tissue, brightness
from training.phantom.types import SeriesPlan

FAT_LIKE_BLOOD = Tissue(0.85, 380.0, 320.0, 70.0, 0.9)
BLOOD_BREAKDOWN = Tissue(0.7, 1100.0, 60.0, 4.0, 0.6)
ACUTE_STROKE = Tissue(0.86, 1350.0, 130.0, 85.0, 0.40)
TIMES = {
    "T1": (550, 12, 0, 90),
    "T1C": (550, 12, 0, 90),
    "T2": (4500, 100, 0, 90),
    "FLAIR": (9000, 120, 2500, 90),
    "DWI": (5000, 85, 0, 90),
    "ADC": (5000, 85, 0, 90),
    "T2STAR": (700, 20, 0, 20),
}


def plan(sequence: str, **changes: float) -> SeriesPlan:
    repetition, echo, inversion, flip = TIMES[sequence]
    values = {"repetition_ms": repetition, "echo_ms": echo, "inversion_ms": inversion, "flip_degrees": flip} | changes
    return SeriesPlan(sequence, "axial", sequence, sequence, 128, 1.8, 20, 6.0, 5.0, **values)


def test_spin_echo_is_the_textbook_equation() -> None:
    expected = 0.82 * (1 - np.exp(-550 / 1280)) * np.exp(-12 / 96)
    assert brightness(plan("T1"), GRAY) == pytest.approx(expected)


def test_gradient_echo_is_the_spoiled_steady_state() -> None:
    e1, flip = np.exp(-700 / 730), np.radians(20)
    expected = 0.70 * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * np.exp(-20 / 56)
    assert brightness(plan("T2STAR"), WHITE) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sequence", "order"),
    [
        ("T1", (WHITE, GRAY, FLUID)),
        ("T1C", (WHITE, GRAY, FLUID)),
        ("T2", (FLUID, GRAY, WHITE)),
        ("FLAIR", (GRAY, WHITE, FLUID)),
        ("DWI", (GRAY, WHITE, FLUID)),
        ("T2STAR", (FLUID, GRAY, WHITE)),
    ],
)
def test_tissues_are_in_the_order_that_radiologists_know(sequence: str, order: tuple[Tissue, ...]) -> None:
    values = [brightness(plan(sequence), tissue) for tissue in order]
    assert values == sorted(values, reverse=True)


def test_inversion_at_the_right_time_nulls_fluid() -> None:
    null = 4000 * np.log(2 / (1 + np.exp(-9000 / 4000)))
    assert brightness(plan("FLAIR", inversion_ms=null), FLUID) == pytest.approx(0, abs=1e-6)


def test_an_acute_stroke_is_bright_on_diffusion_and_not_by_its_t2_alone() -> None:
    stroke, normal = (brightness(plan("DWI"), tissue) for tissue in (ACUTE_STROKE, GRAY))
    unweighted = [brightness(plan("DWI"), tissue, 0.0) for tissue in (ACUTE_STROKE, GRAY)]
    assert stroke / normal > 1.3 * unweighted[0] / unweighted[1]


def test_contrast_agent_brightens_t1c_and_nothing_else() -> None:
    with_agent = Tissue(0.82, 1280.0, 96.0, 62.0, 0.82, uptake=1.0)
    assert brightness(plan("T1C"), with_agent) > 1.5 * brightness(plan("T1C"), GRAY)
    for sequence in ("T1", "T2", "FLAIR", "DWI", "T2STAR"):
        assert brightness(plan(sequence), with_agent) == brightness(plan(sequence), GRAY)


def test_haemosiderin_is_black_on_t2_star_only_and_methaemoglobin_bright_on_t1() -> None:
    assert brightness(plan("T2STAR"), BLOOD_BREAKDOWN) < 0.1 * brightness(plan("T2STAR"), GRAY)
    assert brightness(plan("T2"), BLOOD_BREAKDOWN) > 0.3 * brightness(plan("T2"), GRAY)
    assert brightness(plan("T1"), FAT_LIKE_BLOOD) > 1.3 * brightness(plan("T1"), WHITE)


def test_the_brightest_expected_tissue_has_the_plans_scale() -> None:
    for sequence in ("T1", "T2", "FLAIR", "DWI", "T2STAR"):
        one = plan(sequence)
        values = [brightness(one, tissue) * signal.stored_scale(one) for tissue in (GRAY, WHITE, FLUID)]
        assert max(values) == pytest.approx(one.scale)


def test_noise_is_the_stated_share_of_white_matter() -> None:
    one = plan("T2", noise=0.03)
    assert signal.noise_level(one) == pytest.approx(0.03 * brightness(one, WHITE) * signal.stored_scale(one))
