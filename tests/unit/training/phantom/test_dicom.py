"""Phantom DICOM files: what pydicom, dciodvfy and the node's own reader find in them. Pixels are a box, not a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from prima_core.prepare import prepare_study
from support.reports import errors_of
from training.phantom.dicom import StudyFacts, write_study
from training.phantom.protocol import draw_protocol
from training.phantom.types import Acquisition, SeriesPlan, StudyProtocol

ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
}


def box(plan: SeriesPlan) -> Acquisition:
    side, edge = plan.matrix, plan.matrix // 5
    voxels = np.zeros((plan.slices, side, side), np.uint16)
    voxels[2:-2, edge:-edge, edge:-edge] = 700 + np.arange(plan.slices, dtype=np.uint16)[2:-2, None, None]
    orientation = ORIENTATIONS[plan.plane]
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([-100.0, -110.0, 20.0]) + np.outer(np.arange(plan.slices) * plan.spacing_mm, normal)
    return Acquisition(plan, voxels, positions, orientation, ())


FACTS = StudyFacts(
    key="home:5",
    patient_id="PHANTOM-HOME-5",
    patient_name="PHANTOM^HOME-5",
    sex="F",
    birth_date=date(1970, 2, 1),
    age_years=54.9,
    day=date(2025, 1, 3),
    accession_number="SIM5",
)


def protocol_of(site: str, wanted: Sequence[str] = ("DWI", "FLAIR", "T1C")) -> StudyProtocol:
    """One of the site's, with these sequences."""
    generator = np.random.default_rng(3)
    while True:
        protocol = draw_protocol(generator, site.split("-", maxsplit=1)[0])
        if protocol.site == site and set(wanted) <= {plan.sequence for plan in protocol.series}:
            return replace(protocol, series=tuple(replace(plan, slices=8) for plan in protocol.series))


def written(folder: Path, protocol: StudyProtocol) -> dict[str, Dataset]:
    """The second slice of each series, by sequence."""
    write_study(folder, FACTS, protocol, [box(plan) for plan in protocol.series])
    return {
        plan.sequence: dcmread(folder / f"{number:02}-002.dcm") for number, plan in enumerate(protocol.series, start=1)
    }


@pytest.fixture(scope="module", params=["home-1", "home-4", "home-6", "away-4"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyProtocol]:
    protocol = protocol_of(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    write_study(folder, FACTS, protocol, [box(plan) for plan in protocol.series])
    return folder, protocol


def test_dciodvfy_finds_no_error(study: tuple[Path, StudyProtocol]) -> None:
    folder, protocol = study
    for number in range(1, len(protocol.series) + 1):
        assert errors_of(folder / f"{number:02}-001.dcm") == []


def test_the_node_reads_every_series_and_says_nothing_about_any(study: tuple[Path, StudyProtocol]) -> None:
    folder, protocol = study
    prepared = prepare_study(sorted(folder.iterdir()))
    assert prepared.set_aside == ()
    assert len(prepared.series) == len(protocol.series)
    assert prepared.description == protocol.study_description
    assert prepared.age_years == 54
    assert all(series.notes == () for series in prepared.series)
    planes = {"axial": 0, "coronal": 1, "sagittal": 2}
    assert [s.thin_axis for s in prepared.series] == [planes[plan.plane] for plan in protocol.series]
    assert all(len(s.sop_instance_uids) == p.slices for s, p in zip(prepared.series, protocol.series, strict=True))


def test_every_object_says_that_it_is_no_patients(study: tuple[Path, StudyProtocol]) -> None:
    folder, _ = study
    for path in folder.iterdir():
        image = dcmread(path, stop_before_pixels=True)
        assert str(image.PatientName).startswith("PHANTOM^")
        assert image.PatientID.startswith("PHANTOM-")
        assert "not a patient" in image.PatientComments
        assert "not a patient" in image.ImageComments
        assert image.ContentQualification == "RESEARCH"
        assert image.SyntheticData == "YES"
        assert "InstitutionName" not in image


def test_headers_say_how_the_series_was_acquired(tmp_path: Path) -> None:
    protocol = protocol_of("home-1")
    images = written(tmp_path, protocol)
    for plan in protocol.series:
        image = images[plan.sequence]
        assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == MRImageStorage
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert image.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert (image.SeriesDescription, image.ProtocolName) == (plan.description, plan.protocol_name)
        assert (image.Manufacturer, image.ManufacturerModelName) == (protocol.vendor, protocol.model)
        assert image.MagneticFieldStrength == protocol.field_strength
        assert image.EchoTime == pytest.approx(plan.echo_ms)
        assert image.RepetitionTime == pytest.approx(plan.repetition_ms)
        assert image.FlipAngle == pytest.approx(plan.flip_degrees)
        assert image.get("InversionTime", 0) == plan.inversion_ms
        assert image.SpacingBetweenSlices == pytest.approx(plan.spacing_mm)
        assert list(image.PixelSpacing) == pytest.approx([plan.pixel_mm] * 2)
        assert image.InstanceNumber == 2
        assert image.StudyDate == "20250103"
        assert image.PatientAge == "054Y"
    assert images["DWI"].DiffusionBValue == 1000
    assert "TRACEW" in images["DWI"].ImageType
    assert images["T1C"].ContrastBolusAgent
    assert "ContrastBolusAgent" not in images["FLAIR"]
    assert list(images["FLAIR"].ScanningSequence) == ["SE", "IR"]


def test_pixels_and_positions_come_back(tmp_path: Path) -> None:
    protocol = protocol_of("home-4")
    acquisition = box(protocol.series[0])
    paths = write_study(tmp_path, FACTS, protocol, [acquisition])
    assert len(paths) == len(acquisition.voxels)
    for index in (0, 5):
        image = dcmread(paths[index])
        np.testing.assert_array_equal(image.pixel_array, acquisition.voxels[index])
        assert list(image.ImagePositionPatient) == pytest.approx(list(acquisition.positions[index]), abs=1e-3)
    assert len({dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths}) == len(paths)


def test_the_same_study_is_written_with_the_same_bytes(tmp_path: Path) -> None:
    protocol = protocol_of("home-6")
    acquisition = box(protocol.series[0])
    one, other = (write_study(tmp_path / name, FACTS, protocol, [acquisition]) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_umlauts_are_declared(tmp_path: Path) -> None:
    protocol = protocol_of("away-4")
    image = next(iter(written(tmp_path, protocol).values()))
    assert image.SpecificCharacterSet == "ISO_IR 100"
    assert image.StudyDescription == protocol.study_description
