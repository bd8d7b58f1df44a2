"""Acquired series → DICOM files as the scanner's vendor writes them: classic MR Image Storage, one slice a file.

Every object says that it is none of a patient: in PatientName, PatientID, PatientComments, ImageComments, Content
Qualification (RESEARCH) and Synthetic Data (YES, PS3.3 C.12.1). Descriptions do not say so: the model reads them, and
the node's scope check takes the word "phantom" there for a test object.

What all slices of a series share is encoded once; a slice adds five elements. Data elements lie in the order of their
tags (PS3.5 section 7.1), so that a file is those pieces of bytes in order. All UIDs are 64 characters long, so that the
File Meta Information of a series' slices differs in the UID alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from training.phantom.types import Acquisition, SeriesPlan, StudyProtocol

NOT_A_PATIENT = "SIMULATED: not a patient"
B_VALUE = 1000.0  # s/mm², of the diffusion-weighted images
_CONTRAST_AGENTS = ("Gadobutrol", "Gadoterate", "Gadoteridol")
_CHARACTER_SET = "ISO_IR 100"

# ScanningSequence, SequenceVariant, ScanOptions, EchoTrainLength (PS3.3 C.8.3.1)
_SEQUENCES: dict[str, tuple[str | list[str], str | list[str], str | list[str], int]] = {
    "T1": ("SE", "NONE", "", 1),
    "T1C": ("SE", "NONE", "", 1),
    "T2": ("SE", ["SK", "SP"], "", 15),
    "FLAIR": (["SE", "IR"], ["SK", "SP"], "", 17),
    "DWI": ("EP", ["SK", "SP"], "FS", 96),
    "ADC": ("EP", ["SK", "SP"], "FS", 96),
    "T2STAR": ("GR", "SP", "", 1),
}
_PHILIPS_SCANNED = {"FLAIR": "IR", "T2STAR": "FFE"}


def phantom_uid(key: str, *what: object) -> str:
    """The UID of something in the study of this key; the same every time."""
    return str(generate_uid(entropy_srcs=["prima-node phantom", key, *map(str, what)]))


@dataclass(frozen=True)
class StudyFacts:
    """Who and when. key: what all UIDs of the study are derived from, so that a seed always gives the same objects."""

    key: str
    patient_id: str
    patient_name: str
    sex: str
    birth_date: date
    age_years: float
    day: date
    accession_number: str

    @property
    def study_instance_uid(self) -> str:
        """The study's UID."""
        return self.uid("study")

    def uid(self, *what: object) -> str:
        """The UID of something in this study."""
        return phantom_uid(self.key, *what)


def write_study(
    folder: Path, study: StudyFacts, protocol: StudyProtocol, acquisitions: Sequence[Acquisition]
) -> list[Path]:
    """Write every slice as `<series number>-<slice>.dcm` and give the paths. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number, acquisition in enumerate(acquisitions, start=1):
        paths += _write_series(folder, study, protocol, acquisition, number)
    return paths


def _write_series(
    folder: Path, study: StudyFacts, protocol: StudyProtocol, acquisition: Acquisition, number: int
) -> list[Path]:
    shared = _shared(study, protocol, acquisition, number)
    meta, any_uid = _file_meta(shared.SeriesInstanceUID), shared.SeriesInstanceUID.encode()
    pieces = {element.tag: _encode(Dataset({element.tag: element})) for element in shared}
    paths: list[Path] = []
    for index in range(len(acquisition.voxels)):
        own = _own(study, acquisition, number, index)
        slice_pieces = pieces | {element.tag: _encode(Dataset({element.tag: element})) for element in own}
        whole = b"".join(slice_pieces[tag] for tag in sorted(slice_pieces))
        path = folder / f"{number:02}-{index + 1:03}.dcm"
        path.write_bytes(meta.replace(any_uid, own.SOPInstanceUID.encode()) + whole)
        paths.append(path)
    return paths


def _encode(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset, parent_encoding=_CHARACTER_SET)
    return buffer.getvalue()


def _file_meta(sop_instance_uid: str) -> bytes:
    """Preamble and File Meta Information (PS3.10 section 7.1) of an object."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return bytes(128) + b"DICM" + buffer.getvalue()


def _own(study: StudyFacts, acquisition: Acquisition, number: int, index: int) -> Dataset:
    """What only this slice says."""
    position = acquisition.positions[index]
    row, column = acquisition.orientation[:3], acquisition.orientation[3:]
    normal = (
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    )
    image = Dataset()
    image.SOPInstanceUID = study.uid("image", number, index)
    image.InstanceNumber = index + 1
    image.ImagePositionPatient = stored_position(position)
    image.SliceLocation = round(float(sum(a * b for a, b in zip(position, normal, strict=True))), 4)
    image.PixelData = acquisition.voxels[index].astype("<u2").tobytes()
    image["PixelData"].VR = "OW"
    return image


