"""A brain MR study made from the MNI152 maps that the nilearn package carries: no download, no patient data.

Three series of a healthy average brain: axial FLAIR, sagittal T1, coronal T2. Simulated: every object says so.
"""

# SimpleITK's wrapper carries no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from dicom_node.base.errors import PermanentError

MATRIX = 256
FIELD_OF_VIEW_MM = 230.0
NOISE = 12.0
BRIGHTEST = 1000.0


@dataclass(frozen=True)
class Plan:
    """How one series is acquired. gray, white, fluid: the tissues' brightness, 0…1. axes: row and column direction."""

    description: str
    axes: tuple[tuple[float, ...], tuple[float, ...]]
    slices: int
    spacing_mm: float
    gray: float
    white: float
    fluid: float
    echo_ms: float
    repetition_ms: float


PLANS = (
    Plan("AX T2 FLAIR SIMULATED", ((1, 0, 0), (0, 1, 0)), 26, 6.0, 0.75, 0.55, 0.10, 120, 9000),
    Plan("SAG T1 SIMULATED", ((0, 1, 0), (0, 0, -1)), 24, 6.0, 0.50, 0.80, 0.15, 12, 600),
    Plan("COR T2 SIMULATED", ((1, 0, 0), (0, 0, -1)), 28, 6.0, 0.55, 0.40, 1.00, 100, 5000),
)


def write_sample_study(folder: Path, seed: int = 0) -> list[Path]:
    """Write the study as single-frame MR Image Storage files and return them. UIDs are new at every call.

    Raises PermanentError when nilearn is not installed.
    """
    tissues = _tissues()
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    study_uid, frame_uid = generate_uid(), generate_uid()
    files: list[Path] = []
    for number, plan in enumerate(PLANS, start=1):
        volume = _acquire(tissues, plan, generator)
        series_uid = generate_uid()
        for index in range(plan.slices):
            image = _image(plan, index, study_uid, series_uid, frame_uid, number)
            image.PixelData = volume[index].tobytes()
            path = folder / f"series{number}-{index:03}.dcm"
            image.save_as(path, enforce_file_format=True)
            files.append(path)
    return files


def _tissues() -> dict[str, sitk.Image]:
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise PermanentError("the sample study needs nilearn's MNI152 maps: pip install 'prima-node[demo]'")
    data = Path(spec.origin).parent / "datasets" / "data"
    maps = {
        name: sitk.ReadImage(str(data / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"), sitk.sitkFloat32)
        for name in ("t1", "gm", "wm")
    }
    return {name: sitk.RescaleIntensity(image, 0.0, 1.0) for name, image in maps.items()}


def _acquire(tissues: dict[str, sitk.Image], plan: Plan, generator: np.random.Generator) -> npt.NDArray[np.uint16]:
    grid = _grid(plan)
    gray, white, head = (sitk.GetArrayFromImage(sitk.Resample(tissues[name], grid)) for name in ("gm", "wm", "t1"))
    # The T1 template is skull-stripped: what is bright in it but neither gray nor white matter is taken as fluid.
    brain = head > 0.1
    fluid = np.clip(brain - gray - white, 0, 1)
    signal = BRIGHTEST * (plan.gray * gray + plan.white * white + plan.fluid * fluid)
    noisy = np.hypot(signal + generator.normal(0, NOISE, signal.shape), generator.normal(0, NOISE, signal.shape))
    image: npt.NDArray[np.uint16] = noisy.astype(np.uint16)
    return image


def _grid(plan: Plan) -> sitk.Image:
    grid = sitk.Image(MATRIX, MATRIX, plan.slices, sitk.sitkFloat32)
    row, column = np.array(plan.axes, dtype=float)
    grid.SetDirection(np.column_stack([row, column, np.cross(row, column)]).ravel().tolist())
    pixel = FIELD_OF_VIEW_MM / MATRIX
    grid.SetSpacing((pixel, pixel, plan.spacing_mm))
    grid.SetOrigin(_position(plan, 0))
    return grid


def _position(plan: Plan, index: int) -> list[float]:
    """Centre of the first voxel of a slice (mm, LPS); the stack is centred on the MNI brain."""
    row, column = np.array(plan.axes, dtype=float)
    pixel = FIELD_OF_VIEW_MM / MATRIX
    half = pixel * (MATRIX - 1) / 2
    along = (index - (plan.slices - 1) / 2) * plan.spacing_mm
    centre = np.array([0.0, 18.0, 8.0])
    position: npt.NDArray[np.float64] = centre - half * row - half * column + along * np.cross(row, column)
    return [round(float(value), 4) for value in position]


def _image(plan: Plan, index: int, study_uid: str, series_uid: str, frame_uid: str, series_number: int) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = generate_uid()
    image.ImageType = ["DERIVED", "PRIMARY", "M"]
    image.StudyDate = image.SeriesDate = "20260101"
    image.StudyTime = image.SeriesTime = "120000"
    image.AccessionNumber = "SIMULATED1"
    image.Modality = "MR"
    image.Manufacturer = "prima-node simulation"
    image.ReferringPhysicianName = ""
    image.StudyDescription = "MRI BRAIN SIMULATED"
    image.SeriesDescription = image.ProtocolName = plan.description
    image.PatientName = "SIMULATED^MNI152"
    image.PatientID = "SIMULATED-MNI152"
    image.PatientBirthDate = ""
    image.PatientSex = "O"
    image.BodyPartExamined = "BRAIN"
    image.ScanningSequence = "SE"
    image.SequenceVariant = "NONE"
    image.ScanOptions = ""
    image.MRAcquisitionType = "2D"
    image.SliceThickness = image.SpacingBetweenSlices = plan.spacing_mm
    image.EchoTime = plan.echo_ms
    image.RepetitionTime = plan.repetition_ms
    image.EchoTrainLength = 1
    image.PatientPosition = "HFS"
    image.StudyInstanceUID = study_uid
    image.SeriesInstanceUID = series_uid
    image.StudyID = "1"
    image.SeriesNumber = series_number
    image.InstanceNumber = index + 1
    image.FrameOfReferenceUID = frame_uid
    image.PositionReferenceIndicator = ""
    image.ImagePositionPatient = _position(plan, index)
    image.ImageOrientationPatient = [*plan.axes[0], *plan.axes[1]]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = image.Columns = MATRIX
    image.PixelSpacing = [round(FIELD_OF_VIEW_MM / MATRIX, 6)] * 2
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    return image
