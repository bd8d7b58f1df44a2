"""Synthetic MR objects for tests: classic series, enhanced multi-frame, Siemens mosaic, in any geometry and coding.

How to use:

    study = StudyFacts(description="MRI BRAIN")                        # one study, one patient, fresh UIDs
    paths = write_series(folder, head_phantom(), study)                # a plain axial series of 16 slices
    paths = write_series(folder, voxels, study, SeriesFacts(number=2, description="SAG T1", plane="sagittal"))
    write_study(folder)                                                # a whole study that is in scope
    path = write_enhanced(folder, voxels, study, SeriesFacts(...))     # the same slices in one multi-frame object

`mr_slices` and `enhanced_image` give `pydicom.Dataset`s instead of files, for senders. Voxels are (slices, rows,
columns); slice k lies at `origin + k * gap * normal`. Everything else of a dataset can be changed through `edit`, a
callable that gets (dataset, slice index) before the file is written.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

Voxels = npt.NDArray[Any]
Edit = Callable[[Dataset, int], None]

PLANES = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
}
LOSSLESS_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
)
_COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)


@dataclass(frozen=True)
class StudyFacts:
    """What all images of a study share. `age` is DICOM's AS form, for example 054Y."""

    description: str = "MRI BRAIN"
    study_uid: str = field(default_factory=generate_uid)
    patient_id: str = "TEST0001"
    patient_name: str = "Test^Patient"
    birth_date: str = "19700101"
    age: str = ""
    study_date: str = "20240102"
    accession_number: str = "ACC1"
    frame_of_reference_uid: str = field(default_factory=generate_uid)


@dataclass(frozen=True)
class SeriesFacts:
    """What all images of a series share. `plane` names an entry of `PLANES` or gives the six direction cosines."""

    number: int = 1
    description: str = "AX T2"
    protocol: str = ""
    plane: str | Sequence[float] = "axial"
    spacing: tuple[float, float] = (1.0, 1.0)  # between rows, between columns
    gap: float = 4.0  # between slices
    origin: tuple[float, float, float] = (-64.0, -64.0, -32.0)
    body_part: str = ""
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "SE")
    series_uid: str = field(default_factory=generate_uid)
    bits_stored: int | None = None  # by default all allocated bits but for uint16, where it is 12
    extra: dict[str, Any] = field(default_factory=dict)  # more attributes by keyword

    @property
    def orientation(self) -> tuple[float, ...]:
        """The six direction cosines."""
        return PLANES[self.plane] if isinstance(self.plane, str) else tuple(self.plane)

    def position(self, index: float) -> list[float]:
        """Image Position (Patient) of slice `index`."""
        row, column = np.reshape(self.orientation, (2, 3))
        return [float(x) for x in np.asarray(self.origin) + index * self.gap * np.cross(row, column)]


def head_phantom(slices: int = 16, rows: int = 128, columns: int = 128, peak: int = 900) -> Voxels:
    """A bright ellipsoid with some texture on black, uint16: enough foreground to be selected."""
    z, y, x = np.meshgrid(
        np.linspace(-1, 1, slices), np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"
    )
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.2) ** 2 < 1
    texture = peak * (0.7 + 0.2 * np.sin(7 * x + 3 * z) * np.cos(5 * y))
    return np.where(inside, texture, 0).astype(np.uint16)


def mr_slices(voxels: Voxels, study: StudyFacts, series: SeriesFacts | None = None) -> list[Dataset]:
    """Classic MR Image Storage datasets, one a slice, in explicit VR little endian, with file meta."""
    series = series or SeriesFacts()
    slices = []
    for index, plane in enumerate(voxels):
        ds = _common(study, series, MRImageStorage)
        ds.InstanceNumber = index + 1
        ds.ImagePositionPatient = [_ds(x) for x in series.position(index)]
        ds.ImageOrientationPatient = [_ds(x) for x in series.orientation]
        ds.PixelSpacing = [_ds(x) for x in series.spacing]
        ds.SliceThickness = _ds(series.gap)
        ds.SpacingBetweenSlices = _ds(series.gap)
        _set_pixels(ds, plane, series.bits_stored)
        slices.append(ds)
    return slices


