"""Corrections and merges as a second HL7 implementation (hl7apy, strict) knows them: our examples, and its own."""

from __future__ import annotations

import pytest
from hl7apy.consts import VALIDATION_LEVEL  # type: ignore[import-untyped]
from hl7apy.core import Message  # type: ignore[import-untyped]
from hl7apy.exceptions import HL7apyException  # type: ignore[import-untyped]
from hl7apy.parser import parse_message  # type: ignore[import-untyped]

from dicom_node.base.hl7_settings import Hl7Listener
from dicom_node.base.orders import Patient, PatientCorrected, PatientsMerged
from dicom_node.worklist.hl7.inbound import read_events
from support.hl7_messages import A40, PID, lines, msh

SETTINGS = Hl7Listener(port=2575)
STRICT = VALIDATION_LEVEL.STRICT
CORRECTION = (msh("ADT^A08^ADT_A01"), "EVN|A08|20260101120000", PID, "PV1|1|I")
MERGE = (A40[0], "EVN|A40|20260101120000", *A40[2:])


@pytest.mark.parametrize(("message", "structure"), [(CORRECTION, "ADT_A01"), (MERGE, "ADT_A39")])
def test_what_the_reader_is_tested_with_is_valid(message: tuple[str, ...], structure: str) -> None:
    parsed = parse_message(lines(*message).decode(), validation_level=STRICT)
    assert parsed.validate()
    assert parsed.name == structure


def test_the_second_implementation_can_find_fault() -> None:
    without_patient = (CORRECTION[0], CORRECTION[1], CORRECTION[3])
    with pytest.raises(HL7apyException):
        parse_message(lines(*without_patient).decode(), validation_level=STRICT).validate()


def test_its_correction_is_read() -> None:
    message = begun("ADT_A01", "ADT^A08^ADT_A01")
    put_patient(message)
    message.pv1.pv1_2 = "I"
    assert message.validate()
    right = Patient("PID7", "HOSP", "Muster^Anne", "19700130", "F")
    assert read_events(sent(message), SETTINGS) == (PatientCorrected(right),)


def test_its_merge_is_read() -> None:
    message = begun("ADT_A39", "ADT^A40^ADT_A39")
    put_patient(message.add_group("ADT_A39_PATIENT"))
    message.adt_a39_patient.mrg.mrg_1 = "OLD9^^^HOSP^PI"
    assert message.validate()
    right = Patient("PID7", "HOSP", "Muster^Anne", "19700130", "F")
    assert read_events(sent(message), SETTINGS) == (PatientsMerged(right, Patient("OLD9", "HOSP")),)


def begun(structure: str, kind: str) -> Message:
    """A message with its header and event."""
    message = Message(structure, version="2.5.1", validation_level=STRICT)
    message.msh.msh_3, message.msh.msh_4, message.msh.msh_7 = "RIS", "HOSP", "20260101120000"
    message.msh.msh_9, message.msh.msh_10, message.msh.msh_11 = kind, "M1", "P"
    message.evn.evn_2 = "20260101120000"
    return message


def put_patient(group: Message) -> None:
    group.pid.pid_3, group.pid.pid_5 = "PID7^^^HOSP^PI", "Muster^Anne"
    group.pid.pid_7, group.pid.pid_8 = "19700130", "F"


def sent(message: Message) -> bytes:
    encoded: str = message.to_er7()
    return (encoded + "\r").encode()
