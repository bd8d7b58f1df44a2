"""Tumours inside the brain (gliomas, metastases, lymphoma) and outside it (meningioma, schwannoma, adenoma)."""

from __future__ import annotations

import numpy as np

from training.phantom.lesions.canvas import (
    Canvas,
    Lesion,
    Point,
    at_depth,
    faded,
    grown,
    paint_edema,
    towards_skull,
    within_skull,
)
from training.phantom.lesions.sites import place, scatter
from training.phantom.template import template
from training.phantom.types import Finding
from training.phantom.warp import Push

HIGH_GRADE = {"t1_ms": 1350, "t2_ms": 125, "t2star_ms": 70, "adc": 0.85, "proton_density": 0.88}
NECROSIS = {"t1_ms": 2400, "t2_ms": 350, "t2star_ms": 200, "adc": 2.1, "proton_density": 0.97, "uptake": 0.0}
LOW_GRADE = {"t1_ms": 1650, "t2_ms": 210, "t2star_ms": 130, "adc": 1.5, "proton_density": 0.9}
METASTASIS = {"t1_ms": 1250, "t2_ms": 115, "t2star_ms": 60, "adc": 0.95, "proton_density": 0.87}
LYMPHOMA = {"t1_ms": 1250, "t2_ms": 92, "t2star_ms": 62, "adc": 0.52, "proton_density": 0.84}
MENINGIOMA = {"t1_ms": 1230, "t2_ms": 98, "t2star_ms": 60, "adc": 0.85, "proton_density": 0.84}
SCHWANNOMA = {"t1_ms": 1450, "t2_ms": 150, "t2star_ms": 85, "adc": 1.25, "proton_density": 0.9}
ADENOMA = {"t1_ms": 1300, "t2_ms": 115, "t2star_ms": 55, "adc": 0.85, "proton_density": 0.86}


def high_grade_glioma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A ragged enhancing rim around necrosis, old blood in it, and oedema far into white matter."""
    radius = finding.size_mm / 2
    centre = at_depth(place(finding, seed), 0.6 * radius + 3)
    stretch = generator.uniform(0.75, 1.1, 3)
    ring = finding.attributes.get("enhancement", "ring") == "ring"

    def paint(canvas: Canvas) -> Finding:
        edema = paint_edema(canvas, finding, centre, radius, radius * 1.35 + generator.uniform(5, 16))
        shape = canvas.shape(centre, radius * stretch, rough=0.26)
        box = shape.box
        mass = within_skull(canvas, box, shape.mask())
        wave = canvas.noise(box, 4)
        canvas.paint(box, mass, **HIGH_GRADE | {"t2_ms": 125 * np.exp(0.15 * wave)})
        canvas.uptake[box] += faded(finding, mass) * (np.clip(0.75 + 0.25 * wave, 0.2, 1) - canvas.uptake[box])
        if ring:
            wall = (0.22 * radius + 1.2) * (1 + 0.35 * canvas.noise(box, 6))
            core = np.clip(0.5 + (shape.inside_mm - np.maximum(wall, 1.5)) / 2.4, 0, 1)
            canvas.paint(box, core, **NECROSIS)
        blood = mass * np.clip(canvas.noise(box, 3) - 1.2, 0, 1)
        canvas.paint(box, blood, t2star_ms=6, t2_ms=50)
        return grown(finding, edema=_extent(edema))

    return Lesion(paint, pushes=(Push(centre, 0.6 * radius + 1, radius, 46),), order=3)


def _extent(edema_ml: float) -> str:
    return "none" if edema_ml < 3 else "mild" if edema_ml < 20 else "marked"


def low_grade_glioma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """An expanding patch, bright on T2 and FLAIR, that neither enhances nor restricts diffusion."""
    radius = finding.size_mm / 2
    centre = at_depth(place(finding, seed), 0.6 * radius + 3)
    stretch = generator.uniform(0.75, 1.1, 3)

    def paint(canvas: Canvas) -> Finding:
        box, mass = canvas.blob(centre, radius * stretch, rough=0.2, edge_mm=3)
        mass = faded(finding, within_skull(canvas, box, mass)) * (canvas.ventricles[box] < 0.4)
        wave = 1 + 0.1 * canvas.noise(box, 6)
        canvas.paint(box, mass, fluid=0.15 * canvas.fluid[box], **LOW_GRADE | {"t2_ms": 210 * wave})
        return finding

    return Lesion(paint, pushes=(Push(centre, 0.38 * radius, radius, 32),), order=3)


def metastasis(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Round nodules where gray meets white matter, the larger ones with a necrotic middle; much oedema."""
    places: list[tuple[Point, float]] = [(at_depth(place(finding, seed), 0.4 * finding.size_mm), finding.size_mm / 2)]
    for x, y, z in scatter("juxtacortical", finding.count - 1, "", generator):
        places.append(((float(x), float(y), float(z)), max(2.0, finding.size_mm / 2 * float(generator.beta(2, 3)))))

    def paint(canvas: Canvas) -> Finding:
        edema = 0.0
        for centre, radius in places:
            if radius > 3:
                edema += paint_edema(canvas, finding, centre, radius, radius * 1.5 + generator.uniform(1, 12))
        for centre, radius in places:
            shape = canvas.shape(centre, radius * generator.uniform(0.85, 1.1, 3), rough=0.1)
            box = shape.box
            mass = within_skull(canvas, box, shape.mask())
            canvas.paint(box, faded(finding, mass), **METASTASIS)
            canvas.uptake[box] += faded(finding, mass) * (0.95 - canvas.uptake[box])
            if radius > 7:
                core = shape.mask(-0.33 * radius - 0.8 * np.clip(canvas.noise(box, 3), -1, 1))
                canvas.paint(box, core, **NECROSIS)
        return grown(finding, edema=_extent(edema))

    pushes = tuple(Push(centre, 0.5 * radius, radius, 34) for centre, radius in places if radius > 4)
    return Lesion(paint, pushes=pushes, order=3)


