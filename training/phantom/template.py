"""The average head that every patient is bent from: MNI152 tissue maps (nilearn carries them) plus what they lack.

The maps are of a skull-stripped brain; cerebrospinal fluid, skull, marrow, scalp, face, orbits, sinuses, spinal canal
and the large venous sinuses are added by rule. All on one 2 mm grid in LPS millimetres, read once a process.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Image
from scipy import ndimage

from training.base.errors import BadTrainingData
from training.phantom.types import Map

SPACING_MM = 2.0
SHAPE = (106, 118, 96)  # z, y, x
ORIGIN_MM = (-95.0, -106.0, -110.0)  # x, y, z of the first voxel's centre
MNI_OFFSET = (98, 134, 72)  # index of MNI's (0, 0, 0) in nilearn's files
SKULL_MM, SCALP_MM = 7.5, 13.5  # outer surfaces, from the inner table

TISSUES = ("gray", "white", "fluid", "fat", "soft")  # what is left of a voxel is bone or air: no signal
Points = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Template:
    """Maps (z, y, x) float32. tissues: (voxels, 5), shares of TISSUES.

    distance: mm from the inner table of the skull, negative inside. ventricles: share of a voxel. sulci: 0…1, how near
    to a sulcus. uptake: 0…1 of contrast agent in what normally enhances. widening: (3, z, y, x), the direction
    (x, y, z) in which a point near the ventricles samples when they widen, longest at their wall. to_ventricle,
    to_gray: mm. channels: (voxels, 8), tissues, ventricles, sulci and uptake side by side. guides: (voxels, 5), what a
    warp is made by: distance, where there is anything, widening.
    """

    tissues: Map
    distance: Map
    ventricles: Map
    sulci: Map
    uptake: Map
    widening: Map
    to_ventricle: Map
    to_gray: Map
    channels: Map
    guides: Map

    def share(self, tissue: str) -> Map:
        """One tissue's map."""
        return self.tissues[:, TISSUES.index(tissue)].reshape(SHAPE)


def coordinates() -> tuple[Points, Points, Points]:
    """x, y, z of the grid in mm, each broadcastable to SHAPE."""
    depth, rows, columns = SHAPE
    x = ORIGIN_MM[0] + SPACING_MM * np.arange(columns, dtype=np.float32)
    y = ORIGIN_MM[1] + SPACING_MM * np.arange(rows, dtype=np.float32)
    z = ORIGIN_MM[2] + SPACING_MM * np.arange(depth, dtype=np.float32)
    return x[None, None, :], y[None, :, None], z[:, None, None]


@functools.cache
def template() -> Template:
    """The average head. Raises BadTrainingData when nilearn is not installed."""
    head, gray, white = (_on_grid(name) for name in ("t1", "gm", "wm"))
    x, y, z = coordinates()
    distance = _distance_to_skull(head > 0.08)
    # The template is cut at the lower brain stem: go on as the spinal cord in its canal.
    canal = np.hypot(x, y - _canal_middle(z)) + 0 * z
    cord = np.clip((6.0 - canal) / 2 + 0.5, 0, 1) * (z < -68)
    white, gray = np.maximum(white, 0.75 * cord), np.maximum(gray, 0.25 * cord)
    gray, white = (np.clip(1.25 * share - 0.08, 0, 1) for share in (gray, white))
    total = np.maximum(gray + white, 1)
    gray, white = gray / total, white / total
    inside = np.clip(0.5 - (distance + 0.6) / 2, 0, 1)
    inside = np.maximum(inside, np.clip((10.5 - canal) / 2 + 0.5, 0, 1) * (z < -58))
    gray, white = gray * inside, white * inside
    fluid = np.clip(inside - gray - white, 0, 1)
    fat, soft, uptake = _outside(distance, inside)
    vitreous = _both((31, -66, -38), (11.5, 11.5, 11.5)) * (inside < 0.1) * (distance > 0)
    fluid, fat, soft = np.maximum(fluid, vitreous), fat * (1 - vitreous), soft * (1 - vitreous)
    gland = _ellipsoid((0, -3, -35), (7, 5.5, 4.5))
    soft, fluid, fat = np.maximum(soft, gland), fluid * (1 - gland), fat * (1 - gland)
    uptake = np.maximum(uptake, 0.7 * gland)
    sinus = _venous_sinuses(distance)
    soft, fluid, fat = np.maximum(soft, 0.7 * sinus), fluid * (1 - sinus), fat * (1 - sinus)
    uptake = np.maximum(uptake, sinus)
    ventricles = _ventricles(fluid, distance)
    cisterns = fluid * (1 - ventricles) * inside
    tissues = np.stack([gray, white, fluid, fat, soft], axis=-1).astype(np.float32).reshape(-1, len(TISSUES))
    sulci = ndimage.gaussian_filter(cisterns, 1.4)
    widening = _widening(ventricles)
    occupied = ndimage.binary_dilation((tissues.sum(axis=1) > 0.01).reshape(SHAPE), iterations=3)
    others = np.stack([ventricles, sulci, uptake], axis=-1).reshape(-1, 3)
    return Template(
        tissues=tissues,
        distance=distance,
        ventricles=ventricles.astype(np.float32),
        sulci=sulci.astype(np.float32),
        uptake=uptake.astype(np.float32),
        widening=widening,
        channels=np.concatenate([tissues, others], axis=1).astype(np.float32),
        guides=np.stack([distance, occupied, *widening], axis=-1).reshape(-1, 5).astype(np.float32),
        to_ventricle=_far_from(ventricles > 0.5),
        to_gray=_far_from((gray > 0.6) & (distance > -30)),
    )


