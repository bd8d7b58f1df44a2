"""Which series a scanner makes, and how: drawn from distributions that are fixed before anything is trained.

There are three domains. "home" is where a model is at work. "teaching" is a collection of patients with more findings
than is usual, on the scanners of "home": where it learns. "away" is another country's hospital: other vendors and
words, thicker slices, other matrices and fields, more noise and shading. What is drawn never depends on what is wrong
with the patient, so that neither words nor parameters give a diagnosis away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from training.base.errors import BadTrainingData
from training.phantom.types import SeriesPlan, StudyProtocol
from training.phantom.vendors import AWAY, HOME, Habits, Scanner

_Choice = TypeVar("_Choice")
_Names = tuple[str, str]  # of one series: Series Description and Protocol Name

FEWEST_SERIES, MOST_SERIES = 3, 6
FEWEST_SLICES, MOST_SLICES = 18, 28
COVERAGE_MM = {"axial": 145.0, "sagittal": 145.0, "coronal": 170.0}

# What is acquired together, and how often; in the order of acquisition.
BLOCKS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("T1 sagittal",), 0.50),
    (("DWI axial", "ADC axial"), 0.80),
    (("T2 axial",), 0.85),
    (("T2 coronal",), 0.05),
    (("FLAIR axial",), 0.95),
    (("FLAIR sagittal",), 0.04),
    (("T2STAR axial",), 0.35),
    (("SWI axial",), 0.15),
    (("T1 axial",), 0.08),
    (("T1C axial",), 0.50),
    (("T1C coronal",), 0.12),
)


@dataclass(frozen=True)
class Timing:
    """Ranges of one sequence, ms and degrees."""

    repetition: tuple[float, float]
    echo: tuple[float, float]
    flip: tuple[float, float]
    inversion: tuple[float, float] = (0.0, 0.0)


TIMINGS = {
    "T1": Timing((420, 650), (8, 15), (70, 90)),
    "T1C": Timing((420, 650), (8, 15), (70, 90)),
    "T2": Timing((3500, 6000), (82, 112), (90, 160)),
    "FLAIR": Timing((8000, 10000), (90, 135), (90, 160), (2250, 2600)),
    "DWI": Timing((3600, 7500), (65, 100), (90, 90)),
    "ADC": Timing((3600, 7500), (65, 100), (90, 90)),
    "T2STAR": Timing((500, 850), (15, 25), (15, 25)),
    "SWI": Timing((27, 50), (20, 35), (12, 18)),
}
ADC_SCALE = 3200.0  # fluid, 10⁻⁶ mm²/s: the unit in which vendors store the map


@dataclass(frozen=True)
class Domain:
    """Distributions of one domain; pairs are ranges.

    matrices: each with its share. gap: distance between slices as a share of the thickness. noise: at 1.5 tesla.
    moved, wrapped: share of the series with motion, and with a field of view that is too small.
    """

    scanners: Sequence[Scanner]
    matrices: dict[int, float]
    field_of_view_mm: tuple[float, float]
    thickness_mm: tuple[float, ...]
    gap: tuple[float, float]
    noise: tuple[float, float]
    bias: tuple[float, float]
    scale: tuple[float, float]
    moved: float
    wrapped: float


DOMAINS = {
    "home": Domain(
        scanners=HOME,
        matrices={224: 0.2, 256: 0.6, 288: 0.12, 320: 0.08},
        field_of_view_mm=(220, 240),
        thickness_mm=(4.0, 4.5, 5.0, 5.0, 5.0, 5.5),
        gap=(0.1, 0.3),
        noise=(0.015, 0.03),
        bias=(0.05, 0.30),
        scale=(400, 900),
        moved=0.15,
        wrapped=0.03,
    ),
    "away": Domain(
        scanners=AWAY,
        matrices={192: 0.35, 240: 0.35, 256: 0.2, 320: 0.1},
        field_of_view_mm=(210, 250),
        thickness_mm=(5.0, 5.5, 6.0, 6.0),
        gap=(0.0, 0.2),
        noise=(0.025, 0.05),
        bias=(0.20, 0.50),
        scale=(300, 700),
        moved=0.30,
        wrapped=0.08,
    ),
}
DOMAINS["teaching"] = DOMAINS["home"]


def draw_protocol(generator: np.random.Generator, domain: str) -> StudyProtocol:
    """One study's scanner and 3 to 6 series, in the order of acquisition. Raises BadTrainingData: unknown domain."""
    if domain not in DOMAINS:
        raise BadTrainingData(f"unknown domain {domain!r}; use {', '.join(DOMAINS)}")
    scanner = _one(generator, DOMAINS[domain].scanners)
    kinds = _kinds(generator)
    return StudyProtocol(
        vendor=scanner.vendor,
        model=scanner.model,
        site=scanner.site,
        field_strength=scanner.field_strength,
        study_description=_one(generator, scanner.habits.studies),
        series=_series(generator, DOMAINS[domain], kinds, _names(generator, scanner.habits, kinds), scanner),
    )


