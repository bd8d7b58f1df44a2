"""The audit message schema of PS3.15 section A.5.1.1 as tables, and a check of a message against it.

Checks which elements and attributes there are, in which order, how often, and values that are enumerated. Does not
check dates beyond their form, nor whether a code means what it says.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

CODED = {"csd-code": r".+", "codeSystemName": r".+", "displayName?": r".*", "originalText": r".+"}
NUMBERS = {count: "|".join(map(str, range(1, count + 1))) for count in (2, 4, 5, 15, 26)}
#: Element → its attributes with a pattern each; "?" marks what may be absent.
ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "AuditMessage": {},
    "EventIdentification": {
        "EventActionCode?": "[CRUDE]",
        "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
        "EventOutcomeIndicator": "0|4|8|12",
    },
    "EventID": CODED,
    "EventTypeCode": CODED,
    "EventOutcomeDescription": {},
    "ActiveParticipant": {
        "UserID": r".*",
        "AlternativeUserID?": r".*",
        "UserName?": r".*",
        "UserIsRequestor": "true|false|0|1",
        "NetworkAccessPointID?": r".+",
        "NetworkAccessPointTypeCode?": NUMBERS[5],
    },
    "RoleIDCode": CODED,
    "AuditSourceIdentification": {"AuditEnterpriseSiteID?": r".+", "AuditSourceID": r".+"},
    "AuditSourceTypeCode": {"csd-code": "[1-9]"},
    "ParticipantObjectIdentification": {
        "ParticipantObjectID": r".+",
        "ParticipantObjectTypeCode?": NUMBERS[4],
        "ParticipantObjectTypeCodeRole?": NUMBERS[26],
        "ParticipantObjectDataLifeCycle?": NUMBERS[15],
        "ParticipantObjectSensitivity?": r".*",
    },
    "ParticipantObjectIDTypeCode": CODED,
    "ParticipantObjectName": {},
    "ParticipantObjectQuery": {},
    "ParticipantObjectDetail": {"type": r".+", "value": r"[A-Za-z0-9+/]*={0,2}"},
    "ParticipantObjectDescription": {},
    "SOPClass": {"UID?": r"[0-9.]+", "NumberOfInstances": r"\d+"},
}
#: Element → the order of its children, as a pattern over their names.
CHILDREN: Mapping[str, str] = {
    "AuditMessage": "EventIdentification (ActiveParticipant )+AuditSourceIdentification "
    "(ParticipantObjectIdentification )*",
    "EventIdentification": "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    "ActiveParticipant": "(RoleIDCode )*",
    "AuditSourceIdentification": "(AuditSourceTypeCode )*",
    "ParticipantObjectIdentification": "ParticipantObjectIDTypeCode (ParticipantObjectName |ParticipantObjectQuery )"
    "(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    "ParticipantObjectDescription": "(SOPClass )*",
}


def faults(message: str) -> list[str]:
    """What is not as the schema has it; empty for a valid message."""
    root = ET.fromstring(message)
    found = [] if root.tag == "AuditMessage" else [f"root is {root.tag}"]
    for element in root.iter():
        found += _faults_of(element)
    return found


def _faults_of(element: ET.Element) -> list[str]:
    if element.tag not in ATTRIBUTES:
        return [f"unknown element {element.tag}"]
    known = ATTRIBUTES[element.tag]
    found = [f"{element.tag}: unknown attribute {name}" for name in element.attrib if not {name, f"{name}?"} & {*known}]
    for name, pattern in known.items():
        value = element.get(name.rstrip("?"))
        if value is None and not name.endswith("?"):
            found.append(f"{element.tag}: {name} is missing")
        if value is not None and not re.fullmatch(pattern, value, re.DOTALL):
            found.append(f"{element.tag}: {name} is {value!r}")
    children = "".join(f"{child.tag} " for child in element)
    if not re.fullmatch(CHILDREN.get(element.tag, ""), children):
        found.append(f"{element.tag}: holds {children}")
    return found


def event(message: str) -> tuple[str, str | None]:
    """Codes of the event and of its type."""
    root = ET.fromstring(message)
    kind = root.find("EventIdentification/EventTypeCode")
    [what] = root.findall("EventIdentification/EventID")
    return what.attrib["csd-code"], kind.attrib["csd-code"] if kind is not None else None
