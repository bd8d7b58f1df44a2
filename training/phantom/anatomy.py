"""A case → the patient's head: the average head bent to an individual's, then what is wrong with it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from training.phantom.lesions import LESIONS, Canvas, Lesion
from training.phantom.signal import AIR, FAT, GRAY, SOFT, WHITE
from training.phantom.template import ORIGIN_MM, SHAPE, SPACING_MM, TISSUES, Template, template
from training.phantom.types import Case, Finding, Head, Map
from training.phantom.warp import Pose, Warp, make_warp, sampling

NORMAL = {"gray": GRAY, "white": WHITE, "fat": FAT, "soft": SOFT}  # fluid has a compartment of its own
PROPERTIES = ("proton_density", "t1_ms", "t2_ms", "t2star_ms", "adc")
CHANNELS = (*TISSUES, "ventricles", "sulci", "uptake")

SHIFT_MM = 5.0  # the least that is called a midline shift
MASS_EFFECT_MM = 7.0
SUBFALCINE_MM, UNCAL_MM, TONSILLAR_MM = 8.0, 5.0, 5.0  # of midline, uncus and tonsils: the least that is a herniation
EDEMA_ML = 6.0
CONSEQUENCES = {
    "mass_effect": "structural_mass_effect",
    "midline_shift": "structural_midline_shift",
    "brain_herniation": "structural_brain_herniation",
    "edema": "structural_edema",
}


def build_head(case: Case) -> Head:
    """The head of this patient, the same for the same case. `Head.case` says what was really built.

    A finding's shape depends on the case's seed and its own kind only: the head without it is otherwise the same.
    Raises BadTrainingData when nilearn is not installed.
    """
    base = template()
    generator = _stream(case, "head")
    lesions = [LESIONS[one.kind](one, case.seed, _stream(case, one.kind)) for one in case.findings]
    warp = make_warp(
        base,
        _pose(case, generator),
        generator,
        pushes=[push for lesion in lesions for push in lesion.pushes],
        layers=[layer for lesion in lesions for layer in lesion.layers],
        widening_mm=_widening(case, generator) + sum(lesion.widening_mm for lesion in lesions),
        tonsils_mm=sum(lesion.tonsils_mm for lesion in lesions),
    )
    atrophy = 0.006 * max(0.0, case.age_years - 45) + sum(lesion.atrophy for lesion in lesions)
    canvas = _canvas(base, warp, atrophy + float(generator.normal(0, 0.05)), generator)
    built = _paint(canvas, case, lesions)
    findings = (*built, *_consequences(warp, canvas))
    for number, finding in enumerate(findings, 1):
        if finding.kind == "edema":
            canvas.lesion[canvas.edema & (canvas.lesion == 0)] = number
    return Head(
        case=replace(case, findings=findings),
        fluid=canvas.fluid,
        fat=canvas.fat,
        proton_density=canvas.proton_density,
        t1_ms=canvas.t1_ms,
        t2_ms=canvas.t2_ms,
        t2star_ms=canvas.t2star_ms,
        adc=canvas.adc,
        uptake=canvas.uptake,
        lesion=canvas.lesion,
        affine=_affine(),
    )


def _stream(case: Case, name: str) -> np.random.Generator:
    return np.random.default_rng([case.seed, zlib.crc32(name.encode())])


def _affine() -> npt.NDArray[np.float64]:
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = ORIGIN_MM
    return affine


def _pose(case: Case, generator: np.random.Generator) -> Pose:
    size = 0.955 if case.sex == "M" else 0.915
    scale = size * generator.normal(1, [0.03, 0.03, 0.03])
    turn = generator.normal(0, [4, 2, 2.5])
    shift = generator.normal(0, [2, 3, 4])
    x, y, z = (float(np.clip(value, 0.82, 1.0)) for value in scale)
    return Pose(
        (float(turn[0]), float(turn[1]), float(turn[2])), (x, y, z), (float(shift[0]), float(shift[1]), float(shift[2]))
    )


def _widening(case: Case, generator: np.random.Generator) -> float:
    """Ventricles grow with age, and differ between healthy people."""
    return float(np.clip(generator.normal(-0.4 + 0.028 * max(0.0, case.age_years - 30), 0.6), -1.5, 3.5))


def _canvas(base: Template, warp: Warp, atrophy: float, generator: np.random.Generator) -> Canvas:
    everywhere = (slice(0, SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
    points = warp.points(everywhere, template=True).reshape(3, -1)
    inside = np.flatnonzero(warp.occupied)
    shares = dict(zip(CHANNELS, np.ascontiguousarray((sampling(points[:, inside]) @ base.channels).T), strict=True))
    _shrink(shares, atrophy)
    share = {name: _spread(values, inside, 0) for name, values in shares.items()}
    maps = {name: _spread(values, inside, getattr(AIR, name)) for name, values in _properties(shares).items()}
    canvas = Canvas(
        base=base,
        warp=warp,
        generator=generator,
        gray=share["gray"],
        white=share["white"],
        ventricles=share["ventricles"],
        fluid=share["fluid"],
        fat=share["fat"],
        uptake=share["uptake"],
        lesion=np.zeros(SHAPE, np.uint8),
        edema=np.zeros(SHAPE, np.bool_),
        proton_density=maps["proton_density"],
        t1_ms=maps["t1_ms"],
        t2_ms=maps["t2_ms"],
        t2star_ms=maps["t2star_ms"],
        adc=maps["adc"],
    )
    canvas.proton_density *= 1 + 0.012 * canvas.noise(everywhere, 3)
    return canvas


def _shrink(shares: Mapping[str, Map], atrophy: float) -> None:
    """Cortex beside sulci gives way to fluid (or, where atrophy is negative, sulci close)."""
    gray, fluid = shares["gray"], shares["fluid"]
    if atrophy > 0:
        lost = np.clip(2.2 * atrophy * (shares["sulci"] - 0.12), 0, 0.9) * gray
    else:
        closes = (shares["sulci"] < 0.5) & (shares["ventricles"] < 0.05)
        lost = max(1.2 * atrophy, -0.8) * fluid * closes
    gray -= lost
    fluid += lost


def _properties(shares: Mapping[str, Map]) -> dict[str, Map]:
    """What a voxel's solid part is like; bone and air hold no protons."""
    solid = sum(shares[name] for name in NORMAL)
    weights = {name: shares[name] / np.maximum(solid, 1e-3) for name in NORMAL}
    there = solid > 2e-3
    mixed: dict[str, Map] = {}
    for name in PROPERTIES:
        value = sum(weights[one] * np.float32(getattr(tissue, name)) for one, tissue in NORMAL.items())
        mixed[name] = np.where(there, value, np.float32(getattr(AIR, name)))
    mixed["proton_density"] *= np.clip(solid / np.maximum(1 - shares["fluid"], 1e-3), 0, 1)
    return mixed


