"""Maps of a head → brightness, by the equations of the sequences.

Spin echo, inversion recovery and spoiled gradient echo: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences (2004),
chapters 14 and 15. Diffusion weighting: exp(−b ADC). Contrast agent shortens T1 (and a little T2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.phantom.types import Head, Map, SeriesPlan

B_VALUE = 1.0  # 10³ s/mm²: times an ADC in 10⁻³ mm²/s
RELAXATION_PER_S = 2.6  # by which contrast agent at uptake 1 raises 1 / T1
TRANSVERSE_PER_S = 1.5
GRADIENT_ECHO_BELOW = 60.0  # degrees: a smaller flip angle means a gradient echo
ADC_SCALE = 1000.0  # stored unit: 10⁻⁶ mm²/s
BRAIN_LEAST = 0.03  # of the unweighted image: below, an ADC map is left empty


@dataclass(frozen=True)
class Tissue:
    """What a signal is made of, as numbers or as maps; units as in `Head`."""

    proton_density: Any
    t1_ms: Any
    t2_ms: Any
    t2star_ms: Any
    adc: Any
    uptake: Any = 0.0


# Between what is measured at 1.5 and 3 T (Wansapura et al., JMRI 1999;9:531; Stanisz et al., MRM 2005;54:507).
FLUID = Tissue(1.0, 4000.0, 1800.0, 900.0, 3.0)
GRAY = Tissue(0.82, 1280.0, 96.0, 62.0, 0.82)
WHITE = Tissue(0.70, 730.0, 76.0, 56.0, 0.73)
FAT = Tissue(0.80, 300.0, 85.0, 28.0, 0.10)
SOFT = Tissue(0.70, 1000.0, 42.0, 28.0, 1.30)  # skin, muscle, mucosa
AIR = Tissue(0.0, 1000.0, 50.0, 30.0, 1.0)
ENHANCED = Tissue(0.86, 1300.0, 110.0, 60.0, 0.9, 0.9)


def brightness(plan: SeriesPlan, tissue: Tissue, b_value: float = B_VALUE) -> Any:
    """Signal of a tissue, 0…1, in the sequence's units. b_value counts in DWI only."""
    t1, t2 = tissue.t1_ms, tissue.t2_ms
    if plan.sequence == "T1C":
        t1 = 1 / (1 / t1 + tissue.uptake * (RELAXATION_PER_S / 1000))
        t2 = 1 / (1 / t2 + tissue.uptake * (TRANSVERSE_PER_S / 1000))
    recovery = np.exp(-plan.repetition_ms / t1)
    if plan.inversion_ms > 0:
        longitudinal = np.abs(1 - 2 * np.exp(-plan.inversion_ms / t1) + recovery)
        return tissue.proton_density * longitudinal * np.exp(-plan.echo_ms / t2)
    if plan.flip_degrees < GRADIENT_ECHO_BELOW:
        flip = math.radians(plan.flip_degrees)
        longitudinal = math.sin(flip) * (1 - recovery) / (1 - math.cos(flip) * recovery)
        decay = tissue.t2star_ms if plan.sequence == "T2STAR" else np.minimum(t2, 4 * tissue.t2star_ms)
        return tissue.proton_density * longitudinal * np.exp(-plan.echo_ms / decay)
    signal = tissue.proton_density * (1 - recovery) * np.exp(-plan.echo_ms / t2)
    return signal * np.exp(-b_value * tissue.adc) if plan.sequence in ("DWI", "ADC") else signal


def image(plan: SeriesPlan, head: Head) -> Map:
    """The head as the sequence sees it, (z, y, x), without coil or noise. ADC: 10⁻⁶ mm²/s, 0 where nothing is measured.

    A voxel's fluid and the rest of it add up. Diffusion images are fat-suppressed, as echo-planar imaging must be.
    """
    if plan.sequence == "ADC":
        unweighted, weighted = (_mixed(plan, head, b_value) for b_value in (0.0, B_VALUE))
        measured = np.log(np.maximum(unweighted, 1e-6) / np.maximum(weighted, 1e-6)) / B_VALUE
        return np.where(unweighted > BRAIN_LEAST, ADC_SCALE * np.clip(measured, 0, 4), 0).astype(np.float32)
    return _mixed(plan, head, B_VALUE)


def _mixed(plan: SeriesPlan, head: Head, b_value: float) -> Map:
    solid = Tissue(head.proton_density, head.t1_ms, head.t2_ms, head.t2star_ms, head.adc, head.uptake)
    signal = brightness(plan, solid, b_value) * (1 - head.fluid) + brightness(plan, FLUID, b_value) * head.fluid
    if plan.sequence in ("DWI", "ADC"):
        signal = signal * (1 - head.fat) ** 2
    return np.asarray(signal, np.float32)


def stored_scale(plan: SeriesPlan) -> float:
    """Stored value of signal 1: brings the brightest expected tissue to the plan's scale."""
    expected = [FLUID, GRAY, WHITE] + ([ENHANCED] if plan.sequence == "T1C" else [])
    return plan.scale / max(float(brightness(plan, tissue)) for tissue in expected)


def noise_level(plan: SeriesPlan) -> float:
    """Standard deviation of each channel, in stored units."""
    return plan.noise * float(brightness(plan, WHITE)) * stored_scale(plan)
