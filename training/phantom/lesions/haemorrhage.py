"""Blood, by age and compartment: intraparenchymal, intraventricular, subarachnoid, subdural, and cavernomas.

What blood looks like follows its age (Bradley, Radiology 1993;189:15): oxy- and deoxyhaemoglobin, methaemoglobin inside
and then outside the cells, haemosiderin.
"""

from __future__ import annotations

import numpy as np

from training.phantom.lesions.canvas import Canvas, Lesion, at_depth, faded, grown, paint_edema, volume_ml, within_skull
from training.phantom.lesions.sites import place, scatter, sign
from training.phantom.types import Finding
from training.phantom.warp import Layer, Push, spread

# age → what the clot is made of.
BLOOD: dict[str, dict[str, float]] = {
    "hyperacute": {"t1_ms": 1350, "t2_ms": 170, "t2star_ms": 30, "adc": 0.65, "proton_density": 0.9},
    "acute": {"t1_ms": 1150, "t2_ms": 42, "t2star_ms": 9, "adc": 0.5, "proton_density": 0.85},
    "early subacute": {"t1_ms": 400, "t2_ms": 45, "t2star_ms": 9, "adc": 0.5, "proton_density": 0.85},
    "late subacute": {"t1_ms": 380, "t2_ms": 320, "t2star_ms": 70, "adc": 0.9, "proton_density": 0.95},
    "chronic": {"t1_ms": 2200, "t2_ms": 500, "t2star_ms": 60, "adc": 2.2, "proton_density": 0.95},
}
HAEMOSIDERIN = {"t1_ms": 1100, "t2_ms": 28, "t2star_ms": 4, "adc": 0.6, "proton_density": 0.7}
# Between brain and dura blood ages otherwise: late subacute collections are bright everywhere, chronic ones like fluid.
SUBDURAL = BLOOD | {"chronic": {"t1_ms": 1500, "t2_ms": 700, "t2star_ms": 250, "adc": 2.2, "proton_density": 1.0}}
AGES = ("hyperacute", "acute", "early subacute", "late subacute", "chronic")


def haematoma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A clot inside the brain with a rim that blooms and, while it is fresh, oedema."""
    radius = finding.size_mm / 2
    centre = at_depth(place(finding, seed), 0.6 * radius + 3)
    age = finding.attributes.get("age", "acute")
    stretch = generator.uniform(0.65, 1.0, 3)
    stretch[generator.integers(3)] = 1.0
    fresh = age != "chronic"

    def paint(canvas: Canvas) -> Finding:
        edema = paint_edema(canvas, finding, centre, radius, radius * 1.25 + generator.uniform(3, 9)) if fresh else 0.0
        shape = canvas.shape(centre, radius * stretch, rough=0.16)
        box = shape.box
        clot, rim = (within_skull(canvas, box, shape.mask(grow)) for grow in (0.0, 2.0))
        fresh_rim = age in ("hyperacute", "acute")
        canvas.paint(box, faded(finding, rim), **(BLOOD["acute"] if fresh_rim else HAEMOSIDERIN))
        wave = 1 + 0.12 * canvas.noise(box, 4)
        canvas.paint(box, clot, **BLOOD[age] | {"t2_ms": BLOOD[age]["t2_ms"] * wave})
        return grown(finding, edema=_extent(edema))

    push = Push(centre, (0.7 if fresh else -0.15) * radius, radius, 46)
    return Lesion(paint, pushes=(push,), order=3)


def _extent(edema_ml: float) -> str:
    return "none" if edema_ml < 3 else "mild" if edema_ml < 20 else "marked"


def intraventricular_haemorrhage(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Blood that settles with a level in the dependent parts of the lateral ventricles."""
    age = finding.attributes.get("age", "acute")
    share = 0.15 + 0.75 * finding.strength

    def paint(canvas: Canvas) -> Finding:
        box = canvas.warp.box((0, 20, 10), 60)
        ventricles = canvas.ventricles[box]
        _, y, _ = canvas.warp.points(box)
        level = 50 - 55 * share
        dependent = np.clip((y - level + 3 * canvas.noise(box, 6)) / 3, 0, 1) * np.clip(2 * ventricles, 0, 1)
        if finding.side in ("left", "right"):
            x, _, _ = canvas.warp.points(box)
            dependent *= np.clip(x * (1 if finding.side == "left" else -1) / 4 + 0.8, 0, 1)
        blood = {"t1_ms": 750, "t2_ms": 80, "t2star_ms": 12, "adc": 0.7, "proton_density": 0.9}
        canvas.paint(box, dependent.astype(np.float32), **blood if age == "acute" else BLOOD[age])
        return finding

    return Lesion(paint, widening_mm=float(generator.uniform(0, 2.5)), order=4)


