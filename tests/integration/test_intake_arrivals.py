"""What a second object does: duplicates, corrections, quarantine, priority, bystanders; pynetdicom sends."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless, generate_uid
from pynetdicom import AE

from dicom_node.intake.content import compare
from dicom_node.jobs.tables import studies
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.peers import AE_TITLE, CLIENT, RunningReceiver, receiver

pytestmark = pytest.mark.usefixtures("storing")


def send(node: RunningReceiver, *images: Dataset, priority: int = 0) -> list[int]:
    """C-STORE over one association; the statuses."""
    ae = AE("SENDER")
    for pair in {(image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in images}:
        ae.add_requested_context(*pair)
    association = ae.associate("127.0.0.1", node.port, ae_title=AE_TITLE, evt_handlers=CLIENT)
    assert association.is_established
    statuses = [association.send_c_store(image, priority=priority).Status for image in images]
    association.release()
    return statuses


def image() -> Dataset:
    return mr_slices(head_phantom(1, 32, 32), StudyFacts())[0]


def settled(node: RunningReceiver) -> dict[str, int]:
    """Standings once all disputes were judged as the scheduler judges them."""
    node.standings()
    for path, first in node.registry.disputed():
        node.registry.settle(path, compare(node.spool.folder / first, node.spool.folder / path))
    return node.standings()


def test_the_same_bytes_again_are_one_object(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        first = image()
        assert send(node, first, first) == [0, 0]
        assert send(node, first) == [0]
        assert node.standings(after=2) == {"current": 1}
        assert len(list(node.spool.paths())) == 1


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_the_same_image_in_another_transfer_syntax_is_a_duplicate(tmp_path: Path, syntax: str) -> None:
    with receiver(tmp_path) as node:
        first = image()
        second = copy.deepcopy(first)
        second.compress(syntax, generate_instance_uid=False)
        assert send(node, first, second) == [0, 0]
        assert settled(node) == {"current": 1, "duplicate": 1}


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID", "AccessionNumber", "SeriesDescription"])
def test_the_same_pixels_under_other_identifiers_take_the_place_of_the_first(tmp_path: Path, keyword: str) -> None:
    with receiver(tmp_path) as node:
        first = image()
        first.IssuerOfPatientID = "HOSPITAL"
        second = copy.deepcopy(first)
        setattr(second, keyword, "1.2.3")
        assert send(node, first, second) == [0, 0]
        assert settled(node) == {"current": 1, "superseded": 1}


@pytest.mark.parametrize("keyword", ["StudyInstanceUID"])
def test_the_same_pixels_under_another_study_are_a_correction(tmp_path: Path, keyword: str) -> None:
    with receiver(tmp_path) as node:
        first = image()
        second = copy.deepcopy(first)
        setattr(second, keyword, "1.2.3")
        assert send(node, first, second) == [0, 0]
        assert settled(node) == {"current": 1, "correction": 1}


def test_other_pixels_under_a_known_uid_are_quarantined_and_replace_nothing(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        first = image()
        second = copy.deepcopy(first)
        second.PixelData = second.PixelData[:-2] + b"\1\2"
        assert send(node, first, second) == [0, 0]
        assert settled(node) == {"current": 1, "quarantined": 1}
        (kept,) = [row for row in node.rows() if row.standing == "current"]
        assert (node.spool.folder / kept.path).read_bytes().endswith(first.PixelData)


def test_two_patients_under_one_study_end_it(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        study = StudyFacts()
        first = mr_slices(head_phantom(1, 32, 32), study)[0]
        second = mr_slices(head_phantom(1, 32, 32), study)[0]
        second.PatientID, second.PatientName = "OTHER", "Other^Person"
        assert send(node, first, second) == [0, 0]
        node.standings()
        (row,) = node.rows(studies)
        assert row.state == "dead"


@pytest.mark.parametrize(("priority", "urgent"), [(0x0000, False), (0x0001, True), (0x0002, False)])
def test_only_priority_high_makes_a_study_urgent(tmp_path: Path, priority: int, urgent: bool) -> None:
    with receiver(tmp_path) as node:
        assert send(node, image(), priority=priority) == [0]
        node.standings()
        (row,) = node.rows(studies)
        assert bool(row.urgent) is urgent


def test_one_urgent_image_is_enough_even_when_it_was_known_before(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        first = image()
        assert send(node, first) == [0]
        assert send(node, first, priority=1) == [0]
        node.standings(after=2)
        (row,) = node.rows(studies)
        assert row.urgent


def test_a_document_that_comes_back_does_not_reopen_its_study(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        first = image()
        assert send(node, first) == [0]
        node.standings()
        (before,) = node.rows(studies)
        document = copy.deepcopy(first)
        for keyword in ("Rows", "Columns", "PixelData"):
            delattr(document, keyword)
        document.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
        document.SOPInstanceUID = generate_uid()
        document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        assert send(node, document) == [0]
        assert node.standings(after=2) == {"current": 1, "other": 1}
        (after,) = node.rows(studies)
        assert (after.last_arrival_at, after.revision) == (before.last_arrival_at, before.revision)
