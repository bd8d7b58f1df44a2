"""What a message that came in says: orders, patient corrections, merges, final reports (HL7 v2.3.1 to v2.8, IHE RAD).

Every input ends in events or in `Refused`; an identifier that contradicts itself inside a message is refused, since a
guess could move the wrong study. Of result messages that are not final only those count that name who reads: others
(OBR-25 A, or P and R without an interpreter) may be a device's, the node's own included. That an order is in process
(ORC-5 IP) is no reading: most systems say so of the examination.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from dicom_node.base.hl7_settings import Hl7Listener
from dicom_node.base.orders import (
    FinalReport,
    Order,
    OrderAction,
    OrderReceived,
    OrderStatus,
    Patient,
    PatientCorrected,
    PatientsMerged,
    ReadingBegun,
    WorklistEvent,
)
from dicom_node.base.types import Level
from dicom_node.worklist.hl7 import person, priority, timestamp
from dicom_node.worklist.hl7.header import check_control_id
from dicom_node.worklist.hl7.message import Message, read_message
from dicom_node.worklist.hl7.refusal import Condition, Refused
from dicom_node.worklist.hl7.segments import Segment

# Table 0119. Replacement (RP, RQ, RU) ends the old order; the one in its place comes as RO.
_ACTIONS = {
    **dict.fromkeys(("NW", "RO"), OrderAction.NEW),
    **dict.fromkeys(("XO", "XX", "XR", "SC", "SN", "NA", "HD", "RL"), OrderAction.CHANGE),
    **dict.fromkeys(("CA", "OC", "CR", "DC", "OD", "DR", "RP", "RQ", "RU"), OrderAction.CANCEL),
}
# Table 0038; other values say nothing beyond "scheduled".
_STATUS = {
    "IP": OrderStatus.IN_PROGRESS,
    "A": OrderStatus.IN_PROGRESS,
    "CM": OrderStatus.COMPLETED,
    "CA": OrderStatus.CANCELLED,
    "DC": OrderStatus.CANCELLED,
    "RP": OrderStatus.CANCELLED,
}
_FINAL = ("F", "C")  # tables 0085 and 0123: final, corrected
_BEGUN = ("P", "R")  # table 0123: preliminary; results stored, not yet verified
_TEXT_TYPES = ("TX", "FT", "ST")
_STUDY_UID_CONCEPT = "113014"  # (113014, DCM, "DICOM Study"), as OBX-3
_PATIENT_ID_TYPES = ("PI", "MR", "PT")  # table 0203: internal, medical record, external
_VERSION = re.compile(r"2\.\d(\.\d)?")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")  # leading zeros, though forbidden, are seen in real studies
_IDENTIFIER_LENGTH = 199
_UNFIT = re.compile(r"[\\\x00-\x1f\x7f]")


def read_events(raw: bytes, settings: Hl7Listener) -> tuple[WorklistEvent, ...]:
    """The events in one message, in its order; none when it is understood and changes nothing. Raises Refused."""
    message = read_message(raw, settings.character_set)
    check_control_id(message.header)
    return _reader(message, settings)(message, settings)


def _reader(message: Message, settings: Hl7Listener) -> Callable[[Message, Hl7Listener], tuple[WorklistEvent, ...]]:
    header = message.header
    if not _VERSION.fullmatch(header.component(12)):
        raise Refused(Condition.UNSUPPORTED_VERSION_ID, "MSH-12: not a version 2 of HL7")
    if header.component(11) not in ("", settings.processing_id):
        raise Refused(Condition.UNSUPPORTED_PROCESSING_ID, f"MSH-11: only {settings.processing_id} counts here")
    if reader := _READERS.get(header.message_type):
        return reader
    if header.component(9) in {known.partition("^")[0] for known in _READERS}:
        raise Refused(Condition.UNSUPPORTED_EVENT_CODE, "MSH-9: the node takes O01, O19, O23, A08, A40 and R01")
    raise Refused(Condition.UNSUPPORTED_MESSAGE_TYPE, "MSH-9: the node takes ORM, OMG, OMI, ADT and ORU")


@dataclass
class _Group:
    """The segments about one order."""

    orc: Segment | None = None
    obr: Segment | None = None
    tq1: list[Segment] = field(default_factory=list)
    ipc: list[Segment] = field(default_factory=list)
    obx: list[Segment] = field(default_factory=list)
    zds: list[Segment] = field(default_factory=list)

    def first(self, number: int) -> Iterator[Segment]:
        """ORC and OBR, as far as they are there, that have this field."""
        for segment in (self.orc, self.obr):
            if segment is not None and segment.field(number).strip():
                yield segment


def _orders(message: Message, settings: Hl7Listener) -> tuple[WorklistEvent, ...]:
    patient, visit = _one(message, "PID"), _optional(message, "PV1")
    groups = _groups(message)
    if not groups or any(group.orc is None for group in groups):
        raise Refused(Condition.SEGMENT_SEQUENCE_ERROR, "an order without an ORC segment")
    orders = [_order(message, patient, visit, group, settings) for group in groups]
    return tuple(_received(message, group, order) for group, order in zip(groups, orders, strict=True))


def _received(message: Message, group: _Group, order: Order) -> OrderReceived:
    code = message.value(group.orc, 1).upper()
    if code not in _ACTIONS:
        raise Refused(Condition.TABLE_VALUE_NOT_FOUND, "ORC-1: order control code not supported")
    action = _ACTIONS[code]
    if action is OrderAction.CANCEL:
        order = replace(order, status=OrderStatus.CANCELLED)
    return OrderReceived(order, action, code)


def _reports(message: Message, settings: Hl7Listener) -> tuple[WorklistEvent, ...]:
    patient, visit = _one(message, "PID"), _optional(message, "PV1")
    groups = _groups(message)
    if not groups or any(group.obr is None for group in groups):
        raise Refused(Condition.SEGMENT_SEQUENCE_ERROR, "a result without an OBR segment")
    reports = [_report(message, _order(message, patient, visit, group, settings), group) for group in groups]
    return tuple(report for report in reports if report is not None)


def _report(message: Message, order: Order, group: _Group) -> FinalReport | ReadingBegun | None:
    whole = message.value(group.obr, 25).upper()
    rows = [(message.value(row, 11).upper(), row) for row in group.obx]
    final = [(status, row) for status, row in rows if status in _FINAL or (not status and whole in _FINAL)]
    finished = whole in _FINAL or (not whole and len(final) == len(rows))
    at = timestamp.read(message.value(group.obr, 22)) or timestamp.read(message.header.component(7))
    if not finished or (rows and not final):
        interpreter = message.encoded(group.obr, 32).strip("^&~")
        return ReadingBegun(order, at.timestamp()) if whole in _BEGUN and interpreter and at is not None else None
    if at is None:
        raise Refused(Condition.REQUIRED_FIELD_MISSING, "OBR-22, MSH-7: neither says when the report became final")
    lines = [line for _, row in final if message.value(row, 2).upper() in _TEXT_TYPES for line in _lines(message, row)]
    corrected = "C" in (whole, *(status for status, _ in final))
    return FinalReport(order, "\n".join(lines), at.timestamp(), corrected)


def _lines(message: Message, row: Segment) -> list[str]:
    """OBX-5: repetitions are lines; a delimiter that was not escaped is given back rather than cut off."""
    marks = message.delimiters
    return [
        marks.component.join(marks.subcomponent.join(subs) for subs in components)
        for components in message.repetitions(row, 5)
    ]


def _corrections(message: Message, settings: Hl7Listener) -> tuple[WorklistEvent, ...]:
    return (PatientCorrected(_patient(message, _one(message, "PID"), settings)),)


def _merges(message: Message, settings: Hl7Listener) -> tuple[WorklistEvent, ...]:
    about = [segment for segment in message.segments if segment.name in ("PID", "MRG")]
    if not about or [segment.name for segment in about] != ["PID", "MRG"] * (len(about) // 2):
        raise Refused(Condition.SEGMENT_SEQUENCE_ERROR, "PID and MRG do not come in pairs")
    return tuple(_merge(message, pid, mrg, settings) for pid, mrg in zip(about[::2], about[1::2], strict=True))


def _merge(message: Message, pid: Segment, mrg: Segment, settings: Hl7Listener) -> PatientsMerged:
    survivor = _patient(message, pid, settings)
    identifier, issuer = _patient_id(message, mrg, 1, settings)
    if identifier == survivor.patient_id and (issuer == survivor.issuer or not (issuer and survivor.issuer)):
        raise Refused(Condition.DATA_TYPE_ERROR, "PID-3, MRG-1: a patient cannot be merged into itself")
    return PatientsMerged(survivor, Patient(identifier, issuer))


_READERS: dict[str, Callable[[Message, Hl7Listener], tuple[WorklistEvent, ...]]] = {
    "ORM^O01": _orders,
    "OMG^O19": _orders,
    "OMI^O23": _orders,
    "ADT^A08": _corrections,
    "ADT^A40": _merges,
    "ORU^R01": _reports,
}


def _groups(message: Message) -> list[_Group]:
    """Orders and what belongs to them. A ZDS at the end of several orders belongs to all, if they are one procedure."""
    groups: list[_Group] = []
    lists = {"TQ1", "IPC", "OBX", "ZDS"}
    for segment in message.segments:
        if segment.name == "ORC" or (segment.name == "OBR" and (not groups or groups[-1].obr is not None)):
            groups.append(_Group())
        if segment.name in ("ORC", "OBR"):
            setattr(groups[-1], segment.name.lower(), segment)
        elif segment.name in lists and groups:
            getattr(groups[-1], segment.name.lower()).append(segment)
    if len(groups) > 1 and groups[-1].zds and not any(group.zds for group in groups[:-1]):
        _share_zds(message, groups)
    return groups


def _share_zds(message: Message, groups: list[_Group]) -> None:
    procedures = {message.value(group.obr, 19) for group in groups}
    if len(procedures) != 1 or "" in procedures:
        raise Refused(Condition.DATA_TYPE_ERROR, "ZDS-1: one study for orders that are not one requested procedure")
    for group in groups[:-1]:
        group.zds = groups[-1].zds


def _order(message: Message, pid: Segment, visit: Segment | None, group: _Group, settings: Hl7Listener) -> Order:
    orc, obr, ipc = group.orc, group.obr, next(iter(group.ipc), None)
    level, text = _priority(message, group, settings)
    order = Order(
        patient=_patient(message, pid, settings),
        accession_number=_accession_number(message, group, settings),
        placer_order_number=_order_number(message, group, 2),
        filler_order_number=_order_number(message, group, 3),
        study_instance_uid=_study_uid(message, group),
        requested_procedure_id=_identifier(
            "IPC-2, OBR-19",
            _agreed("IPC-2", [message.value(row, 2) for row in group.ipc]) or message.value(obr, 19),
        ),
        scheduled_step_id=_identifier("IPC-4, OBR-20", message.value(ipc, 4) or message.value(obr, 20)),
        code_value=message.value(obr, 4, 1),
        code_meaning=message.value(obr, 4, 2),
        code_scheme=message.value(obr, 4, 3),
        modality=_code_string(message.value(ipc, 5) or message.value(obr, 24)),
        station_ae=_code_string(message.value(ipc, 9)),
        scheduled_at=_scheduled_at(message, group),
        patient_class=message.value(visit, 2),
        referring_physician=_doctor(message, visit, 8),
        requesting_physician=_doctor(message, orc, 12) or _doctor(message, obr, 16),
        priority=level,
        priority_text=text,
        status=_STATUS.get(message.value(orc, 5).upper(), OrderStatus.SCHEDULED),
    )
    keys = (order.accession_number, order.placer_order_number, order.filler_order_number, order.study_instance_uid)
    if not any(keys):
        raise Refused(Condition.REQUIRED_FIELD_MISSING, "ORC-2, ORC-3: no number says which order this is")
    return order


def _patient(message: Message, pid: Segment, settings: Hl7Listener) -> Patient:
    identifier, issuer = _patient_id(message, pid, 3, settings)
    sex = message.value(pid, 8).upper()
    birth = re.match(r"[0-9]{8}", message.value(pid, 7))
    return Patient(
        patient_id=identifier,
        issuer=issuer,
        name=person.to_dicom(message.repetitions(pid, 5)),
        birth_date=birth[0] if birth else "",
        sex=sex if sex in ("M", "F", "O") else "",
    )


def _patient_id(message: Message, segment: Segment, number: int, settings: Hl7Listener) -> tuple[str, str]:
    """ID and assigning authority (CX, chapter 2.A.14) that DICOM objects carry at this site."""
    where = f"{segment.name}-{number}"
    known = []
    for repetition in message.repetitions(segment, number):
        components = [*repetition, *[[""]] * 5]
        authority = [text for text in components[3] if text]
        known.append((_identifier(where, components[0][0]), authority, components[4][0].upper()))
    known = [entry for entry in known if entry[0]]
    wanted = settings.assigning_authority
    if wanted:
        known = [entry for entry in known if wanted in entry[1]]
    known.sort(key=lambda entry: entry[2] not in _PATIENT_ID_TYPES)
    if not known:
        reason = f"{where}: no patient ID of the assigning authority" if wanted else f"{where}: no patient ID"
        raise Refused(Condition.REQUIRED_FIELD_MISSING, reason)
    identifier, authority, _ = known[0]
    return identifier, wanted or (authority[0] if authority else "")


def _order_number(message: Message, group: _Group, number: int) -> str:
    """Placer (2) or filler (3) order number as it came; ORC and OBR must agree."""
    where = f"ORC-{number}, OBR-{number}"
    numbers = [message.encoded(segment, number) for segment in group.first(number)]
    if any(len(text) > _IDENTIFIER_LENGTH for text in numbers):
        raise Refused(Condition.DATA_TYPE_ERROR, f"{where}: longer than {_IDENTIFIER_LENGTH} characters")
    return _agreed(where, numbers)


def _accession_number(message: Message, group: _Group, settings: Hl7Listener) -> str:
    if found := _agreed("IPC-1", [_identifier("IPC-1", message.value(row, 1)) for row in group.ipc]):
        return found
    name, _, place = settings.accession_number.partition("-")
    number, _, component = place.partition(".")
    segment = group.orc if name == "ORC" else group.obr
    return _identifier(settings.accession_number, message.value(segment, int(number), int(component or 1)))


def _study_uid(message: Message, group: _Group) -> str:
    """The Study Instance UID from ZDS-1, IPC-3 or an OBX; all that are there must agree."""
    uids = [message.value(row, 1) for row in group.zds] + [message.value(row, 3) for row in group.ipc]
    uids += [message.value(row, 5) for row in group.obx if message.value(row, 3) == _STUDY_UID_CONCEPT]
    uid = _agreed("ZDS-1, IPC-3", uids)
    if uid and (len(uid) > 64 or not _UID.fullmatch(uid)):
        raise Refused(Condition.DATA_TYPE_ERROR, "ZDS-1, IPC-3: not a UID")
    return uid


def _priority(message: Message, group: _Group, settings: Hl7Listener) -> tuple[Level | None, str]:
    texts = [message.value(row, 9) for row in group.tq1]
    for segment, number in ((group.orc, 7), (group.obr, 27)):
        if segment is not None:
            texts += [timing[5][0] for timing in message.repetitions(segment, number) if len(timing) > 5]
    return priority.highest(texts, settings.priorities)


def _scheduled_at(message: Message, group: _Group) -> str:
    stamps = [message.value(row, 7) for row in group.tq1]
    stamps += [message.value(group.obr, 36), message.value(group.orc, 7, 4), message.value(group.obr, 27, 4)]
    return next((found for stamp in stamps if (found := timestamp.dicom_datetime(stamp))), "")


def _doctor(message: Message, segment: Segment | None, number: int) -> str:
    return person.to_dicom(message.repetitions(segment, number), first=2) if segment is not None else ""


def _code_string(text: str) -> str:
    """The text as a value of CS or AE, empty when it can be none (PS3.5 section 6.2)."""
    return text if text.isascii() and len(text) <= 16 and not _UNFIT.search(text) else ""


def _identifier(where: str, text: str) -> str:
    """Raises Refused for what no DICOM identifier can be (PS3.5 section 6.2): nothing could ever match it."""
    if len(text) > _IDENTIFIER_LENGTH or _UNFIT.search(text):
        raise Refused(Condition.DATA_TYPE_ERROR, f"{where}: cannot be an identifier")
    return text


def _agreed(where: str, texts: list[str]) -> str:
    said = {text for text in texts if text}
    if len(said) > 1:
        raise Refused(Condition.DATA_TYPE_ERROR, f"{where}: one order with two different values")
    return said.pop() if said else ""


def _optional(message: Message, name: str) -> Segment | None:
    return next((segment for segment in message.segments if segment.name == name), None)


def _one(message: Message, name: str) -> Segment:
    """The only segment of that name. Raises Refused: with two patients, nobody could say whose order it is."""
    found = [segment for segment in message.segments if segment.name == name]
    if len(found) != 1:
        raise Refused(Condition.SEGMENT_SEQUENCE_ERROR, f"{name}: exactly one is needed")
    return found[0]