def subarachnoid_haemorrhage(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Blood in the fluid of sulci or basal cisterns: not nulled on FLAIR."""
    basal = finding.site == "basal cisterns"
    centre = (0.0, 5.0, -22.0) if basal else place(finding, seed)
    reach = finding.size_mm / 2

    def paint(canvas: Canvas) -> Finding:
        box, mask = canvas.blob(centre, reach, rough=0.3, edge_mm=6)
        cistern = canvas.fluid[box] * (canvas.ventricles[box] < 0.1)
        patchy = np.clip(0.9 + 0.35 * canvas.noise(box, 6), 0, 1)
        mask = within_skull(canvas, box, mask * np.clip(1.6 * cistern, 0, 1) * patchy, -1)
        mask = faded(finding, mask)
        left = canvas.fluid[box] * 0.25
        canvas.paint(box, mask, fluid=left, t1_ms=900, t2_ms=260, t2star_ms=25, adc=1.2, proton_density=1.0)
        return finding

    return Lesion(paint, order=4)


def subdural_haematoma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A crescent between skull and brain over one hemisphere; it presses the brain inwards."""
    side = sign(finding.side, generator)
    thickness = finding.size_mm
    middle = (0.0, float(generator.normal(5, 12)), float(generator.normal(30, 8)))
    layer = Layer(middle, thickness, float(generator.uniform(48, 75)), side)
    age = finding.attributes.get("age", "acute")

    def paint(canvas: Canvas) -> Finding:
        box = canvas.warp.box((38.0 * side, middle[1], middle[2]), 92)
        points = canvas.warp.points(box)
        distance = canvas.at(box, canvas.base.distance)
        depth = thickness * spread(points, layer)
        mask = np.clip((distance + depth) / 2 + 0.5, 0, 1) * np.clip((0.8 - distance) / 1.6, 0, 1) * (depth > 0.8)
        mask *= np.clip(4 * depth - 3, 0, 1)
        mask = mask.astype(np.float32)
        wave = 1 + 0.1 * canvas.noise(box, 6)
        canvas.paint(box, mask, fat=0.0, **SUBDURAL[age] | {"t1_ms": SUBDURAL[age]["t1_ms"] * wave})
        if age == "chronic":
            membrane = np.clip(1.2 - np.abs(distance + depth) / 1.6, 0, 1) * (depth > 1.5)
            canvas.paint(box, (0.6 * membrane).astype(np.float32), uptake=0.6, t1_ms=1000, t2_ms=80, t2star_ms=25)
        return grown(finding, volume=f"{volume_ml(mask):.0f} ml")

    return Lesion(paint, layers=(layer,), order=5)


def cavernoma(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A popcorn of blood of many ages inside a ring of haemosiderin that blooms on T2*."""
    first = place(finding, seed)
    others = scatter("deep white", max(0, finding.count - 1), "", generator)
    centres = [(first, finding.size_mm / 2)] + [
        ((float(x), float(y), float(z)), finding.size_mm / 2 * generator.uniform(0.3, 0.6)) for x, y, z in others
    ]

    def paint(canvas: Canvas) -> Finding:
        for centre, radius in centres:
            shape = canvas.shape(centre, radius, rough=0.16)
            box = shape.box
            bloom, rim, core = (faded(finding, shape.mask(grow)) for grow in (2.5, 1.2, -1.0))
            canvas.paint(box, 0.8 * bloom, fluid=canvas.fluid[box].copy(), t2star_ms=5)
            canvas.paint(box, rim, **HAEMOSIDERIN)
            grain = canvas.noise(box, 1.5)
            lobules = {
                "t1_ms": 850 - 250 * np.clip(grain, -1.5, 1.5),
                "t2_ms": 110 * np.exp(0.7 * grain),
                "t2star_ms": 14.0,
            }
            canvas.paint(box, core, adc=0.9, proton_density=0.85, uptake=0.15, **lobules)
        return finding

    return Lesion(paint, order=2)
