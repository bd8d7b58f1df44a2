"""What surgeons leave: craniotomies, resection cavities, ventricular catheters."""

from __future__ import annotations

import numpy as np

from training.phantom.lesions.canvas import Canvas, Lesion, faded, towards_skull, within_skull
from training.phantom.lesions.haemorrhage import HAEMOSIDERIN
from training.phantom.lesions.sites import place, sign
from training.phantom.template import SCALP_MM, SKULL_MM, template
from training.phantom.types import Finding
from training.phantom.warp import Push

SCAR = {"t1_ms": 1150, "t2_ms": 75, "t2star_ms": 30, "adc": 1.2, "proton_density": 0.8}


def craniotomy(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A bone flap (or none) with its saw line, fluid under the scalp, and dura that thickens and enhances."""
    centre = towards_skull(template(), place(finding, seed), -4.0)
    radius = finding.size_mm / 2
    absent = finding.attributes.get("flap") == "absent"
    fluid_mm = float(generator.uniform(1, 5)) * finding.strength

    def paint(canvas: Canvas) -> Finding:
        box = canvas.warp.box(centre, radius + 14)
        points = canvas.warp.points(box)
        away = np.sqrt(((points - np.asarray(centre, np.float32)[:, None, None, None]) ** 2).sum(axis=0))
        away = away + 1.5 * canvas.noise(box, 10)
        distance = canvas.at(box, canvas.base.distance)
        flap = np.clip((radius - away) / 3 + 0.5, 0, 1)
        bone = np.clip(distance - 0.5, 0, 1) * np.clip(SKULL_MM + 1.5 - distance, 0, 1)
        line = bone * np.clip(1.4 - np.abs(away - radius) / 2.2, 0, 1)
        if absent:
            canvas.paint(box, bone * flap, fluid=0.25, fat=0.0, **SCAR | {"proton_density": 0.75})
        else:
            # The flap has lost its fatty marrow.
            part = canvas.proton_density[box]
            part *= 1 - 0.85 * bone * flap
            canvas.paint(box, line, fat=0.0, **SCAR)
        scalp = flap * np.clip(distance - SKULL_MM, 0, 1) * np.clip((SKULL_MM + 1 + fluid_mm - distance) / 2, 0, 1)
        canvas.paint(box, scalp, fluid=0.7, fat=0.0, **SCAR)
        thin = flap * np.clip((SCALP_MM - distance) / 2, 0, 1) * np.clip(distance - SKULL_MM, 0, 1) * (1 - scalp)
        canvas.fat[box] *= 1 - 0.6 * thin
        below = flap * np.clip((distance + 1.5 + 0.8 * fluid_mm) / 2, 0, 1) * np.clip((0.5 - distance) / 1.5, 0, 1)
        canvas.paint(box, below, fluid=0.75, t1_ms=1100, t2_ms=120)
        dura = flap * np.clip(1.3 - np.abs(distance) / 1.6, 0, 1)
        canvas.tint(box, 0.7 * dura, uptake=0.9, t1_ms=1000, t2_ms=50, adc=1.0, proton_density=0.7)
        return finding

    return Lesion(paint, order=6)


def resection_cavity(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A pocket of fluid, open towards the skull, with a thin rim of old blood, gliosis and sometimes uptake."""
    point, radius = place(finding, seed), finding.size_mm / 2
    centre = towards_skull(template(), point, radius * 0.9)
    stretch = generator.uniform(0.8, 1.1, 3)
    rim_uptake = 0.8 if finding.attributes.get("enhancement") in ("linear", "nodular") else 0.0

    def paint(canvas: Canvas) -> Finding:
        halo, glia = canvas.blob(centre, radius * stretch + 6, rough=0.15, edge_mm=4)
        glia = within_skull(canvas, halo, glia) * canvas.white[halo]
        canvas.tint(halo, 0.8 * glia, fluid=canvas.fluid[halo].copy(), t1_ms=1250, t2_ms=150, adc=1.2)
        shape = canvas.shape(centre, radius * stretch, rough=0.14)
        box = shape.box
        rim = within_skull(canvas, box, shape.mask(1.6), 1)
        canvas.paint(box, 0.9 * rim, **HAEMOSIDERIN | {"t2star_ms": 10.0, "t2_ms": 45.0})
        canvas.uptake[box] += rim_uptake * faded(finding, rim) * (1 - canvas.uptake[box])
        mask = within_skull(canvas, box, shape.mask(), 0.5)
        canvas.paint(box, mask, fluid=0.96, uptake=0.0, t1_ms=2500, t2_ms=500, adc=2.6)
        if finding.attributes.get("enhancement") == "nodular":
            side = generator.standard_normal(3)
            knot = np.asarray(centre) + radius * side / np.linalg.norm(side)
            box, mass = canvas.blob(knot, max(3.0, 0.3 * radius), rough=0.2)
            mass = faded(finding, within_skull(canvas, box, mass))
            canvas.paint(box, mass, t1_ms=1350, t2_ms=125, adc=0.85, proton_density=0.88)
            canvas.uptake[box] += mass * (0.9 - canvas.uptake[box])
        return finding

    return Lesion(paint, pushes=(Push(centre, -0.08 * radius, radius, 22),), order=5)


def catheter(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A straight dark tube from a burr hole into the lateral ventricle."""
    side = sign(finding.side, generator)
    frontal = finding.site != "parietal lobe"
    entry = towards_skull(template(), (24 * side, -42, 62) if frontal else (34 * side, 72, 36), -SKULL_MM - 1)
    tip = np.array([5 * side, -10, 12]) if frontal else np.array([9 * side, 5, 20])
    tip = tip + generator.normal(0, 1.5, 3)
    width = 1.3 + 0.7 * finding.strength

    def paint(canvas: Canvas) -> Finding:
        start = np.asarray(entry, float)
        middle, length = (start + tip) / 2, float(np.linalg.norm(tip - start))
        box = canvas.warp.box(middle, length / 2 + 2)
        points = canvas.warp.points(box)
        direction = (tip - start) / length
        away = points - start.astype(np.float32)[:, None, None, None]
        along = np.einsum("i,izyx->zyx", direction.astype(np.float32), away)
        across = np.sqrt(np.maximum((away**2).sum(axis=0) - along**2, 0))
        inside = np.clip(along, 0, 1) * np.clip(length - along, 0, 1)
        tract = 0.5 * np.clip((width + 2.2 - across) / 2, 0, 1) * inside * (canvas.ventricles[box] < 0.3)
        distance = canvas.at(box, canvas.base.distance)
        canvas.tint(box, tract * (distance < 0), t1_ms=1300, t2_ms=150, adc=1.2, fluid=canvas.fluid[box].copy())
        tube = np.clip((width + 0.6 - across) / 1.2, 0, 1) * inside
        canvas.paint(box, tube, fat=0.0, proton_density=0.05, t1_ms=900, t2_ms=30, t2star_ms=8, uptake=0.0)
        hole = np.clip((5 - across) / 1.5, 0, 1) * np.clip(distance, 0, 1) * np.clip(SKULL_MM + 1 - distance, 0, 1)
        canvas.paint(box, hole * (1 - tube), fat=0.0, **SCAR)
        return finding

    return Lesion(paint, order=6)