def _shared(study: StudyFacts, protocol: StudyProtocol, acquisition: Acquisition, number: int) -> Dataset:
    """What all slices of a series say."""
    plan = acquisition.plan
    image = Dataset()
    image.SpecificCharacterSet = _CHARACTER_SET
    image.SOPClassUID = MRImageStorage
    image.SyntheticData = "YES"
    image.ImageComments = image.PatientComments = NOT_A_PATIENT
    image.ContentQualification = "RESEARCH"
    _add_study(image, study, protocol)
    _add_series(image, study, plan, number)
    _add_equipment(image, protocol)
    _add_acquisition(image, protocol, plan)
    image.ImageOrientationPatient = stored_orientation(acquisition.orientation)
    _add_pixels(image, acquisition)
    return image


def stored_position(position: Iterable[float]) -> list[float]:
    """Image Position (Patient) as the files say it, in tenths of a micrometre."""
    return [round(float(x), 4) for x in position]


def stored_orientation(orientation: Iterable[float]) -> list[float]:
    """Image Orientation (Patient) as the files say it."""
    return [round(float(x), 6) for x in orientation]


def _add_study(image: Dataset, study: StudyFacts, protocol: StudyProtocol) -> None:
    image.PatientName = study.patient_name
    image.PatientID = study.patient_id
    image.PatientBirthDate = study.birth_date.strftime("%Y%m%d")
    image.PatientSex = study.sex
    image.PatientAge = f"{int(study.age_years):03}Y"
    image.StudyInstanceUID = study.study_instance_uid
    image.StudyID = "1"
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = study.day.strftime("%Y%m%d")
    image.StudyTime = "120000"
    image.AccessionNumber = study.accession_number
    image.ReferringPhysicianName = ""
    image.StudyDescription = protocol.study_description


def _add_series(image: Dataset, study: StudyFacts, plan: SeriesPlan, number: int) -> None:
    image.Modality = "MR"
    image.SeriesInstanceUID = study.uid("series", number)
    image.FrameOfReferenceUID = study.uid("frame of reference")
    image.PositionReferenceIndicator = ""
    image.SeriesNumber = image.AcquisitionNumber = number
    image.SeriesTime = image.AcquisitionTime = image.ContentTime = f"12{4 * number:02}00"
    image.SeriesDescription = plan.description
    image.ProtocolName = plan.protocol_name
    image.BodyPartExamined = "BRAIN"
    image.PatientPosition = "HFS"


def _add_equipment(image: Dataset, protocol: StudyProtocol) -> None:
    image.Manufacturer = protocol.vendor
    image.ManufacturerModelName = protocol.model
    image.StationName = protocol.site.upper()
    image.DeviceSerialNumber = "SIMULATED"
    image.SoftwareVersions = "prima-node phantom"
    image.MagneticFieldStrength = protocol.field_strength


def _add_acquisition(image: Dataset, protocol: StudyProtocol, plan: SeriesPlan) -> None:
    image.ImageType = image_type(protocol.vendor, plan.sequence)
    scanning, variant, options, train = _SEQUENCES[plan.sequence]
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = scanning, variant, options
    image.EchoTrainLength = train
    image.MRAcquisitionType = "2D"
    image.RepetitionTime, image.EchoTime, image.FlipAngle = plan.repetition_ms, plan.echo_ms, plan.flip_degrees
    if plan.inversion_ms:
        image.InversionTime = plan.inversion_ms
    if plan.sequence == "DWI":
        image.DiffusionBValue, image.DiffusionDirectionality = B_VALUE, "ISOTROPIC"
    if plan.sequence == "T1C":
        image.ContrastBolusAgent = _CONTRAST_AGENTS[sum(protocol.site.encode()) % len(_CONTRAST_AGENTS)]
    image.NumberOfAverages = 1
    image.ImagingFrequency = round(42.577 * protocol.field_strength, 3)
    image.ImagedNucleus = "1H"
    image.EchoNumbers = 1
    image.SliceThickness, image.SpacingBetweenSlices = plan.thickness_mm, plan.spacing_mm
    image.InPlanePhaseEncodingDirection = "ROW" if plan.plane == "axial" else "COL"


def _add_pixels(image: Dataset, acquisition: Acquisition) -> None:
    _, image.Rows, image.Columns = acquisition.voxels.shape
    image.PixelSpacing = [acquisition.plan.pixel_mm] * 2
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    brightest = int(acquisition.voxels.max())
    image.WindowCenter, image.WindowWidth = brightest // 2, max(1, brightest)


def image_type(vendor: str, sequence: str) -> list[str]:
    """Image Type in the vendor's own words (PS3.3 C.8.3.1.1.1 leaves values 3 and 4 to them)."""
    name = vendor.casefold()
    if name.startswith("philips"):
        scanned = _PHILIPS_SCANNED.get(sequence, "SE")
        calculated = ["ADC", "ADC", "UNSPECIFIED"]
        return ["ORIGINAL", "PRIMARY", *(calculated if sequence == "ADC" else [f"M_{scanned}", "M", scanned])]
    if name.startswith(("siemens", "uih")):
        if sequence in ("DWI", "ADC"):
            return ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW" if sequence == "DWI" else "ADC", "ND"]
        return ["ORIGINAL", "PRIMARY", "M", "ND"]
    return ["DERIVED", "SECONDARY", "ADC"] if sequence == "ADC" else ["ORIGINAL", "PRIMARY", "OTHER"]