def write_series(
    folder: Path,
    voxels: Voxels,
    study: StudyFacts,
    series: SeriesFacts | None = None,
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
    order: Sequence[int] | None = None,
    edit: Edit | None = None,
) -> list[Path]:
    """Write one file a slice and give the paths. `order[k]` is the slice that file k holds (names then lie)."""
    series = series or SeriesFacts()
    slices = mr_slices(voxels, study, series)
    paths = []
    for name, index in enumerate(order if order is not None else range(len(slices))):
        if edit is not None:
            edit(slices[index], index)
        paths.append(write(slices[index], folder / f"{series.number:03d}_{name:04d}.dcm", transfer_syntax))
    return paths


def write_study(folder: Path, study: StudyFacts | None = None) -> list[Path]:
    """A small brain study that is in scope: three planes, three series of 16 slices."""
    study = study or StudyFacts()
    paths = []
    for number, (plane, name) in enumerate((("axial", "AX FLAIR"), ("sagittal", "SAG T1"), ("coronal", "COR T2")), 1):
        facts = SeriesFacts(number=number, description=name, protocol=name, plane=plane, body_part="BRAIN")
        paths += write_series(folder, head_phantom(), study, facts)
    return paths


def enhanced_image(
    voxels: Voxels, study: StudyFacts, series: SeriesFacts | None = None, *, shared: bool = True
) -> Dataset:
    """Enhanced MR Image Storage: the slices of `mr_slices` as frames.

    `shared` puts orientation, pixel measures and rescale into the shared functional groups, otherwise into every frame.
    Rescale comes from `series.extra` (RescaleSlope, RescaleIntercept).
    """
    series = series or SeriesFacts()
    ds = _common(study, series, EnhancedMRImageStorage)
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.InstanceNumber = 1
    ds.NumberOfFrames = len(voxels)
    ds.VolumetricProperties = "VOLUME"
    ds.ComplexImageComponent = "MAGNITUDE"
    common = Dataset()
    common.PlaneOrientationSequence = [_item(ImageOrientationPatient=[float(x) for x in series.orientation])]
    common.PixelMeasuresSequence = [
        _item(
            PixelSpacing=[float(x) for x in series.spacing], SliceThickness=series.gap, SpacingBetweenSlices=series.gap
        )
    ]
    if slope is not None:
        common.PixelValueTransformationSequence = [
            _item(RescaleSlope=slope, RescaleIntercept=intercept or 0, RescaleType="US")
        ]
    ds.SharedFunctionalGroupsSequence = [common if shared else Dataset()]
    frames = []
    for index in range(len(voxels)):
        frame = Dataset()
        frame.FrameContentSequence = [_item(StackID="1", InStackPositionNumber=index + 1, TemporalPositionIndex=1)]
        frame.PlanePositionSequence = [_item(ImagePositionPatient=series.position(index))]
        frame.MRImageFrameTypeSequence = [_item(FrameType=list(series.image_type))]
        if not shared:
            frame.update(common)
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    _set_pixels(ds, voxels, series.bits_stored)
    return ds


