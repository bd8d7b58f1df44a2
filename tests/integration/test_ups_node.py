"""Modality Worklist and UPS of a whole node: one AE with storage, over its registry, its events, through kill -9.

Does not cover: each service and status (`test_mwl_provider.py`, `test_ups_provider.py`), what the node's own work items
say (`test_reading_steps.py`).
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event as AssociationEvent
from pynetdicom.sop_class import UnifiedProcedureStepEvent, Verification

from dicom_node.base.events import Event
from dicom_node.base.workitems import EventType
from dicom_node.worklist.dicom.modality_worklist import MODALITY_WORKLIST
from dicom_node.worklist.dicom.reading_steps import step_uid
from dicom_node.worklist.dicom.ups_events import GLOBAL_SUBSCRIPTION
from dicom_node.worklist.dicom.ups_provider import UPS_PULL, UPS_WATCH
from dicom_node.worklist.dicom.workitem import UPS_PUSH
from support.dicom_factory import StudyFacts
from support.node import HANG_SECONDS, SENDER, Node, send, small_study
from support.orders import order, placed, tell
from support.peers import AE_TITLE, CLIENT, associate_request, free_port, listening, read_pdu, run_dcmtk
from support.worklist_peers import association_to, found
from support.worklist_steps import scheduled, state_change, subscription

pytestmark = pytest.mark.slow

READER = "READER"
PEERS = (READER, "RIS", "MODALITY", SENDER, "FINDSCU", "SCU")
A_ASSOCIATE_RJ = 0x03


@dataclass
class Reader:
    """A worklist that is sent UPS events: it took (event type, SOP Instance UID, information)."""

    port: int
    took: queue.Queue[tuple[int, str, Dataset]] = field(default_factory=queue.Queue)

    def next(self) -> tuple[int, str, Dataset]:
        return self.took.get(timeout=HANG_SECONDS)


@contextmanager
def reader() -> Iterator[Reader]:
    listener = Reader(free_port())
    entity = AE(READER)
    entity.add_supported_context(UnifiedProcedureStepEvent, scu_role=True, scp_role=True)

    def take(event: AssociationEvent) -> tuple[int, None]:
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
        listener.took.put((int(event.event_type), uid, event.event_information))
        return 0x0000, None

    server = entity.start_server(
        ("127.0.0.1", listener.port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)]
    )
    try:
        yield listener
    finally:
        server.shutdown()


@dataclass(frozen=True)
class Site:
    """A node, and a worklist that may be sent its events."""

    node: Node
    reader: Reader


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("ups")
    with reader() as listener:
        peer = {"ae_title": READER, "host": "127.0.0.1", "port": listener.port}
        worklist = {"allow_nonclinical": True, "subscribers": [peer]}
        intake = {"peers": [{"ae_title": title} for title in PEERS]}
        with Node(folder, random_bundle, worklist=worklist, intake=intake) as node:
            yield Site(node, listener)


def watch(site: Site, kind: int, information: Dataset, uid: str = GLOBAL_SUBSCRIPTION) -> int:
    """An N-ACTION on UPS Watch; its status."""
    with association_to(site.node.port, UPS_WATCH, calling=READER) as association:
        status, _ = association.send_n_action(information, kind, UPS_PUSH, uid, meta_uid=UPS_WATCH)
    return int(status.Status)


def attributes_of(site: Site, uid: str) -> Dataset | None:
    with association_to(site.node.port, UPS_PULL) as association:
        status, attributes = association.send_n_get([], UPS_PUSH, uid, meta_uid=UPS_PULL)
    return attributes if status.Status == 0 else None


def noted(node: Node, event: Event) -> bool:
    return any(line["number"] == event.number for line in node.log_lines())


def test_dcmtk_finds_an_order(site: Site, tmp_path: Path) -> None:
    tell(site.node.registry, placed(order(accession_number="A77", scheduled_at="20260105083000", modality="MR")))
    keys = ["AccessionNumber=A77", "PatientName", "RequestedProcedurePriority", "StudyInstanceUID"]
    keys += ["ScheduledProcedureStepSequence[0].Modality=MR"]
    options = [part for key in keys for part in ("-k", key)]
    answer = run_dcmtk("findscu", "-W", "-X", "-od", tmp_path, "-aec", AE_TITLE, *options, "127.0.0.1", site.node.port)
    assert answer.returncode == 0, answer.stdout
    [file] = tmp_path.glob("*.dcm")
    content = file.read_bytes()
    assert b"Doe^Jane" in content
    assert b"ROUTINE" in content


def test_a_reading_as_a_worklist_sees_it(site: Site) -> None:
    """From the node's start to the event, the claim and the reading that began."""
    kind, told, information = site.reader.next()
    assert (kind, told, information.SCPStatus) == (EventType.SCP_STATUS_CHANGE, GLOBAL_SUBSCRIPTION, "RESTARTED")
    assert watch(site, 3, subscription(READER)) == 0x0000
    study = StudyFacts()
    assert set(send(site.node.port, small_study(study))) == {0}
    uid = step_uid(study.study_uid)
    kind, told, information = site.reader.next()
    assert (kind, told, information.ProcedureStepState) == (EventType.STATE_REPORT, uid, "SCHEDULED")
    step = attributes_of(site, uid)
    assert step is not None
    assert (step.PatientName, step.PatientID) == (study.patient_name, study.patient_id)
    assert "not for clinical use" in step.ProcedureStepLabel
    with association_to(site.node.port, UPS_PULL, calling=READER) as association:
        query = Dataset()
        query.SOPInstanceUID = query.ScheduledProcedureStepPriority = ""
        query.ProcedureStepState = "SCHEDULED"
        assert uid in [answer.SOPInstanceUID for answer in found(association, query, UPS_PULL)]
        status, _ = association.send_n_action(state_change("IN PROGRESS"), 1, UPS_PUSH, uid, meta_uid=UPS_PULL)
        assert status.Status == 0x0000
    assert site.reader.next()[2].ProcedureStepState == "IN PROGRESS"
    site.node.wait(lambda: noted(site.node, Event.READING_BEGUN), "the reading is noted")
    assert site.node.registry.readings_begun() == []
    assert watch(site, 4, subscription(READER)) == 0x0000


