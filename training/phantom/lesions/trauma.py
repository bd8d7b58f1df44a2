"""Contusions and diffuse axonal injury."""

from __future__ import annotations

import numpy as np

from training.phantom.lesions.canvas import Canvas, Lesion, faded, paint_edema, towards_skull, within_skull
from training.phantom.lesions.haemorrhage import BLOOD, HAEMOSIDERIN
from training.phantom.lesions.sites import scatter, sign
from training.phantom.template import template
from training.phantom.types import Finding
from training.phantom.warp import Push

# Where the brain strikes rough bone: the underside of the frontal and the tips of the temporal lobes.
STRUCK = {"frontal lobe": (22.0, -54.0, -14.0), "temporal lobe": (46.0, -6.0, -28.0)}


def contusion(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Bruised cortex: swollen and speckled with blood."""
    radius = finding.size_mm / 2
    side = sign(finding.side, generator)
    spots = []
    for number in range(finding.count):
        x, y, z = STRUCK[finding.site] if number == 0 else STRUCK[str(generator.choice(list(STRUCK)))]
        jitter = generator.normal(0, 3 if number == 0 else 7, 3)
        spot = towards_skull(template(), (side * x + jitter[0], y + jitter[1], z + jitter[2]), 0.6 * radius)
        spots.append((spot, radius * (1 if number == 0 else generator.uniform(0.4, 0.8))))

    def paint(canvas: Canvas) -> Finding:
        for centre, size in spots:
            paint_edema(canvas, finding, centre, size, size * 1.3 + 4)
            box, mask = canvas.blob(centre, size * np.array([1.0, 1.2, 0.8]), rough=0.35, edge_mm=2)
            mask = faded(finding, within_skull(canvas, box, mask, 1.5)) * np.clip(1.3 - canvas.fluid[box], 0, 1)
            canvas.paint(box, mask, t1_ms=1250, t2_ms=150, t2star_ms=60, adc=0.75, proton_density=0.88)
            speckles = mask * np.clip(1.4 * canvas.noise(box, 3) - 0.2, 0, 1)
            canvas.paint(
                box, speckles, **BLOOD["acute" if finding.attributes.get("age") == "acute" else "early subacute"]
            )
        return finding

    pushes = tuple(Push(centre, 0.15 * size, size, 22) for centre, size in spots)
    return Lesion(paint, pushes=pushes, order=3)


def diffuse_axonal_injury(finding: Finding, seed: int, generator: np.random.Generator) -> Lesion:
    """Dots of blood between gray and white matter, in callosum and brain stem; the fresh ones restrict diffusion."""
    dots = list(scatter("juxtacortical", finding.count, "", generator))
    for site, share in (((5, 12, 24), 0.4), ((6, 38, -16), 0.15)):
        for _ in range(round(share * finding.count)):
            dots.append(
                (np.array(site) * [generator.choice((-1, 1)), 1, 1] + generator.normal(0, [2, 10, 2])).astype(
                    np.float32
                )
            )
    acute = finding.attributes.get("age") == "acute"

    def paint(canvas: Canvas) -> Finding:
        for number, spot in enumerate(dots):
            radius = finding.size_mm / 2 * (1 if number == 0 else generator.uniform(0.5, 1.0))
            box, mask = canvas.blob(spot, radius * generator.uniform(0.7, 1.4, 3), rough=0.2, template=True)
            mask = faded(finding, mask)
            bloody = number == 0 or generator.random() < 0.8
            if acute:
                canvas.paint(box, mask, t1_ms=1250, t2_ms=130, adc=0.45, proton_density=0.86)
            if bloody:
                canvas.paint(box, mask, t2star_ms=HAEMOSIDERIN["t2star_ms"], fluid=canvas.fluid[box].copy())
        return finding

    return Lesion(paint, order=2)