def _on_grid(name: str) -> Map:
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise BadTrainingData("phantoms need nilearn's MNI152 maps: pip install 'prima-node[training]'")
    path = Path(spec.origin).parent / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    values = np.asanyarray(Nifti1Image.from_filename(path).dataobj).astype(np.float32) / 255
    smooth = ndimage.gaussian_filter(values, 0.6)
    # MNI counts to the right and to the front, patient coordinates (LPS) to the left and to the back.
    x, y, z = (axis.ravel().astype(int) for axis in coordinates())
    indices = [-x + MNI_OFFSET[0], -y + MNI_OFFSET[1], z + MNI_OFFSET[2]]
    result: Any = smooth[
        np.ix_(*(np.clip(index, 0, size - 1) for index, size in zip(indices, smooth.shape, strict=True)))
    ]
    for axis, (index, size) in enumerate(zip(indices, smooth.shape, strict=True)):
        outside = (index < 0) | (index >= size)
        result[tuple(outside if other == axis else slice(None) for other in range(3))] = 0
    return np.ascontiguousarray(result.transpose(2, 1, 0))


def _far_from(mask: npt.NDArray[np.bool_]) -> Map:
    return np.asarray(SPACING_MM * ndimage.distance_transform_edt(~mask), np.float32)


def _distance_to_skull(brain: npt.NDArray[np.bool_]) -> Map:
    """The brain's hull, with sulci and cisterns closed over, as a signed distance in mm."""
    closed = _far_from(brain) <= 12
    hull = _far_from(~closed) > 12 - 1
    hull |= brain
    hull = ndimage.binary_fill_holes(hull)
    signed = _far_from(hull) - _far_from(~hull)
    return np.asarray(ndimage.gaussian_filter(signed, 1.5) - 1.5, np.float32)


def _canal_middle(z: Points) -> Points:
    """y of the spinal canal's axis, by height."""
    return np.asarray(42 + 0.12 * np.clip(-68 - z, 0, 50), np.float32)


def _ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float], edge_mm: float = 1.5) -> Map:
    parts = (((axis - middle) / radius) ** 2 for axis, middle, radius in zip(coordinates(), centre, radii, strict=True))
    away = (np.sqrt(sum(parts)) - 1) * min(radii)
    return np.clip(0.5 - away / (2 * edge_mm), 0, 1).astype(np.float32)


