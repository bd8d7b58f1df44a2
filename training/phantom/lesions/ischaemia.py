"""Strokes by territory and age, lacunes, and small-vessel disease."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.phantom.lesions.canvas import Canvas, Lesion, Mask, faded, grown, volume_ml, within_skull
from training.phantom.lesions.sites import place, scatter, sign
from training.phantom.types import Finding, Map
from training.phantom.warp import Box, Push

# Diffusion falls within minutes and is back to normal after about ten days; T2 rises over the first day.
AGES: dict[str, dict[str, float]] = {
    "hyperacute": {"t1_ms": 1080, "t2_ms": 92, "t2star_ms": 62, "adc": 0.46, "proton_density": 0.8},
    "acute": {"t1_ms": 1350, "t2_ms": 130, "t2star_ms": 85, "adc": 0.40, "proton_density": 0.86},
    "subacute": {"t1_ms": 1450, "t2_ms": 150, "t2star_ms": 90, "adc": 0.78, "proton_density": 0.88},
}
TERRITORIES = ("middle cerebral artery", "anterior cerebral artery", "posterior cerebral artery", "cerebellar artery")
# territory: the middle of where strokes in it are centred, left side.
CORES = {
    "middle cerebral artery": (48, 2, 18),
    "anterior cerebral artery": (9, -32, 42),
    "posterior cerebral artery": (20, 74, 6),
    "cerebellar artery": (28, 66, -42),
}
SMALL_VESSEL = {"t1_ms": 1150, "t2_ms": 150, "t2star_ms": 95, "adc": 1.05, "proton_density": 0.84}


def territory(name: str, points: Map) -> npt.NDArray[np.bool_]:
    """Which points of the average head the artery of either side feeds."""
    x, y, z = points
    lateral = np.abs(x)
    low = (y > 22) & (z < -22 + 0.35 * np.clip(60 - y, 0, 40))
    if name == "cerebellar artery":
        return np.asarray(low)
    front = (lateral < 17) & (y < 38) & (z > -8 + 0.5 * np.clip(y + 30, 0, 60))
    back = (y > 58 - 0.4 * np.clip(z - 20, 0, 40)) | ((y > 20) & (lateral < 30) & (z < 12))
    choice = {"anterior cerebral artery": front, "posterior cerebral artery": back & ~front}
    return np.asarray(choice.get(name, ~front & ~back) & ~low)


def supplied(canvas: Canvas, box: Box, name: str, side: int) -> Mask:
    """Which voxels of one side the artery feeds; its border wanders, and it is not sharp."""
    points = canvas.warp.points(box, template=True)
    wander = 4.5 * canvas.noise(box, 10) + 1.5 * canvas.noise(box, 3)
    near, far = (territory(name, points + wander + reach) & (points[0] * side > 0) for reach in (-1.5, 1.5))
    return np.asarray((near.astype(np.float32) + far) / 2, np.float32)


def territorial_infarct(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """A large artery's stroke: cortex and white matter up to the border of the territory, swollen when acute."""
    name, age = finding.site, finding.attributes.get("age", "acute")
    side = sign(finding.side, generator)
    x, y, z = (float(generator.normal(c, 5)) for c in CORES[name])
    centre, radius = (abs(x) * side, y, z), finding.size_mm / 2

    def paint(canvas: Canvas) -> Finding:
        box, mask = canvas.blob(centre, radius * np.array([1.0, 1.15, 1.05]), rough=0.24, edge_mm=3, template=True)
        mask *= supplied(canvas, box, name, side)
        mask *= np.clip(1.1 * (canvas.gray[box] + canvas.white[box]), 0, 1) * (canvas.ventricles[box] < 0.3)
        mask = faded(finding, within_skull(canvas, box, mask))
        fluid = canvas.fluid[box] * (0.6 if age != "hyperacute" else 1.0)
        gray = 1 + 0.12 * canvas.gray[box]
        canvas.paint(box, mask, fluid=fluid, **AGES[age] | {"t2_ms": AGES[age]["t2_ms"] * gray})
        if age == "subacute":
            ribbon = mask * canvas.gray[box] * np.clip(0.8 + 0.5 * canvas.noise(box, 6), 0, 1)
            part = canvas.uptake[box]
            part += 0.6 * ribbon * (1 - part)
        if finding.attributes.get("transformation") == "haemorrhagic":
            spots = np.clip(canvas.noise(box, 3.0) - 1.1, 0, 1) * mask
            canvas.tint(box, spots, t2star_ms=6, t2_ms=45)
        return grown(finding, volume=f"{volume_ml(mask):.0f} ml")

    swelling = {"hyperacute": 0.03, "acute": 0.2, "subacute": 0.13}[age]
    return Lesion(paint, pushes=(Push(centre, swelling * radius, radius, 26),), order=2)


def lacunar_infarct(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Small deep strokes: one at the finding's site, others scattered. Old ones are cavities with a gliotic rim."""
    old = finding.attributes.get("age") == "chronic"
    centres = [place(finding, seed)]
    centres += [(float(x), float(y), float(z)) for x, y, z in scatter("deep white", finding.count - 1, "", generator)]

    def paint(canvas: Canvas) -> Finding:
        for number, centre in enumerate(centres):
            radius = finding.size_mm / 2 * (1 if number == 0 else generator.uniform(0.6, 1.0))
            size = radius * generator.uniform(0.75, 1.1, 3)
            shape = canvas.shape(centre, size, rough=0.15, template=True)
            box, mask = shape.box, faded(finding, shape.mask(edge_mm=1.0))
            if not old:
                canvas.paint(box, mask, **AGES["acute"])
                continue
            canvas.paint(box, 0.8 * faded(finding, shape.mask(1.8)), fluid=canvas.fluid[box].copy(), **SMALL_VESSEL)
            canvas.paint(box, mask, fluid=0.92, t1_ms=1600, t2_ms=250, adc=1.6)
        return finding

    return Lesion(paint, order=2)


def small_vessel_disease(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Caps and bands along the ventricles, then dots and patches in deep white matter that run together (Fazekas)."""
    burden = finding.strength
    dots = scatter("deep white", finding.count, "", generator)

    def paint(canvas: Canvas) -> Finding:
        box = canvas.warp.box((0, 10, 18), 78)
        near = canvas.at(box, canvas.base.to_ventricle, template=True)
        width = 2.0 + 8.0 * burden
        uneven = 1 + 0.45 * canvas.noise(box, 6)
        band = np.clip((width * uneven - near) / 3 + 0.3, 0, 1) * np.clip(canvas.white[box] * 1.6 - 0.5, 0, 1)
        _, _, z = canvas.warp.points(box, template=True)
        band *= np.clip((z + 8) / 8, 0, 1) * np.float32(0.35 + 0.6 * burden)
        canvas.paint(box, band.astype(np.float32), fluid=canvas.fluid[box].copy(), **SMALL_VESSEL)
        for spot in dots:
            size = (
                generator.uniform(0.8, 1.6)
                * (1.2 + 3.6 * burden * generator.beta(1.3, 2.5))
                * generator.uniform(0.7, 1.3, 3)
            )
            part, mask = canvas.blob(spot, size, rough=0.3, edge_mm=1.5, template=True)
            mask *= np.clip(canvas.white[part] * 1.5 - 0.3, 0, 1) * np.float32(0.5 + 0.5 * burden)
            canvas.paint(part, mask, fluid=canvas.fluid[part].copy(), **SMALL_VESSEL)
        return finding

    return Lesion(paint, order=0)