def write_enhanced(
    folder: Path,
    voxels: Voxels,
    study: StudyFacts,
    series: SeriesFacts | None = None,
    *,
    shared: bool = True,
    transfer_syntax: str = ExplicitVRLittleEndian,
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write `enhanced_image` to a file, after `edit`."""
    series = series or SeriesFacts()
    ds = enhanced_image(voxels, study, series, shared=shared)
    if edit is not None:
        edit(ds)
    return write(ds, folder / f"{series.number:03d}_enhanced.dcm", transfer_syntax)


def mosaic_image(
    voxels: Voxels, study: StudyFacts, series: SeriesFacts | None = None, *, normal_sign: int = 1, csa: bool = True
) -> Dataset:
    """A Siemens mosaic of the slices of `mr_slices`: tiles by row, the position that of the whole mosaic.

    `normal_sign` −1 stores the tiles against the cross product of rows and columns. Without `csa` the header that
    holds the slice count and normal is left out.
    """
    series = series or SeriesFacts()
    count, rows, columns = voxels.shape
    grid = int(np.ceil(np.sqrt(count)))
    sheet = np.zeros((grid * rows, grid * columns), voxels.dtype)
    for tile, plane in enumerate(voxels[::normal_sign]):
        y, x = divmod(tile, grid)
        sheet[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns] = plane
    row, column = np.reshape(series.orientation, (2, 3))
    normal = np.cross(row, column) * normal_sign
    first = np.asarray(series.position(0 if normal_sign > 0 else count - 1))
    corner = (
        first - row * series.spacing[1] * (grid - 1) * columns / 2 - column * series.spacing[0] * (grid - 1) * rows / 2
    )
    ds = mr_slices(sheet[None], study, series)[0]
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    ds.Manufacturer = "SIEMENS"
    ds.ImagePositionPatient = [_ds(x) for x in corner]
    block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", count)
    if csa:
        header = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        header.add_new(
            0x10, "OB", csa_header(NumberOfImagesInMosaic=[str(count)], SliceNormalVector=[f"{x:.8f}" for x in normal])
        )
    return ds


def csa_header(**elements: list[str]) -> bytes:
    """A Siemens CSA2 ("SV10") header with the given text elements."""
    out = io.BytesIO()
    out.write(b"SV10\4\3\2\1" + len(elements).to_bytes(4, "little") + (77).to_bytes(4, "little"))
    for name, values in elements.items():
        items = [*values, *([""] * (6 - len(values)))]
        out.write(name.encode().ljust(64, b"\0"))
        out.write(len(values).to_bytes(4, "little") + b"FD\0\0" + (4).to_bytes(4, "little"))
        out.write(len(items).to_bytes(4, "little") + (77).to_bytes(4, "little"))
        for value in items:
            data = value.encode() + b"\0" if value else b""
            out.write(b"".join(n.to_bytes(4, "little") for n in (len(data), len(data), 77, len(data))))
            out.write(data.ljust((len(data) + 3) // 4 * 4, b"\0"))
    return out.getvalue()


def write(ds: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a dataset made here as a DICOM file in the transfer syntax. JPEG baseline needs 8-bit pixels, is lossy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if transfer_syntax == JPEGBaseline8Bit:
        _compress_jpeg(ds)
    elif transfer_syntax in _COMPRESSED and ds.file_meta.TransferSyntaxUID not in _COMPRESSED:
        ds.compress(transfer_syntax, generate_instance_uid=False)
    elif transfer_syntax == ExplicitVRBigEndian:
        pixels = np.frombuffer(ds.PixelData, f"<u{ds.BitsAllocated // 8}")
        ds.PixelData = pixels.astype(f">u{ds.BitsAllocated // 8}").tobytes()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.save_as(path, enforce_file_format=True)
    return path


def _common(study: StudyFacts, series: SeriesFacts, sop_class: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.ImageType = list(series.image_type)
    ds.StudyDate = study.study_date
    ds.StudyTime = "101500"
    ds.AccessionNumber = study.accession_number
    ds.Modality = "MR"
    ds.Manufacturer = "SYNTH"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = study.description
    ds.SeriesDescription = series.description
    ds.PatientName = study.patient_name
    ds.PatientID = study.patient_id
    ds.PatientBirthDate = study.birth_date
    ds.PatientSex = "O"
    if study.age:
        ds.PatientAge = study.age
    if series.body_part:
        ds.BodyPartExamined = series.body_part
    if series.protocol:
        ds.ProtocolName = series.protocol
    ds.StudyInstanceUID = study.study_uid
    ds.SeriesInstanceUID = series.series_uid
    ds.StudyID = "1"
    ds.SeriesNumber = series.number
    ds.FrameOfReferenceUID = study.frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    for keyword, value in series.extra.items():
        setattr(ds, keyword, value)
    return ds


def _set_pixels(ds: Dataset, pixels: Voxels, bits_stored: int | None) -> None:
    allocated = pixels.dtype.itemsize * 8
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated = allocated
    ds.BitsStored = bits_stored or (12 if pixels.dtype == np.uint16 else allocated)
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.add_new("PixelData", "OW", np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes())


def _compress_jpeg(ds: Dataset) -> None:
    planes = np.frombuffer(ds.PixelData, np.uint8).reshape(-1, ds.Rows, ds.Columns)
    frames = []
    for plane in planes:
        stream = io.BytesIO()
        Image.fromarray(plane).save(stream, "JPEG", quality=95)
        frames.append(stream.getvalue())
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.LossyImageCompression = "01"


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _ds(value: float) -> str:
    """A decimal string that reads back as close as DS's 16 characters allow."""
    text = repr(float(value))
    return text if len(text) <= 16 else f"{value:.9g}"
