"""Audit messages: each kind is as the schema of PS3.15 has it, and none says more of a patient than the site allows."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dicom_node.audit import recorder as recorder_module
from dicom_node.audit.chain import read_record
from dicom_node.audit.collector import Collector
from dicom_node.audit.message import as_xml
from dicom_node.audit.recorder import QUIET_SECONDS, Recorder
from dicom_node.audit.trail import Trail
from dicom_node.base.audited import Due, Happened
from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.events import Event, log
from dicom_node.worklist.hl7.listener import NO_TLS, NOT_A_PEER
from support.audit_messages import event, faults
from support.dicom_factory import StudyFacts, head_phantom, mr_slices, write
from support.studies import new_registry

UID = "1.2.3.4"
KEY = "a" * 32 + ":" + "b" * 32 + ":" + "c" * 32
DESTINATIONS = [
    {"name": "pacs", "ae_title": "PACS", "host": "pacs.example.org", "port": 104},
    {"name": "cloud", "kind": "stow", "url": "https://cloud.example.org"},
    {"name": "ris", "kind": "hl7", "host": "192.0.2.9", "port": 2575},
]


def configuration(folder: Path, **audit: Any) -> Configuration:
    return configuration_from({"node": {"storage": "node"}, "audit": audit, "destinations": DESTINATIONS}, folder)


def recorded(folder: Path) -> list[str]:
    lines = [line for file in sorted((folder / "node" / "audit").glob("*.log")) for line in file.open("rb")]
    records = [read_record(line.rstrip(b"\n")) for line in lines]
    return [record.message.decode() for record in records if record is not None]


def description(message: str) -> str:
    [detail] = ET.fromstring(message).findall(".//ParticipantObjectDetail")
    return base64.b64decode(detail.attrib["value"]).decode()


DUE = {
    Happened.RECEIVED: ("110104", None),
    Happened.RESULT: ("110103", None),
    Happened.SENDING: ("110102", None),
    Happened.SENT: ("110104", None),
    Happened.TOLD: ("110109", None),
    Happened.MODEL: ("110113", "110131"),
}


@pytest.mark.parametrize("what", Happened)
def test_what_the_registry_knows_becomes_a_valid_message(tmp_path: Path, what: Happened) -> None:
    registry = new_registry(tmp_path)
    collector = Collector(configuration(tmp_path), registry)
    for peer in ("pacs", "cloud", "ris", "gone", "SC\x00\x1b<\n>&"):
        due = Due(what, 1.7e9, UID, KEY, "", peer, "192.0.2.7", {"1.2.840.10008.5.1.4.1.1.4": 3, "": 1}, "activate x")
        message = as_xml(collector.happening(due), "PRIMA", "")
        assert faults(message) == []
        assert event(message) == DUE[what]
        assert "\n" not in message
    registry.close()


def test_a_fault_in_a_message_is_found() -> None:
    good = "<AuditMessage/>"
    assert faults(good) == ["AuditMessage: holds "]
    assert "unknown element Patient" in faults("<AuditMessage><Patient/></AuditMessage>")


def test_what_is_logged_becomes_a_valid_message(tmp_path: Path) -> None:
    recorder = Recorder(configuration(tmp_path, site="House 1"))
    log(Event.NODE_STARTED)
    log(Event.CONFIGURATION_CHANGED, "warning", reason="intake, audit")
    log(Event.QUERY_ANSWERED, calling_ae="VIEWER", address="192.0.2.7", service="1.2.840.10008.5.1.4.31")
    log(Event.ASSOCIATION_REFUSED, "warning", calling_ae="X<\x01", called_ae="PRIMA", address="192.0.2.8", reason="who")
    log(Event.TLS_REFUSED, "warning", address="::1", reason="no certificate")
    log(Event.HTTP_REFUSED, "warning", address="192.0.2.8")
    log(Event.MESSAGE_TROUBLE, "warning", address="192.0.2.8", reason=NOT_A_PEER)
    log(Event.MESSAGE_TROUBLE, "warning", address="192.0.2.9", reason=f"{NO_TLS}: no certificate")
    log(Event.MESSAGE_TROUBLE, "warning", address="192.0.2.8", reason="nothing came in time")
    log(Event.STUDY_COMPLETE, study="abc")
    log(Event.NODE_STOPPING)
    recorder.close()
    messages = recorded(tmp_path)
    assert [fault for message in messages for fault in faults(message)] == []
    assert [event(message) for message in messages] == [
        ("110100", "110120"),
        ("110113", "110129"),
        ("110112", None),
        *[("110113", "110126")] * 5,
        ("110100", "110121"),
    ]
    assert description(messages[1]) == "intake, audit"
    assert 'AuditEnterpriseSiteID="House 1"' in messages[0]
    log(Event.NODE_STARTED)  # nobody listens any more
    assert len(recorded(tmp_path)) == len(messages)


def test_who_is_kept_out_again_and_again_cannot_fill_the_disk(tmp_path: Path) -> None:
    now = [1.7e9]
    recorder = Recorder(configuration(tmp_path), lambda: now[0])
    for _ in range(500):
        log(Event.TLS_REFUSED, "warning", address="192.0.2.8", reason="no certificate")
    log(Event.TLS_REFUSED, "warning", address="192.0.2.9", reason="no certificate")
    now[0] += QUIET_SECONDS
    log(Event.TLS_REFUSED, "warning", address="192.0.2.8", reason="no certificate")
    recorder.close()
    messages = recorded(tmp_path)
    assert len(messages) == 3
    assert "499 more" in description(messages[2])


@pytest.mark.parametrize("patients", ["pseudonym", "id"])
def test_a_patient_is_recorded_as_the_site_chose(tmp_path: Path, patients: str) -> None:
    settings = configuration(tmp_path, patients=patients)
    image = mr_slices(head_phantom(1), StudyFacts())[0]
    write(image, settings.node.spool / "study" / "image.dcm")
    registry = new_registry(tmp_path)
    collector = Collector(settings, registry)
    due = Due(Happened.RECEIVED, 1.7e9, UID, KEY, "study/image.dcm", "SCANNER", "192.0.2.7", {"1.2": 1})
    [_, patient] = collector.happening(due).subjects
    again = Collector(settings, registry)
    assert again.happening(due).subjects[1] == patient
    if patients == "id":
        assert patient.identifier == image.PatientID
    else:
        assert len(patient.identifier) == 32
        assert patient.identifier not in KEY
    message = as_xml(collector.happening(due), "PRIMA", "")
    assert (str(image.PatientID) in message) == (patients == "id")
    assert str(image.PatientName).split("^", maxsplit=1)[0] not in message
    registry.close()


def test_a_disk_that_takes_nothing_for_a_while_costs_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = Trail.append, iter([OSError("disk full"), OSError("disk full")])

    def append(self: Trail, messages: Sequence[str]) -> None:
        for failure in failures:
            raise failure
        real(self, messages)

    monkeypatch.setattr(Trail, "append", append)
    monkeypatch.setattr(recorder_module, "RETRY_SECONDS", 0.01)
    recorder = Recorder(configuration(tmp_path))
    log(Event.NODE_STARTED)
    log(Event.NODE_STOPPING)
    recorder.close()
    assert [event(message)[1] for message in recorded(tmp_path)] == ["110120", "110121"]
