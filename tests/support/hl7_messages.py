"""HL7 messages as a RIS writes them, an order and a priority change, for the tests of the HL7 adapters."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import hl7apy.parser  # type: ignore[import-untyped]
from hl7apy.exceptions import ValidationError  # type: ignore[import-untyped]

from dicom_node.base.hl7_settings import Hl7Destination
from dicom_node.base.orders import Order, Patient, PriorityChange
from dicom_node.base.types import Finding, Level

STUDY_UID = "1.2.826.0.1.3680043.8.498.1"


def change(**values: Any) -> PriorityChange:
    order = Order(
        patient=Patient("PID7", "HOSP", "Ärger^Anna^Maria^Dr.^jun.", "19700131", "F"),
        accession_number="ACC1",
        placer_order_number="P1^RIS",
        filler_order_number="F1^RIS^1.2.3^ISO",
        study_instance_uid=STUDY_UID,
        requested_procedure_id="RP1",
        scheduled_step_id="SPS1",
        code_value="MRHEAD",
        code_meaning="MRI head",
        code_scheme="L",
        patient_class="I",
    )
    finding = Finding("cyst_colloid_cyst", "21350002", "SCT", "Colloid cyst of third ventricle", 0.93, True)
    defaults: dict[str, Any] = {
        "key": "K0001",
        "study_instance_uid": STUDY_UID,
        "level": Level.URGENT,
        "previous": Level.ROUTINE,
        "rule": "priority head: high → urgent",
        "at": 1_767_225_600.0,
        "order": order,
        "findings": (finding,),
    }
    return PriorityChange(**defaults | values)


def change_of_order(**values: Any) -> PriorityChange:
    told = change()
    assert told.order is not None
    return replace(told, order=replace(told.order, **values))


def errors_by_second_implementation(text: str, folder: Path) -> list[str]:
    """What hl7apy finds wrong with a message, by the structures of its version; empty for a valid one."""
    report = folder / "report.txt"
    try:
        hl7apy.parser.parse_message(text).validate(report_file=str(report))
    except ValidationError:
        # It takes the ORM's choice of one order detail segment for a list of required ones.
        return [line for line in report.read_text().splitlines() if not re.search(r"ORM_O01_CHOICE\.(?!OBR)", line)]
    return []


def destination(**values: Any) -> Hl7Destination:
    return Hl7Destination(**{"name": "ris", "host": "127.0.0.1", "port": 2575} | values)


def lines(*segments: str) -> bytes:
    return ("\r".join(segments) + "\r").encode()


def msh(kind: str, version: str = "2.5.1", control_id: str = "M1", **fields: str) -> str:
    """fields: f11, f15, f16, f18 …"""
    values = [""] * 21
    values[3:7] = "RIS", "HOSP", "PRIMA", "HOSP"
    values[7], values[9], values[10], values[11], values[12] = "20260101120000", kind, control_id, "P", version
    for name, value in fields.items():
        values[int(name[1:])] = value
    return "MSH|^~\\&|" + "|".join(values[3:]).rstrip("|")


PID = "PID|1||PID7^^^HOSP^PI||Muster^Anna^Maria^jun.^Dr.||19700131|F"
ORM = (
    msh("ORM^O01", "2.3.1"),
    PID,
    "PV1|1|I||||||77^House^Gregory",
    "ORC|NW|P1^RIS|F1^RIS||SC||^^^20260102093000^^S",
    "OBR|1|P1^RIS|F1^RIS|MRHEAD^MRI head^L||||||||||||||ACC1|RP1|SPS1||||MR|||^^^20260102093000^^S",
    f"ZDS|{STUDY_UID}^RIS^Application^DICOM",
)
OMI = (
    msh("OMI^O23^OMI_O23"),
    PID,
    "ORC|NW|P1^RIS|F1^RIS",
    "TQ1|1||||||20260102093000+0000||A^ASAP^HL70485",
    "OBR|1|P1^RIS|F1^RIS|MRHEAD^MRI head^L",
    f"IPC|ACC1^RIS|RP1|{STUDY_UID}|SPS1|MR|||STATION|MR1",
)
ORU = (
    msh("ORU^R01"),
    PID,
    "OBR|1|P1^RIS|F1^RIS|MRHEAD^MRI head^L||||||||||||||ACC1||||20260103101500+0100|||F",
    "OBX|1|TX|18748-4^Report^LN||No acute infarct.~Old lacunae.||||||F",
    "OBX|2|FT|18748-4^Report^LN||Impression:\\.br\\normal for age.||||||F",
)
A08 = (msh("ADT^A08", "2.3.1"), "EVN|A08|20260101", "PID|1||PID7^^^HOSP^PI||Muster^Anne||19700130|F")
A40 = (msh("ADT^A40^ADT_A39"), "EVN|A40|20260101", PID, "MRG|OLD9^^^HOSP^PI")
