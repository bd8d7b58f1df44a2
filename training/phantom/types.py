"""Frozen value types that cross a border inside `training.phantom` and out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt

from training.base.cohort import StudyLabels, StudyReport

SEQUENCES = ("T1", "T1C", "T2", "FLAIR", "DWI", "ADC", "T2STAR")  # T1C: after contrast; DWI: b = 1000 s/mm²
PLANES = ("axial", "sagittal", "coronal")

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the patient.

    diagnoses: keys of the labels it gives (a haemorrhage with mass effect gives two findings or two keys).
    kind: the word that the report's grammar knows, such as "metastasis". side: left, right, midline, both or "".
    site: such as "frontal lobe", "basal ganglia" or "". size_mm: largest diameter of the largest one, else 0.
    count: how many. attributes: what else the grammar may say, such as {"age": "acute", "enhancement": "ring"}.
    strength: 0…1, how plain it is to see; fixed with the case, before anything is trained.
    """

    diagnoses: tuple[str, ...]
    kind: str
    side: str = ""
    site: str = ""
    size_mm: float = 0.0
    count: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)
    strength: float = 1.0


@dataclass(frozen=True)
class Case:
    """Who the patient is and what is wrong, from a seed alone."""

    seed: int
    age_years: float
    sex: str
    findings: tuple[Finding, ...]

    @property
    def diagnoses(self) -> frozenset[str]:
        """Keys of all diagnoses that the findings give."""
        return frozenset(key for finding in self.findings for key in finding.diagnoses)


@dataclass(frozen=True)
class Head:
    """A patient's head as maps of what MR signal is made of, all (z, y, x) float32 on one grid.

    case: as it was built, which is what labels and reports are made of: its findings are those of the case that was
    asked for, then what followed from them and was measured (mass effect, midline shift, oedema, herniation).
    fluid: 0…1, share of a voxel that is cerebrospinal fluid; the other maps are of the rest of the voxel. fat: 0…1, the
    share that fat suppression removes.
    proton_density: 0…1. t1_ms, t2_ms, t2star_ms: relaxation times. adc: 10⁻³ mm²/s. uptake: 0…1, contrast agent.
    lesion: (z, y, x) uint8, 0 or 1 + the number of the finding that a voxel belongs to (what contrast-to-noise is
    measured on). affine: (4, 4), voxel (x, y, z) → patient millimetres in LPS.
    """

    case: Case
    fluid: Map
    fat: Map
    proton_density: Map
    t1_ms: Map
    t2_ms: Map
    t2star_ms: Map
    adc: Map
    uptake: Map
    lesion: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeriesPlan:
    """How one series is acquired.

    sequence, plane: of SEQUENCES and PLANES. tilt_degrees: rotation of the slices about the patient's left–right axis.
    matrix: rows = columns. pixel_mm: in-plane spacing. slices, spacing_mm: number and distance of slice centres.
    thickness_mm: a slice's profile. repetition_ms, echo_ms, inversion_ms (0 where there is none), flip_degrees.
    noise: standard deviation of each Rician channel, as a share of white matter's signal. bias: 0…1, coil shading.
    motion: 0…1 ghosting in the phase direction. wrap: share of the field of view that folds over. scale: stored value
    of the brightest expected tissue.
    """

    sequence: str
    plane: str
    description: str
    protocol_name: str
    matrix: int
    pixel_mm: float
    slices: int
    spacing_mm: float
    thickness_mm: float
    repetition_ms: float
    echo_ms: float
    inversion_ms: float
    flip_degrees: float
    tilt_degrees: float = 0.0
    noise: float = 0.02
    bias: float = 0.2
    motion: float = 0.0
    wrap: float = 0.0
    scale: float = 1000.0


@dataclass(frozen=True)
class StudyProtocol:
    """Which scanner makes which series of a study, in the order of their numbers.

    vendor, model: Manufacturer and Manufacturer's Model Name as its objects say. site: a scanner's place within the
    simulation. field_strength: tesla.
    """

    vendor: str
    model: str
    site: str
    field_strength: float
    study_description: str
    series: tuple[SeriesPlan, ...]


@dataclass(frozen=True)
class Acquisition:
    """One acquired series.

    voxels: (slices, rows, columns) uint16. positions: (slices, 3) LPS mm of each slice's first voxel centre.
    orientation: the two direction cosines of Image Orientation (Patient), rows first (PS3.3 C.7.6.2.1.1).
    contrast_to_noise: for each finding of the head's case, |mean inside − mean of surrounding normal-appearing voxels|
    over the noise, 0 where the series does not show it and for a finding with no voxels of its own (midline shift).
    """

    plan: SeriesPlan
    voxels: npt.NDArray[np.uint16]
    positions: npt.NDArray[np.float64]
    orientation: tuple[float, float, float, float, float, float]
    contrast_to_noise: tuple[float, ...]


@dataclass(frozen=True)
class Truth:
    """What is known of one phantom study.

    contrast_to_noise: for each of the case's findings, the best of all series.
    """

    study_instance_uid: str
    patient_id: str
    day: date
    vendor: str
    site: str
    field_strength: float
    case: Case
    labels: StudyLabels
    report: StudyReport
    contrast_to_noise: tuple[float, ...]
