"""A registry that is lost and rebuilt from the spool's files judges corrections and rejections as it did before."""

from __future__ import annotations

import hashlib
import threading
from io import BytesIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.base.errors import ConfigurationError
from dicom_node.base.types import Rejection
from dicom_node.intake.content import compare
from dicom_node.intake.identity import read_identity
from dicom_node.intake.key_objects import read_key_objects
from dicom_node.intake.reconcile import reconcile
from dicom_node.intake.spool import Spool, arrival_of
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import instances
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.rejections import corrected, patient, rejection_note
from support.spool import put

BOUND = 1 << 26
WRONG = StudyFacts()
RIGHT = StudyFacts(study_uid=WRONG.study_uid, patient_id="P2", patient_name="Other^Person", accession_number="ACC2")


class Node:
    """A spool, and a registry that can be lost."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lost = folder, 0
        self.spool = Spool(folder / "spool")
        self.spool.prepare()
        self.begin()

    def begin(self) -> None:
        self._lost += 1
        url = f"sqlite:///{self._folder / f'{self._lost}.sqlite'}"
        migrate(url)
        self.registry = Registry(url)

    def receive(self, objects: list[Dataset], at: float) -> None:
        arrivals = []
        for number, one in enumerate(objects):
            buffer = DicomBytesIO()
            buffer.is_little_endian, buffer.is_implicit_VR = True, False
            write_dataset(buffer, one)
            data = buffer.getvalue()
            arrival = arrival_of(
                read_identity(BytesIO(data), ExplicitVRLittleEndian, BOUND),
                transfer_syntax_uid=ExplicitVRLittleEndian,
                digest=hashlib.sha256(data).hexdigest(),
                size=len(data),
                calling_ae="SENDER",
                urgent=False,
                received_at=at + number,
                association_id=None,
            )
            put(self.spool, arrival, data)
            arrivals.append(arrival)
        self.registry.record_arrivals(arrivals)
        self.judge()

    def judge(self) -> None:
        while disputed := self.registry.disputed():
            for path, first in disputed:
                self.registry.settle(path, compare(self.spool.folder / first, self.spool.folder / path), first)
        for path in self.registry.unexamined_notes():
            self.registry.apply_note(path, read_key_objects(self.spool.folder / path), 900.0)

    def rebuild(self) -> None:
        self.begin()
        reconcile(self.spool, self.registry, BOUND, threading.Event())
        self.judge()

    def standings(self) -> dict[str, str]:
        with self.registry._read() as connection:
            return {row.path: row.standing for row in connection.execute(sa.select(instances))}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


IMAGES = mr_slices(head_phantom(5, 16, 16), WRONG)


def test_the_same_images_count_after_a_rebuild(node: Node) -> None:
    right = corrected(IMAGES, **patient(RIGHT))
    node.receive(IMAGES, 100)
    node.receive(right[:3], 200)
    node.receive(corrected(right[:1], SeriesDescription="relabelled"), 300)
    node.receive([rejection_note(right[1:2], Rejection.QUALITY)], 400)
    before = node.standings()
    assert sorted(before.values()) == sorted(
        ["superseded"] * 4 + ["current"] * 2 + ["rejected"] + ["uncorrected"] * 2 + ["other"]
    )
    key = node.registry.patient_keys()
    node.rebuild()
    assert node.standings() == before
    assert node.registry.patient_keys() == key
    found = node.registry.study(WRONG.study_uid)
    assert found is not None
    assert found.state == "receiving"


def test_another_issuer_is_another_identity(node: Node) -> None:
    node.receive(corrected(IMAGES, IssuerOfPatientID="ONE"), 100)
    node.receive(corrected(IMAGES[:2], IssuerOfPatientID="TWO"), 200)
    assert sorted(node.standings().values()) == ["current"] * 2 + ["superseded"] * 2 + ["uncorrected"] * 3


def test_what_expired_does_not_come_back_and_no_empty_spool_is_taken_for_lost(node: Node) -> None:
    node.receive(IMAGES, 100)
    node.receive([rejection_note(IMAGES, Rejection.RETENTION)], 200)
    [expired] = node.registry.expired_files()
    left = expired.paths[0]
    for path in expired.paths[1:]:
        (node.spool.folder / path).unlink()
    node.registry.files_deleted(expired.note, expired.study_id, 5, 300)
    reconcile(node.spool, node.registry, BOUND, threading.Event())
    assert set(node.standings().values()) == {"expired"}
    assert [left in one.paths for one in node.registry.expired_files()] == [True], "a file that is left goes after all"
    (node.spool.folder / left).unlink()
    reconcile(node.spool, node.registry, BOUND, threading.Event())


def test_a_spool_that_lost_what_it_should_have_still_stops_the_start(node: Node) -> None:
    node.receive(IMAGES, 100)
    for path in list(node.spool.paths()):
        (node.spool.folder / path).unlink()
    with pytest.raises(ConfigurationError):
        reconcile(node.spool, node.registry, BOUND, threading.Event())