def test_storage_and_worklist_share_one_association(site: Site) -> None:
    images = small_study(StudyFacts())[:2]
    entity = AE("MODALITY")
    entity.add_requested_context(MODALITY_WORKLIST, ExplicitVRLittleEndian)
    entity.add_requested_context(Verification)
    entity.add_requested_context(images[0].SOPClassUID, images[0].file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", site.node.port, ae_title=AE_TITLE, evt_handlers=CLIENT)
    assert association.is_established
    query = Dataset()
    query.AccessionNumber = "NONE"
    query.PatientName = ""
    assert association.send_c_echo().Status == 0
    assert association.send_c_store(images[0]).Status == 0
    assert found(association, query, MODALITY_WORKLIST) == []
    assert association.send_c_store(images[1]).Status == 0
    association.release()


def created(association: Association, root: str) -> list[str]:
    """Create work items until the peer is gone; those that it acknowledged."""
    acknowledged: list[str] = []
    while True:
        uid = f"{root}.{len(acknowledged)}"
        try:
            status, _ = association.send_n_create(scheduled(), UPS_PUSH, uid)
        except RuntimeError:
            return acknowledged
        if "Status" not in status:
            return acknowledged
        assert status.Status == 0xB300
        acknowledged.append(uid)


def test_a_step_that_somebody_creates_is_kept_through_a_kill(site: Site) -> None:
    """kill -9 of the receiver while N-CREATEs are answered: whatever was acknowledged is there afterwards."""
    acknowledged: list[str] = []
    for round_ in range(3):
        pid = site.node.pid("receiver")
        with association_to(site.node.port, UPS_PUSH, calling="RIS") as association:
            killer = threading.Timer(0.1 + 0.03 * round_, os.kill, (pid, signal.SIGKILL))
            killer.start()
            acknowledged += created(association, f"1.2.840.99.{round_}")
            killer.join()
        site.node.wait(lambda old=pid: site.node.running().get("receiver", old) != old, "another receiver runs")
        site.node.wait(lambda: listening(site.node.port), "it listens")
    assert acknowledged
    assert [uid for uid in acknowledged if attributes_of(site, uid) is None] == []


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", AE_TITLE), (READER, "SOMEBODY")])
def test_a_stranger_gets_no_association(site: Site, calling: str, called: str) -> None:
    with socket.create_connection(("127.0.0.1", site.node.port)) as connection:
        contexts = [(MODALITY_WORKLIST, ExplicitVRLittleEndian)]
        connection.sendall(associate_request(calling, called, contexts=contexts))
        answer = read_pdu(connection)
    assert answer is not None
    assert answer[0] == A_ASSOCIATE_RJ


def test_a_worklist_is_told_that_the_node_goes_down_and_is_back(site: Site) -> None:
    assert site.node.stop() == 0
    while site.reader.next()[2].get("SCPStatus") != "GOING DOWN":
        pass  # what earlier tests brought about
    site.node.start()
    assert site.reader.next()[2].SCPStatus == "RESTARTED"
