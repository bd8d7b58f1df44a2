"""Multiple sclerosis and abscess."""

from __future__ import annotations

import numpy as np

from training.phantom.lesions.canvas import Canvas, Lesion, at_depth, faded, grown, paint_edema, within_skull
from training.phantom.lesions.sites import place, scatter
from training.phantom.types import Finding
from training.phantom.warp import Push

PLAQUE = {"t1_ms": 1350, "t2_ms": 170, "t2star_ms": 105, "adc": 1.15, "proton_density": 0.86}


def multiple_sclerosis(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Ovoid plaques at right angles to the ventricles, in the callosum, under the cortex, in pons and cerebellum."""
    shares = {"periventricular": 0.5, "deep white": 0.2, "juxtacortical": 0.3}
    kinds = generator.choice(list(shares), finding.count, p=list(shares.values()))
    plaques = [(scatter(kind, 1, "", generator)[0], kind) for kind in kinds]
    plaques[0] = (
        (np.array([5 * generator.choice((-1, 1)), 27, -32], np.float32), "pons") if finding.count > 8 else plaques[0]
    )
    active = finding.attributes.get("enhancement") not in (None, "none")

    def paint(canvas: Canvas) -> Finding:
        for number, (spot, kind) in enumerate(plaques):
            radius = finding.size_mm / 2 * (1 if number == 0 else generator.beta(2, 3) + 0.3)
            size = radius * np.array([1.0, 0.55, 0.6])
            turn = _along((spot - np.array([0, 5, 15])) if kind == "periventricular" else generator.standard_normal(3))
            box, mask = canvas.blob(spot, size, rough=0.12, edge_mm=1.2, template=True, turn=turn)
            mask *= np.clip(1.4 * (canvas.white[box] + 0.5 * canvas.gray[box]), 0, 1)
            mask = faded(finding, mask)
            canvas.paint(box, mask, fluid=canvas.fluid[box].copy(), **PLAQUE)
            if active and (number == 0 or generator.random() < 0.2):
                part = canvas.uptake[box]
                part += mask * (0.7 - part)
            elif generator.random() < 0.3:  # a black hole
                canvas.paint(box, 0.6 * mask, fluid=canvas.fluid[box].copy(), t1_ms=2100, t2_ms=240, adc=1.5)
        return finding

    return Lesion(paint, order=0)


def _along(
    direction: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A rotation that takes the direction to the first axis."""
    first = np.asarray(direction, float) / (np.linalg.norm(direction) + 1e-6)
    second = np.cross(first, [0.0, 0.1, 1.0])
    second /= np.linalg.norm(second) + 1e-6
    return np.stack([first, second, np.cross(first, second)])


def abscess(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Pus that hardly diffuses inside a thin smooth capsule that enhances, in much oedema."""
    radius = finding.size_mm / 2
    centre = at_depth(place(finding, seed), 0.7 * radius + 4)

    def paint(canvas: Canvas) -> Finding:
        edema = paint_edema(canvas, finding, centre, radius, radius * 1.6 + generator.uniform(6, 13))
        shape = canvas.shape(centre, radius * np.array([1.0, 1.1, 0.95]), rough=0.07)
        box, wall = shape.box, float(generator.uniform(2.4, 3.4))
        capsule, pus = (within_skull(canvas, box, shape.mask(grow)) for grow in (0.0, -wall))
        canvas.paint(box, capsule, t1_ms=950, t2_ms=62, t2star_ms=30, adc=0.9, proton_density=0.8)
        canvas.uptake[box] += faded(finding, capsule) * (1 - canvas.uptake[box])
        canvas.paint(box, pus, t1_ms=2000, t2_ms=210, t2star_ms=140, adc=0.42, proton_density=0.95, uptake=0.0)
        return grown(finding, edema="marked" if edema > 20 else "mild")

    return Lesion(paint, pushes=(Push(centre, 0.65 * radius, radius, 42),), order=3)
