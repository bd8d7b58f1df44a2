"""What changes the brain as a whole: atrophy, wide ventricles, low tonsils; and encephalomalacia."""

from __future__ import annotations

import numpy as np

from training.phantom.lesions.canvas import Canvas, Lesion, faded, within_skull
from training.phantom.lesions.ischaemia import CORES, supplied
from training.phantom.lesions.sites import sign
from training.phantom.types import Finding
from training.phantom.warp import Push


def cerebral_atrophy(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Wide sulci and, behind them, wide ventricles."""

    def paint(canvas: Canvas) -> Finding:
        return finding

    return Lesion(paint, atrophy=0.4 + 0.9 * finding.strength, widening_mm=1.0 + 3.5 * finding.strength, order=0)


def ventriculomegaly(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Wide ventricles; where pressure is high, fluid seeps into the white matter around them and sulci close."""
    high_pressure = finding.attributes.get("type") == "obstructive"

    def paint(canvas: Canvas) -> Finding:
        box = canvas.warp.box((0, 10, 14), 72)
        near = canvas.at(box, canvas.base.to_ventricle, template=True)
        if high_pressure:
            seep = np.clip(1.1 - near / (3 + 4 * finding.strength), 0, 1) * canvas.white[box] * np.float32(0.7)
            canvas.tint(box, seep, fluid=canvas.fluid[box].copy(), t1_ms=1250, t2_ms=170, adc=1.5)
        canvas.lesion[box][canvas.ventricles[box] > 0.5] = canvas.number
        return finding

    return Lesion(paint, widening_mm=4.0 + 9.0 * finding.strength, atrophy=-0.4 if high_pressure else 0.1, order=0)


def chiari_malformation(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Tonsils, pointed like pegs, below the foramen magnum behind the cord."""
    descent = finding.size_mm

    def paint(canvas: Canvas) -> Finding:
        for side in (-1, 1):
            length = descent + 4
            box, peg = canvas.blob(
                (5.0 * side, 50.0, -62 - length / 2 + 3), (5.0, 4.8, length / 2 + 3), rough=0.05, edge_mm=0.8
            )
            canvas.paint(box, peg, t1_ms=1150, t2_ms=92, t2star_ms=60, adc=0.8, proton_density=0.81)
        return finding

    return Lesion(paint, tonsils_mm=0.6 * descent, order=1)


def encephalomalacia(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """What an old stroke or injury leaves: fluid where brain was, a gliotic edge, the ventricle drawn to it."""
    name = finding.site
    side = sign(finding.side, generator)
    x, y, z = (float(generator.normal(c, 5)) for c in CORES[name])
    centre, radius = (abs(x) * side, y, z), finding.size_mm / 2

    def paint(canvas: Canvas) -> Finding:
        box, mask = canvas.blob(centre, radius * np.array([1.0, 1.15, 1.05]), rough=0.28, edge_mm=3, template=True)
        mask *= supplied(canvas, box, name, side) * (canvas.ventricles[box] < 0.3)
        mask = within_skull(canvas, box, mask)
        gliosis = {"t1_ms": 1350, "t2_ms": 165, "t2star_ms": 110, "adc": 1.4, "proton_density": 0.86}
        lost = np.clip(0.75 + 0.35 * canvas.noise(box, 6), 0, 1) * np.clip(mask * 1.6 - 0.6, 0, 1)
        fluid = np.maximum(canvas.fluid[box], 0.92 * lost).astype(np.float32)
        canvas.paint(box, faded(finding, mask), fluid=fluid, **gliosis)
        return finding

    return Lesion(paint, pushes=(Push(centre, -0.14 * radius, radius, 24),), order=1)
