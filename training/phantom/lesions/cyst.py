"""Arachnoid and colloid cysts."""

from __future__ import annotations

import numpy as np

from training.phantom.lesions.canvas import Canvas, Lesion, faded, towards_skull, within_skull
from training.phantom.lesions.sites import place
from training.phantom.template import template
from training.phantom.types import Finding
from training.phantom.warp import Push


def arachnoid_cyst(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A smooth pocket of pure cerebrospinal fluid between brain and skull."""
    radius = finding.size_mm / 2
    centre = towards_skull(template(), place(finding, seed), 0.75 * radius)
    stretch = generator.uniform(0.85, 1.2, 3)

    def paint(canvas: Canvas) -> Finding:
        box, mask = canvas.blob(centre, radius * stretch, rough=0.04)
        canvas.paint(box, within_skull(canvas, box, mask, 0), fluid=1.0)
        return finding

    return Lesion(paint, pushes=(Push(centre, 0.55 * radius, radius, 20),), order=4)


def colloid_cyst(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A round drop of protein in the roof of the third ventricle; it blocks both lateral ventricles as it grows."""
    radius = finding.size_mm / 2
    centre = place(finding, seed)
    bright = finding.attributes.get("t1") != "isointense"

    def paint(canvas: Canvas) -> Finding:
        box, mask = canvas.blob(centre, radius, rough=0.03, edge_mm=0.8)
        canvas.paint(
            box,
            faded(finding, mask),
            t1_ms=480 if bright else 1100,
            t2_ms=85,
            t2star_ms=55,
            adc=0.75,
            proton_density=0.9,
        )
        return finding

    widening = 0.35 * finding.size_mm * float(generator.uniform(0.3, 1.1))
    return Lesion(paint, widening_mm=widening, pushes=(Push(centre, 0.5 * radius, radius, 8),), order=4)