def lymphoma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Dense cells beside the ventricles: dark on ADC, enhancing evenly."""
    radius = finding.size_mm / 2
    centre = at_depth(place(finding, seed), 0.6 * radius + 3)
    stretch = generator.uniform(0.7, 1.15, 3)

    def paint(canvas: Canvas) -> Finding:
        edema = paint_edema(canvas, finding, centre, radius, radius * 1.4 + generator.uniform(4, 10))
        box, mass = canvas.blob(centre, radius * stretch, rough=0.2)
        mass = faded(finding, within_skull(canvas, box, mass) * (canvas.ventricles[box] < 0.5))
        canvas.paint(box, mass, **LYMPHOMA)
        canvas.uptake[box] += mass * (0.95 - canvas.uptake[box])
        return grown(finding, edema=_extent(edema))

    return Lesion(paint, pushes=(Push(centre, 0.4 * radius, radius, 34),), order=3)


def meningioma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A smooth half-dome on the dura that enhances evenly and pushes brain away, with a tail along the dura."""
    radius = finding.size_mm / 2
    centre = place(finding, seed)
    if finding.site == "convexity":
        centre = towards_skull(template(), centre, 0.5 * radius)
    if finding.site == "parafalcine":
        centre = (np.sign(centre[0]) * 0.6 * radius, centre[1], centre[2])
    stretch = generator.uniform(0.85, 1.1, 3)

    def paint(canvas: Canvas) -> Finding:
        edema = paint_edema(canvas, finding, centre, radius, radius * 1.2 + generator.uniform(-4, 9))
        shape = canvas.shape(centre, radius * stretch, rough=0.07)
        box = shape.box
        mass, cleft = (within_skull(canvas, box, shape.mask(grow), -0.5) for grow in (0.0, 1.6))
        tail_box, near = canvas.blob(centre, radius * 1.6, rough=0.1, edge_mm=4)
        distance = canvas.at(tail_box, canvas.base.distance)
        tail = near * np.clip(1.3 - np.abs(distance + 0.5) / 1.8, 0, 1)
        if finding.site == "parafalcine":
            x = canvas.warp.points(tail_box)[0]
            tail = np.maximum(tail, near * np.clip(1.3 - np.abs(x) / 1.5, 0, 1))
        canvas.uptake[tail_box] += 0.8 * tail * (1 - canvas.uptake[tail_box])
        canvas.tint(tail_box, (0.7 * tail).astype(np.float32), t1_ms=1100, t2_ms=70)
        canvas.tint(box, 0.6 * cleft, fluid=0.8)
        wave = 1 + 0.06 * canvas.noise(box, 4)
        canvas.paint(box, mass, fat=0.0, **MENINGIOMA | {"t2_ms": 98 * wave})
        canvas.uptake[box] += faded(finding, mass) * (1 - canvas.uptake[box])
        return grown(finding, edema=_extent(edema))

    return Lesion(paint, pushes=(Push(centre, 0.6 * radius, radius, 34),), order=4)


def schwannoma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """An ice-cream cone: a mass in the cerebellopontine angle and its stalk in the internal auditory canal."""
    radius = finding.size_mm / 2
    x, y, z = place(finding, seed)
    side = np.sign(x)
    centre = (x + side * 0.15 * radius, y, z)

    def paint(canvas: Canvas) -> Finding:
        stalk = (float(side * (abs(x) + radius + 3)), y, z)
        for spot, size, rough in ((stalk, (7, 3, 2.6), 0.05), (centre, radius * np.array([1.0, 1.05, 0.95]), 0.1)):
            box, mass = canvas.blob(spot, size, rough=rough)
            mass = faded(finding, mass)
            wave = canvas.noise(box, 3)
            canvas.paint(box, mass, fat=0.0, **SCHWANNOMA | {"t2_ms": 150 * np.exp(0.18 * wave)})
            canvas.uptake[box] += mass * (np.clip(0.9 - 0.2 * np.clip(wave - 0.5, 0, 2), 0.3, 1) - canvas.uptake[box])
        if radius > 11:
            box, cyst = canvas.blob((centre[0], y + 2, z), 0.35 * radius, rough=0.2)
            canvas.paint(box, cyst, **NECROSIS)
        return finding

    return Lesion(paint, pushes=(Push(centre, 0.5 * radius, radius, 22),), order=4)


def pituitary_adenoma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Small: a part of the gland that takes up less. Large: a snowman through the diaphragm towards the chiasm."""
    radius = finding.size_mm / 2
    x, y, z = place(finding, seed)
    lean = float(generator.normal(0, 2.0))
    large = finding.size_mm >= 10

    def paint(canvas: Canvas) -> Finding:
        parts = [((x + lean, y, z + 0.25 * radius), radius * np.array([1.1, 0.9, 0.8]))]
        if large:
            parts.append(((x + lean, y, z + 1.05 * radius), 0.75 * radius * np.array([1.0, 1.0, 0.9])))
        else:
            parts = [((x + np.sign(lean) * 3.5, y, z - 2), np.full(3, radius))]
        for spot, size in parts:
            box, mass = canvas.blob(spot, size, rough=0.06)
            mass = faded(finding, mass)
            canvas.paint(box, mass, fat=0.0, **ADENOMA)
            canvas.uptake[box] += mass * ((0.55 if large else 0.12) - canvas.uptake[box])
        return finding

    pushes = (Push((x, y, z + 0.5 * radius), 0.4 * radius, radius, 16),) if large else ()
    return Lesion(paint, pushes=pushes, order=4)
