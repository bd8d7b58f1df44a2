"""Audit messages as XML: the schema of PS3.15 section A.5.1 and the events of A.5.3, as far as the node has them. Pure.

Codes are of context groups 400 to 405 (PS3.16). Of patients a message holds one identifier, and never a name.
"""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SUCCESS, MINOR_FAILURE, SERIOUS_FAILURE = "0", "4", "8"  # EventOutcomeIndicator
PERSON, SYSTEM_OBJECT = "1", "2"  # ParticipantObjectTypeCode
PATIENT, REPORT, SECURITY_RESOURCE = "1", "3", "13"  # ParticipantObjectTypeCodeRole
IP_ADDRESS, MACHINE_NAME = "2", "1"  # NetworkAccessPointTypeCode
APPLICATION_SERVER = "4"  # AuditSourceTypeCode


@dataclass(frozen=True)
class Code:
    """A coded value."""

    value: str
    meaning: str
    system: str = "DCM"


APPLICATION_ACTIVITY = Code("110100", "Application Activity")
AUDIT_LOG_USED = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
ORDER_RECORD = Code("110109", "Order Record")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
SOFTWARE_CONFIGURATION = Code("110131", "Software Configuration")
SECURITY_CONFIGURATION = Code("110129", "Security Configuration")
APPLICATION = Code("110150", "Application")
APPLICATION_LAUNCHER = Code("110151", "Application Launcher")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")
STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
SOP_CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")


@dataclass(frozen=True)
class Participant:
    """Who takes part: a process, an application entity or a person. address: an IP address or a host's name."""

    user: str
    requestor: bool
    role: Code | None = None
    ae_title: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Subject:
    """What is concerned. details: type → text. sop_classes: UID (empty: not said) → number of instances."""

    identifier: str
    kind: Code
    type: str
    role: str
    name: str
    details: dict[str, str] = field(default_factory=dict)
    sop_classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Happening:
    """An event. action: C, R, U, D or E. at: seconds since the epoch."""

    what: Code
    action: str
    at: float
    participants: Sequence[Participant]
    subjects: Sequence[Subject] = ()
    type: Code | None = None
    outcome: str = SUCCESS
    description: str = ""


def study(uid: str, sop_classes: dict[str, int]) -> Subject:
    """A study, and how many of which objects of it."""
    return Subject(uid, STUDY_INSTANCE_UID, SYSTEM_OBJECT, REPORT, "study", sop_classes=sop_classes)


def patient(identifier: str) -> Subject:
    """A patient by the identifier that the site lets be recorded."""
    return Subject(identifier, PATIENT_NUMBER, PERSON, PATIENT, "not recorded")


def as_xml(happening: Happening, source: str, site: str) -> str:
    """The message on one line. source: AuditSourceID, the node's AE title; site: AuditEnterpriseSiteID, or empty."""
    root = ET.Element("AuditMessage")
    moment = datetime.fromtimestamp(happening.at, UTC).isoformat(timespec="milliseconds")
    event = _below(
        root,
        "EventIdentification",
        EventActionCode=happening.action,
        EventDateTime=moment,
        EventOutcomeIndicator=happening.outcome,
    )
    _coded(event, "EventID", happening.what)
    if happening.type is not None:
        _coded(event, "EventTypeCode", happening.type)
    if happening.description:
        _below(event, "EventOutcomeDescription").text = _clean(happening.description)
    for participant in happening.participants:
        _add_participant(root, participant)
    origin = _below(root, "AuditSourceIdentification", AuditEnterpriseSiteID=site or None, AuditSourceID=source)
    _below(origin, "AuditSourceTypeCode", **{"csd-code": APPLICATION_SERVER})
    for subject in happening.subjects:
        _add_subject(root, subject)
    return ET.tostring(root, encoding="unicode").replace("\n", " ").replace("\r", " ")


def _add_participant(root: ET.Element, participant: Participant) -> None:
    address = participant.address
    kind = None
    if address is not None:
        kind = IP_ADDRESS if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.%]*:[0-9a-fA-F:.%]*", address) else MACHINE_NAME
    element = _below(
        root,
        "ActiveParticipant",
        UserID=participant.user,
        AlternativeUserID=f"AETITLES={participant.ae_title}" if participant.ae_title is not None else None,
        UserIsRequestor="true" if participant.requestor else "false",
        NetworkAccessPointID=address,
        NetworkAccessPointTypeCode=kind,
    )
    if participant.role is not None:
        _coded(element, "RoleIDCode", participant.role)


def _add_subject(root: ET.Element, subject: Subject) -> None:
    element = _below(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=subject.identifier,
        ParticipantObjectTypeCode=subject.type,
        ParticipantObjectTypeCodeRole=subject.role,
    )
    _coded(element, "ParticipantObjectIDTypeCode", subject.kind)
    _below(element, "ParticipantObjectName").text = subject.name
    for kind, text in subject.details.items():
        encoded = base64.b64encode(text.encode()).decode()
        _below(element, "ParticipantObjectDetail", type=kind, value=encoded)
    if subject.sop_classes:
        described = _below(element, "ParticipantObjectDescription")
        for uid, count in subject.sop_classes.items():
            _below(described, "SOPClass", UID=uid or None, NumberOfInstances=str(count))


def _coded(parent: ET.Element, name: str, code: Code) -> None:
    _below(parent, name, **{"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning})


def _below(parent: ET.Element, name: str, **attributes: str | None) -> ET.Element:
    said = {key: _clean(value) for key, value in attributes.items() if value is not None}
    return ET.SubElement(parent, name, said)


def _clean(text: str) -> str:
    """What a peer calls itself may hold anything; XML may not."""
    return NOT_XML.sub("\ufffd", text)