def _kinds(generator: np.random.Generator) -> list[str]:
    """Such as ["DWI axial", "ADC axial", "FLAIR axial"]."""
    order = [index for index, (_, share) in enumerate(BLOCKS) if generator.random() < share]
    while sum(len(BLOCKS[index][0]) for index in order) > MOST_SERIES:
        order.pop(int(generator.integers(len(order))))
    while sum(len(BLOCKS[index][0]) for index in order) < FEWEST_SERIES:
        order = sorted({*order, int(generator.integers(len(BLOCKS)))})
    return [kind for index in order for kind in BLOCKS[index][0]]


def _names(generator: np.random.Generator, habits: Habits, kinds: Sequence[str]) -> Mapping[str, _Names]:
    protocol = _one(generator, habits.protocols)
    names: dict[str, _Names] = {}
    for kind in kinds:
        sequence = kind.split()[0]
        if sequence in habits.maps:
            name = names["DWI axial"][1] if sequence == "ADC" else _one(generator, habits.series[kind])
            names[kind] = name + habits.maps[sequence], name
        else:
            name = _one(generator, habits.series[kind])
            names[kind] = name, protocol.format(name)
    return names


def _series(
    generator: np.random.Generator,
    domain: Domain,
    kinds: Sequence[str],
    names: Mapping[str, _Names],
    scanner: Scanner,
) -> tuple[SeriesPlan, ...]:
    tilt = _between(generator, (-12, 12), 1)
    plans: list[SeriesPlan] = []
    for kind in kinds:
        if kind == "ADC axial":  # computed from the diffusion images before it
            plan = replace(plans[-1], sequence="ADC", scale=ADC_SCALE)
        else:
            plan = _plan(generator, domain, kind, scanner.field_strength)
        description, protocol_name = names[kind]
        tilted = 0.0 if plan.plane == "sagittal" else tilt
        plans.append(replace(plan, description=description, protocol_name=protocol_name, tilt_degrees=tilted))
    return tuple(plans)


def _plan(generator: np.random.Generator, domain: Domain, kind: str, field_strength: float) -> SeriesPlan:
    sequence, plane = kind.split()
    timing = TIMINGS[sequence]
    matrix = int(generator.choice(list(domain.matrices), p=list(domain.matrices.values())))
    thickness = _one(generator, domain.thickness_mm)
    spacing, slices = _slices(thickness * (1 + _between(generator, domain.gap)), COVERAGE_MM[plane])
    stronger = (field_strength / 1.5) ** 0.5
    return SeriesPlan(
        sequence="T2STAR" if sequence == "SWI" else sequence,
        plane=plane,
        description="",
        protocol_name="",
        matrix=matrix,
        pixel_mm=round(_between(generator, domain.field_of_view_mm) / matrix, 6),
        slices=slices,
        spacing_mm=spacing,
        thickness_mm=thickness,
        repetition_ms=_between(generator, timing.repetition, 0),
        echo_ms=_between(generator, timing.echo, 1),
        inversion_ms=_between(generator, timing.inversion, 0),
        flip_degrees=_between(generator, timing.flip, 0),
        noise=round(_between(generator, domain.noise) / stronger, 4),
        bias=round(_between(generator, domain.bias) * stronger, 4),
        motion=_between(generator, (0.05, 0.3)) if generator.random() < domain.moved else 0.0,
        wrap=_between(generator, (0.02, 0.08)) if generator.random() < domain.wrapped else 0.0,
        scale=_between(generator, domain.scale, 0),
    )


def _slices(spacing: float, coverage: float) -> tuple[float, int]:
    """Distance of the slices and their number: the gap grows where they would not cover the brain."""
    spacing = round(max(spacing, coverage / MOST_SLICES), 2)
    return spacing, min(MOST_SLICES, max(FEWEST_SLICES, round(coverage / spacing)))


def _one(generator: np.random.Generator, choices: Sequence[_Choice]) -> _Choice:
    return choices[int(generator.integers(len(choices)))]


def _between(generator: np.random.Generator, limits: tuple[float, float], digits: int = 4) -> float:
    return round(float(generator.uniform(*limits)), digits)