def _spread(values: Map, inside: npt.NDArray[np.int_], fill: float) -> Map:
    whole = np.full(int(np.prod(SHAPE)), fill, np.float32)
    whole[inside] = values
    return whole.reshape(SHAPE)


def _paint(canvas: Canvas, case: Case, lesions: list[Lesion]) -> tuple[Finding, ...]:
    built = list(case.findings)
    for index in sorted(range(len(lesions)), key=lambda index: lesions[index].order):
        canvas.number = index + 1
        canvas.generator = _stream(case, f"paint {case.findings[index].kind}")
        built[index] = lesions[index].paint(canvas)
    return tuple(built)


def _consequences(warp: Warp, canvas: Canvas) -> Iterable[Finding]:
    """What followed from the findings, by measurement."""
    shift = abs(warp.shift_mm)
    side = "left" if warp.shift_mm > 0 else "right"
    if canvas.edema_ml >= EDEMA_ML:
        grade = "mild" if canvas.edema_ml < 25 else "moderate" if canvas.edema_ml < 70 else "severe"
        yield _consequence("edema", 0, grade=grade)
    if warp.moved_mm >= MASS_EFFECT_MM:
        grade = "mild" if warp.moved_mm < 9 else "moderate" if warp.moved_mm < 13 else "severe"
        yield _consequence("mass_effect", 0, grade=grade)
    if shift >= SHIFT_MM:
        yield _consequence("midline_shift", shift, side)
    herniated = {
        "subfalcine": shift >= SUBFALCINE_MM,
        "uncal": warp.uncus_mm >= UNCAL_MM,
        "tonsillar": warp.tonsils_mm >= TONSILLAR_MM,
    }
    if any(herniated.values()):
        yield _consequence("brain_herniation", 0, type=next(name for name, there in herniated.items() if there))


def _consequence(kind: str, size_mm: float, side: str = "", **attributes: str) -> Finding:
    return Finding((CONSEQUENCES[kind],), kind, side=side, size_mm=round(size_mm, 1), attributes=attributes)
