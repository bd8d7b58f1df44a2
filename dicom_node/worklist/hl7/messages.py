"""What a destination is told: a priority change as ORM^O01, OMG^O19, OMI^O23 or ORU^R01 (HL7 v2, chapters 4 and 7).

The order's numbers go back as they came. A message is a function of the change and the destination alone: a repeated
attempt is the same bytes, with the same control ID.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from dicom_node.base.errors import PermanentError
from dicom_node.base.hl7_settings import FIELD_KEY, Hl7Destination
from dicom_node.base.orders import Order, PriorityChange
from dicom_node.base.types import Finding
from dicom_node.worklist.hl7 import person, priority, timestamp
from dicom_node.worklist.hl7.encoding import STANDARD, encode, escape, escape_structured, own_words
from dicom_node.worklist.hl7.segments import Segment, join

_TRIGGER = {"ORM": "O01", "OMG": "O19", "OMI": "O23", "ORU": "R01"}
_SEGMENTS = {
    "ORM": ("PID", "PV1", "ORC", "OBR", "ZDS"),
    "OMG": ("PID", "PV1", "ORC", "TQ1", "OBR"),
    "OMI": ("PID", "PV1", "ORC", "TQ1", "OBR", "IPC"),
    "ORU": ("PID", "PV1", "ORC", "OBR"),
}
_ORDER = ("MSH", "PID", "PV1", "ORC", "TQ1", "OBR", "NTE", "OBX", "IPC", "ZDS")
_REQUIRED = {
    "ORM": ("PID-3", "OBR-4", "ZDS-1"),
    "OMG": ("PID-3", "OBR-4"),
    "OMI": ("PID-3", "OBR-4", "IPC-1", "IPC-2", "IPC-3", "IPC-4"),
    "ORU": ("PID-3", "OBR-4"),
}
_CONTROL_ID = re.compile(r"[!-~]{1,20}")
_NAME = re.compile(r"\{(\w+)\}")
# Concepts of the node's Structured Report (PS3.16; 99PRIMA is its private scheme).
_FINDING = "121071^Finding^DCM"
_IMPRESSION = "121073^Impression^DCM"
_PROBABILITY = "122157^Probability^DCM"
_UNCALIBRATED = "UNCAL_SCORE^Uncalibrated score (positive above 0, not a probability)^99PRIMA"
_PRIORITY = "260870009^Priority^SCT"
_RESTRICTION = "RESTRICTION^Restriction of use^99PRIMA"
NO_FINDING = "No finding above its threshold."

Fields = dict[int, str]


def build(change: PriorityChange, destination: Hl7Destination) -> bytes:
    """The message for one change, without its MLLP block.

    Raises PermanentError naming what is missing: no order, an order of another study, or a field that the message
    must have and neither the order nor the site's templates give.
    """
    order = _order_of(change)
    character_set = destination.character_set
    change = replace(
        change, rule=own_words(change.rule, character_set), marking=own_words(change.marking, character_set)
    )
    values = _values(change, order, destination)
    segments = {name: _WRITERS[name](change, order, destination) for name in _SEGMENTS[destination.message]}
    segments = {"MSH": _msh(change, destination), **segments}
    _apply_templates(segments, destination.fields, values)
    _check(segments, destination.message)
    written = [Segment(name, _listed(fields)) for name, fields in segments.items()]
    if destination.message == "ORU":
        written += _observations(change, destination)
    elif change.marking:
        written.append(Segment("NTE", ("1", "L", escape(change.marking))))
    written.sort(key=_place)
    return encode(join(tuple(written)), character_set)


def _order_of(change: PriorityChange) -> Order:
    if not _CONTROL_ID.fullmatch(change.key) or set(change.key) & set("|^~\\&"):
        raise PermanentError("the change has no key that can be a message control ID (MSH-10)")
    if change.order is None:
        raise PermanentError("no order is known for this study: an HL7 message needs one")
    if change.order.study_instance_uid not in ("", change.study_instance_uid):
        raise PermanentError("the order belongs to another study")
    if not change.order.placer_order_number and not change.order.filler_order_number:
        raise PermanentError("the order has no placer and no filler order number (ORC-2, ORC-3)")
    return change.order


def _values(change: PriorityChange, order: Order, destination: Hl7Destination) -> Mapping[str, str]:
    """What the names in a template stand for, encoded."""
    plain = {
        "study_instance_uid": change.study_instance_uid,
        "accession_number": order.accession_number,
        "requested_procedure_id": order.requested_procedure_id,
        "scheduled_step_id": order.scheduled_step_id,
        "patient_id": order.patient.patient_id,
        "issuer": order.patient.issuer,
        "priority": priority.code_of(change.level, destination.priorities),
        "level": change.level.value,
        "rule": change.rule,
        "code_value": order.code_value,
        "code_meaning": order.code_meaning,
        "code_scheme": order.code_scheme,
        "modality": order.modality,
        "station_ae": order.station_ae,
    }
    encoded = {
        "placer_order_number": escape_structured(order.placer_order_number),
        "filler_order_number": escape_structured(order.filler_order_number),
        "patient_name": person.from_dicom(order.patient.name),
    }
    return {name: escape(text) for name, text in plain.items()} | encoded


def _msh(change: PriorityChange, destination: Hl7Destination) -> Fields:
    version = destination.effective_version
    trigger = _TRIGGER[destination.message]
    structure = f"^{destination.message}_{trigger}" if version >= "2.4" else ""
    return {
        1: STANDARD.field,
        2: STANDARD.encoding_characters,
        3: destination.sending_application,
        4: destination.sending_facility,
        5: destination.receiving_application,
        6: destination.receiving_facility,
        7: timestamp.write(change.at),
        9: f"{destination.message}^{trigger}{structure}",
        10: change.key,
        11: destination.processing_id,
        12: version,
        15: destination.accept_acknowledgment or "",
        16: destination.application_acknowledgment or "",
        18: "" if destination.character_set == "ASCII" else destination.character_set,
    }


def _pid(_change: PriorityChange, order: Order, _destination: Hl7Destination) -> Fields:
    patient = order.patient
    identifier = f"{escape(patient.patient_id)}^^^{escape(patient.issuer)}".rstrip("^") if patient.patient_id else ""
    return {
        1: "1",
        3: identifier,
        5: person.from_dicom(patient.name),
        7: escape(patient.birth_date),
        8: escape(patient.sex),
    }


def _pv1(_change: PriorityChange, order: Order, _destination: Hl7Destination) -> Fields:
    return {1: "1", 2: escape(order.patient_class) or "U"}  # U: unknown (table 0004)


def _orc(change: PriorityChange, order: Order, destination: Hl7Destination) -> Fields:
    fields = {
        1: "RE" if destination.message == "ORU" else "XO",
        2: escape_structured(order.placer_order_number),
        3: escape_structured(order.filler_order_number),
    }
    return fields if destination.message != "ORM" else fields | {7: _timing(change, destination)}


def _obr(change: PriorityChange, order: Order, destination: Hl7Destination) -> Fields:
    code = (order.code_value, order.code_meaning, order.code_scheme)
    fields = {
        1: "1",
        2: escape_structured(order.placer_order_number),
        3: escape_structured(order.filler_order_number),
        4: "^".join(escape(part) for part in code).rstrip("^"),
    }
    if destination.message == "ORM":
        return fields | {27: _timing(change, destination)}
    if destination.message == "ORU":
        return fields | {22: timestamp.write(change.at), 25: _status(change, destination)}
    return fields


def _tq1(change: PriorityChange, _order: Order, destination: Hl7Destination) -> Fields:
    return {1: "1", 9: priority.code_of(change.level, destination.priorities)}


def _ipc(change: PriorityChange, order: Order, _destination: Hl7Destination) -> Fields:
    identifiers = (
        order.accession_number,
        order.requested_procedure_id,
        change.study_instance_uid,
        order.scheduled_step_id,
    )
    return {number: escape(text) for number, text in enumerate(identifiers, 1)}


def _zds(change: PriorityChange, _order: Order, destination: Hl7Destination) -> Fields:
    application = destination.sending_application.partition("^")[0]
    return {1: f"{escape(change.study_instance_uid)}^{application}^Application^DICOM"}


_WRITERS = {"PID": _pid, "PV1": _pv1, "ORC": _orc, "TQ1": _tq1, "OBR": _obr, "IPC": _ipc, "ZDS": _zds}


def _timing(change: PriorityChange, destination: Hl7Destination) -> str:
    """Data type TQ, whose sixth component is the priority."""
    return f"^^^^^{priority.code_of(change.level, destination.priorities)}"


def _status(change: PriorityChange, destination: Hl7Destination) -> str:
    return destination.withdrawn_status if change.undo else destination.result_status


def _observations(change: PriorityChange, destination: Hl7Destination) -> list[Segment]:
    """OBX: the marking first, every finding with its score under one sub-ID, the reading priority last."""
    rows: list[tuple[str, str, str, str, str]] = []
    if change.marking:
        rows.append(("TX", _RESTRICTION, "", escape(change.marking), ""))
    for number, finding in enumerate(change.findings, 1):
        rows += _finding(finding, str(number), destination)
    if change.judged and not change.findings:
        rows.append(("TX", _IMPRESSION, "", NO_FINDING, ""))
    rows.append(("TX", _PRIORITY, "", escape(f"{change.level.value} ({change.rule})"), ""))
    return [
        Segment("OBX", (str(number), kind, concept, sub_id, value, unit, *[""] * 4, _status(change, destination)))
        for number, (kind, concept, sub_id, value, unit) in enumerate(rows, 1)
    ]


def _finding(finding: Finding, sub_id: str, destination: Hl7Destination) -> list[tuple[str, str, str, str, str]]:
    coded = "^".join(escape(part) for part in (finding.code, finding.meaning, finding.scheme))
    if destination.effective_version >= "2.5":
        kind, value = "CWE", f"{coded}^^^^^^{escape(finding.name)}"
    else:
        kind, value = "CE", f"{coded}^^{escape(finding.name)}"
    concept = _PROBABILITY if finding.calibrated else _UNCALIBRATED
    unit = "1^no units^UCUM" if finding.calibrated else ""
    return [
        (kind, _FINDING, sub_id, value, ""),
        ("NM", concept, sub_id, f"{finding.score:.4f}", unit),
    ]


def _apply_templates(segments: dict[str, Fields], templates: Mapping[str, str], values: Mapping[str, str]) -> None:
    for key, template in templates.items():
        match = FIELD_KEY.fullmatch(key)
        if match is None:
            raise PermanentError(f"fields.{key}: not a field")
        name, number, component = match.groups()
        text = _NAME.sub(lambda found: values[found[1]], template)
        fields = segments.setdefault(name, {})
        fields[int(number)] = (
            text if component is None else _with_component(fields.get(int(number), ""), component, text)
        )


def _with_component(field: str, component: str, text: str) -> str:
    parts = field.split("^")
    parts += [""] * (int(component) - len(parts))
    parts[int(component) - 1] = text
    return "^".join(parts).rstrip("^")


def _check(segments: Mapping[str, Fields], message: str) -> None:
    for key in _REQUIRED[message]:
        name, _, number = key.partition("-")
        if not segments[name].get(int(number), "").strip("^& "):
            raise PermanentError(f"{key}: the order does not say it and no template gives it")
    for name in ("ORC", "OBR"):
        if not segments[name].get(2) and not segments[name].get(3):
            raise PermanentError(f"{name}-2, {name}-3: the templates leave no order number")


def _place(segment: Segment) -> int:
    return _ORDER.index(segment.name) if segment.name in _ORDER else len(_ORDER)


def _listed(fields: Fields) -> tuple[str, ...]:
    return tuple(fields.get(number, "") for number in range(1, max(fields) + 1))