def _both(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Map:
    x, y, z = centre
    return np.maximum(_ellipsoid((x, y, z), radii), _ellipsoid((-x, y, z), radii))


def _outside(distance: Map, inside: Map) -> tuple[Map, Map, Map]:
    """fat, soft tissue and normal uptake outside the cranial cavity: skull, scalp, face, orbits, neck."""
    x, y, z = coordinates()
    face = _ellipsoid((0, -40, -52), (60, 52, 62))
    nose = _ellipsoid((0, -88, -50), (13, 16, 26))
    neck = (np.hypot(x / 56, (y - 26) / 60) < 1) & (z < -55)
    body = (
        ndimage.gaussian_filter(((distance < SCALP_MM) | (face > 0.5) | neck | (nose > 0.5)).astype(np.float32), 2.0)
        > 0.5
    )
    to_skin = _far_from(~body)
    skin = np.clip((4 - to_skin) / 2, 0, 1) * body
    under = np.clip((9 - to_skin) / 3, 0, 1) * body - skin
    muscle = body - skin - under
    # Vault and base are one shell of two dark tables with fatty marrow between.
    shell = np.clip((distance - 0.5) / 2, 0, 1) * np.clip((SKULL_MM + 1 - distance) / 2, 0, 1) * (inside < 0.5)
    foramen = (np.hypot(x, y - _canal_middle(z)) < 13) & (z < -55)
    shell = shell * ~foramen
    marrow = np.clip(1.3 - np.abs(distance - SKULL_MM / 2 - 0.5) / 2.2, 0, 1) * (shell > 0.3)
    fat = np.where(shell > 0.3, 0.55 * marrow, under * 0.9)
    soft = np.where(shell > 0.3, 0.1, skin + muscle * 0.9)
    # The scalp's deep layer and muscle share: muscles of mastication and neck stay dark, cheeks are fat.
    cheeks = _both((45, -48, -60), (14, 22, 24)) * (distance > SCALP_MM) * body
    fat, soft = np.maximum(fat, 0.8 * cheeks), soft * (1 - 0.8 * cheeks)
    orbits = _both((31, -56, -37), (17, 26, 15)) * (shell < 0.5) * (inside < 0.5) * body
    fat, soft = np.maximum(fat * (1 - orbits), 0.85 * orbits), soft * (1 - orbits)
    nerve = _both((27, -46, -36), (3, 22, 3))
    fat, soft = fat * (1 - nerve), np.maximum(soft, 0.8 * nerve * (inside < 0.5))
    air = np.maximum.reduce([
        _both((27, -56, -62), (12, 15, 15)), 0.75 * _ellipsoid((0, -58, -60), (11, 26, 20)),
        _ellipsoid((0, -24, -46), (13, 12, 9)), _both((12, -80, -8), (10, 5, 9)),
        _ellipsoid((0, -8, -95), (12, 9, 40)), _both((52, 42, -42), (9, 10, 12)),
    ]) * (inside < 0.3)  # fmt: skip
    fat, soft = fat * (1 - air), soft * (1 - air)
    mucosa = 0.6 * np.clip(4 * air * (1 - air), 0, 1)
    canal = inside * (z < -58)
    outer = np.clip(1 - inside - canal, 0, 1)
    return fat * outer, soft * outer, mucosa * outer


def _venous_sinuses(distance: Map) -> Map:
    x, y, z = coordinates()
    sagittal = np.clip(1.3 - np.hypot(x / 3.5, (distance + 0.5) / 3.5), 0, 1) * ((z > 20) | (y > 60)) * (z > -22)
    height = -22 - 0.16 * np.clip(85 - y, 0, 60)
    transverse = np.clip(1.3 - np.hypot((z - height) / 4, (distance + 0.5) / 3.5), 0, 1) * (y > 38)
    return np.asarray(np.clip(2 * np.maximum(sagittal, transverse), 0, 1), np.float32)


def _ventricles(fluid: Map, distance: Map) -> Map:
    """Share of each voxel that is lateral, third or fourth ventricle: the deep fluid that hangs together."""
    x, y, z = coordinates()
    lateral = (
        (np.abs(x) < 42)
        & (y > -45)
        & (y < 62)
        & (z > -18)
        & (z < 34)
        & (distance < -28)
        & ~((z < 10) & (y > 32) & (np.abs(x) < 12))
    )
    third = (np.abs(x) < 5) & (y > -8) & (y < 30) & (z > -12) & (z < 14)
    fourth = (np.abs(x) < 12) & (y > 35) & (y < 54) & (z > -46) & (z < -20)
    labels, _ = ndimage.label((fluid > 0.35) & (lateral | third))
    keep = labels == labels[_index((8, -12, 16))]
    keep |= labels == labels[_index((-8, -12, 16))]
    grown = ndimage.binary_dilation(keep | ((fluid > 0.35) & fourth))
    return np.where(grown & (lateral | third | fourth), fluid, 0).astype(np.float32)


def _index(point: tuple[float, float, float]) -> tuple[int, int, int]:
    x, y, z = (round((value - start) / SPACING_MM) for value, start in zip(point, ORIGIN_MM, strict=True))
    return z, y, x


def _widening(ventricles: Map) -> Map:
    smooth = ndimage.gaussian_filter(ventricles, 3.0) + 0.5 * ndimage.gaussian_filter(ventricles, 6.0)
    z, y, x = np.gradient(smooth)
    field = np.stack([x, y, z])
    longest = np.sqrt((field**2).sum(axis=0)).max()
    return np.asarray(field / longest, np.float32)
