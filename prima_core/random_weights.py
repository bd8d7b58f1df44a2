"""Bundles of seeded random weights, for tests and benchmarks, of the released widths or small.

They are `untrained` and say so. The same seed gives the same numbers on every machine. Thresholds are random too:
nothing is tuned to look plausible.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prima_core.base.config import (
    Architecture,
    HeadShape,
    NameEncoderShape,
    TokenizerShape,
    TransformerShape,
    VitShape,
)
from prima_core.bundle import Bundle, expected_tensors, write_bundle

DIAGNOSES = (
    "cyst_arachnoid_cyst",
    "cyst_colloid_cyst",
    "developmental_dandy_walker_malformation",
    "developmental_dysgenesis_corpus_callosum",
    "developmental_heterotopia",
    "infectious_brain_abscess",
    "infectious_viral_encephalitis",
    "inflammatory_multiple_sclerosis",
    "inflammatory_neurosarcoid",
    "sellar_craniopharyngioma",
    "sellar_pituitary_adenoma",
    "sellar_rathkes_cleft_cyst",
    "spine_syrinx",
    "structural_brain_herniation",
    "structural_cephaloceles",
    "structural_cerebral_atrophy",
    "structural_chiari_malformation",
    "structural_edema",
    "structural_encephalomalacia",
    "structural_mass_effect",
    "structural_midline_shift",
    "surgical_catheter",
    "surgical_craniotomy",
    "surgical_resection_cavity",
    "trauma_brain_contusion",
    "trauma_diffuse_axonal_injury",
    "trauma_subdural_hematoma",
    "tumor_adult_brain_metastasis",
    "tumor_adult_glioma",
    "tumor_adult_high_grade_glioma",
    "tumor_adult_low_grade_glioma",
    "tumor_adult_lymphoma",
    "tumor_adult_meningioma",
    "tumor_adult_pineal_tumor",
    "tumor_adult_schwannoma",
    "tumor_pediatric_brainstem_glioma",
    "tumor_pediatric_ependymoma",
    "tumor_pediatric_germ_cell_tumor",
    "tumor_pediatric_medulloblastoma",
    "tumor_pediatric_pilocytic_astrocytoma",
    "vascular_hemorrhagic_intracranial_hemorrhage",
    "vascular_hemorrhagic_intraventricular_hemorrhage",
    "vascular_hemorrhagic_subarachnoid_hemorrahage",
    "vascular_ischemic_lacunar_stroke",
    "vascular_ischemic_large_vessel_stroke",
    "vascular_ischemic_moyamoya",
    "vascular_ischemic_small_vessel_disease",
    "vascular_malformation_arteriovenous_malformation",
    "vascular_malformation_cavernoma",
    "vascular_malformation_cerebral_aneurysm",
    "ventricular_intracranial_hypotension",
    "ventricular_ventriculomegaly",
)
REFERRALS = ("neurosurgery", "neurology")
PRIORITY_LEVELS = ("none", "low", "medium", "high")


def released(diagnoses: Sequence[str] = DIAGNOSES, referrals: Sequence[str] = REFERRALS) -> Architecture:
    """The released widths (arXiv 2509.18638), but one MLP a task: 52 of 45 million parameters would fill 9 GB."""
    names = TransformerShape(width=256, depth=3, heads=4, head_width=64, mlp_width=300)
    return Architecture(
        tokenizer=TokenizerShape((256, 256), (256, 256), 2, ((2, 4, 1, 1), (2, 2, 1, 0)), latent_channels=2),
        series_name=NameEncoderShape(names, output=289),
        study_description=NameEncoderShape(names, output=1024),
        sequence_vit=VitShape(
            20, TransformerShape(289, depth=15, heads=16, head_width=64, mlp_width=1024), output=1024
        ),
        study_vit=VitShape(10, TransformerShape(1024, depth=4, heads=8, head_width=64, mlp_width=1024), output=128),
        heads=_heads((10_240, 4000, 1000), diagnoses, referrals),
    )


def demo(diagnoses: Sequence[str] = DIAGNOSES, referrals: Sequence[str] = REFERRALS) -> Architecture:
    """A model of about one megabyte that runs a study in seconds on any CPU."""
    names = TransformerShape(width=64, depth=2, heads=2, head_width=32, mlp_width=64)
    return Architecture(
        tokenizer=TokenizerShape((16, 16), (16, 16), 2, ((2, 4, 1, 1), (2, 2, 1, 0)), latent_channels=2),
        series_name=NameEncoderShape(names, output=289),
        study_description=NameEncoderShape(names, output=64),
        sequence_vit=VitShape(4, TransformerShape(289, depth=2, heads=4, head_width=16, mlp_width=64), output=64),
        study_vit=VitShape(4, TransformerShape(64, depth=2, heads=4, head_width=16, mlp_width=64), output=32),
        heads=_heads((256, 64, 32), diagnoses, referrals),
    )


def _heads(widths: tuple[int, ...], diagnoses: Sequence[str], referrals: Sequence[str]) -> tuple[HeadShape, ...]:
    outputs = {"diagnosis": tuple(diagnoses), "referral": tuple(referrals), "priority": PRIORITY_LEVELS}
    return tuple(HeadShape(task, widths, names) for task, names in outputs.items())


def write_random_bundle(directory: Path, architecture: Architecture, *, seed: int = 0, name: str = "random") -> Bundle:
    """Write an untrained bundle of this architecture. Raises BundleError when `directory` is not free."""
    shapes = expected_tensors(architecture)
    return write_bundle(
        directory,
        name=name,
        version=f"seed-{seed}",
        training_state="untrained",
        architecture=architecture,
        thresholds={
            task: {
                label: round(float(_stream(seed, label).uniform(-0.5, 0.5)), 3) for label in architecture.labels(task)
            }
            for task in ("diagnosis", "referral")
        },
        calibration={},
        weights=lambda tensor: _random_tensor(tensor, shapes[tensor], seed),
    )


def _random_tensor(name: str, shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    """Norms are the identity, tables are normal, weights keep the variance of their input."""
    if name.endswith("norm.weight"):
        return np.ones(shape, np.float32)
    if name.endswith("norm.bias"):
        return np.zeros(shape, np.float32)
    stream = _stream(seed, name)
    if name.endswith(("letters.weight", "class_tokens")):
        return stream.standard_normal(shape, np.float32)
    bound = 0.02 if len(shape) == 1 else math.sqrt(3 / math.prod(shape[1:]))
    return (stream.random(shape, np.float32) * 2 - 1) * np.float32(bound)


def _stream(seed: int, name: str) -> np.random.Generator:
    """Random numbers that depend on the tensor's name, not on the order of tensors."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
