"""Priority changes as messages, judged by a second HL7 implementation (hl7apy) and by our own reader.

Not here: whether a RIS does what the message says.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.base.errors import PermanentError
from dicom_node.base.hl7_settings import IDENTITY_NAMES, TEMPLATE_NAMES, Hl7Listener
from dicom_node.base.orders import OrderAction, OrderReceived, Patient, PriorityChange
from dicom_node.base.types import Level
from dicom_node.worklist.hl7.inbound import read_events
from dicom_node.worklist.hl7.messages import NO_FINDING, build
from support.hl7_messages import STUDY_UID, change, change_of_order, destination, errors_by_second_implementation

MESSAGES = ("ORM", "OMG", "OMI", "ORU")


def lines(told: PriorityChange, **settings: Any) -> list[str]:
    text = build(told, destination(**settings)).decode()
    assert text.endswith("\r")
    return text.rstrip("\r").split("\r")


def segment(name: str, told: PriorityChange, **settings: Any) -> list[str]:
    """The one segment of that name; index 3 is field 3."""
    found = [line.split("|") for line in lines(told, **settings) if line.startswith(name + "|")]
    assert len(found) == 1
    return found[0] + [""] * 50


def test_orm_o01_as_the_reference_has_it() -> None:
    stamp = r"\d{14}[+-]\d{4}"
    written = lines(change(), receiving_application="RIS", receiving_facility="HOSP^1.2.3^ISO")
    assert re.fullmatch(
        rf"MSH\|\^~\\&\|PRIMA\|\|RIS\|HOSP\^1\.2\.3\^ISO\|{stamp}\|\|ORM\^O01\|K0001\|P\|2\.3\.1\|{{6}}UNICODE UTF-8",
        written[0],
    )
    assert written[1:] == [
        "PID|1||PID7^^^HOSP||Ärger^Anna^Maria^jun.^Dr.||19700131|F",
        "PV1|1|I",
        "ORC|XO|P1^RIS|F1^RIS^1.2.3^ISO||||^^^^^A",
        "OBR|1|P1^RIS|F1^RIS^1.2.3^ISO|MRHEAD^MRI head^L|||||||||||||||||||||||^^^^^A",
        f"ZDS|{STUDY_UID}^PRIMA^Application^DICOM",
    ]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("marking", ["", "AI test model, not for clinical use"])
def test_the_structure_is_valid_by_a_second_implementation(message: str, marking: str, tmp_path: Path) -> None:
    told = change(marking=marking)
    text = build(told, destination(message=message, character_set="8859/1")).decode("latin-1")
    assert errors_by_second_implementation(text, tmp_path) == []


def test_the_second_implementation_can_find_fault(tmp_path: Path) -> None:
    text = build(change(), destination(message="OMI")).decode()
    assert errors_by_second_implementation(text.replace("\rPV1|1|I", ""), tmp_path) == []
    assert errors_by_second_implementation(text.replace("\rOBR|", "\rZBR|"), tmp_path)
    assert errors_by_second_implementation(text.replace("\rIPC|", "\rZPC|"), tmp_path)


def test_omg_and_omi_carry_the_priority_in_tq1() -> None:
    for message, structure in (("OMG", "OMG^O19^OMG_O19"), ("OMI", "OMI^O23^OMI_O23")):
        told = change(level=Level.CRITICAL)
        assert segment("MSH", told, message=message)[8] == structure
        assert segment("MSH", told, message=message)[11] == "2.5.1"
        assert segment("TQ1", told, message=message)[9] == "S"
        assert segment("ORC", told, message=message)[1:4] == ["XO", "P1^RIS", "F1^RIS^1.2.3^ISO"]
    assert segment("IPC", change(), message="OMI")[1:5] == ["ACC1", "RP1", STUDY_UID, "SPS1"]


def test_oru_has_a_row_for_every_finding_and_none_is_final() -> None:
    told = change(findings=(*change().findings, replace(change().findings[0], score=1.5, calibrated=False)))
    rows = [line.split("|") for line in lines(told, message="ORU") if line.startswith("OBX|")]
    assert [row[1] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0][2:6] == [
        "CWE",
        "121071^Finding^DCM",
        "1",
        "21350002^Colloid cyst of third ventricle^SCT^^^^^^cyst_colloid_cyst",
    ]
    assert rows[1][2:7] == ["NM", "122157^Probability^DCM", "1", "0.9300", "1^no units^UCUM"]
    assert rows[3][3].startswith("UNCAL_SCORE^")
    assert rows[3][4:7] == ["2", "1.5000", ""]
    assert rows[4][5] == "urgent (priority head: high -> urgent)"
    assert {row[11] for row in rows} == {segment("OBR", told, message="ORU")[25]} == {"R"}


def test_no_finding_is_said_and_a_withdrawn_result_is_marked() -> None:
    told = change(findings=(), undo=True)
    rows = [line.split("|") for line in lines(told, message="ORU") if line.startswith("OBX|")]
    assert rows[0][5] == NO_FINDING
    assert {row[11] for row in rows} == {"W"}
    assert segment("OBR", told, message="ORU")[25] == "W"


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_not_clinical_says_so_whatever_the_templates(message: str) -> None:
    told = change(marking="Test|model, not for clinical use")
    written = build(told, destination(message=message, fields={"NTE-3": "{rule}"})).decode()
    assert "Test\\F\\model, not for clinical use" in written
    assert "not for clinical use" not in build(change(), destination(message=message)).decode()


def test_a_repeated_attempt_is_the_same_bytes() -> None:
    assert build(change(), destination()) == build(change(), destination())


def test_acknowledgement_mode_codes_and_version_are_the_sites() -> None:
    settings = {
        "accept_acknowledgment": "AL",
        "application_acknowledgment": "NE",
        "processing_id": "T",
        "version": "2.5",
        "priorities": {"urgent": "1"},
        "character_set": "ASCII",
    }
    told = change_of_order(patient=Patient("PID7"))
    assert segment("MSH", told, **settings)[8:18] == [
        "ORM^O01^ORM_O01",
        "K0001",
        "T",
        "2.5",
        "",
        "",
        "AL",
        "NE",
        "",
        "",
    ]
    assert segment("ORC", told, **settings)[7] == "^^^^^1"


def test_templates_fill_fields_and_components() -> None:
    fields = {
        "OBR-4": "MRHEAD^MRI Head^99L",
        "OBR-18": "{accession_number}",
        "ORC-16": "AI^{rule}",
        "ZPR-3": "{level}~{priority}",
        "PV1-2": "",
    }
    told = change(rule="a|b^c")
    assert segment("OBR", told, fields=fields)[4] == "MRHEAD^MRI Head^99L"
    assert segment("OBR", told, fields=fields)[18] == "ACC1"
    assert segment("PV1", told, fields=fields)[2] == ""
    assert segment("ORC", told, fields=fields | {"ORC-2.2": "{issuer}"})[2] == "P1^HOSP"
    assert segment("ORC", told, fields={"ORC-16": fields["ORC-16"]})[16] == "AI^a\\F\\b\\S\\c"
    assert segment("ZPR", told, fields={"ZPR-3": fields["ZPR-3"]})[1:4] == ["", "", "urgent~A"]


@pytest.mark.parametrize("name", sorted(TEMPLATE_NAMES))
def test_every_name_can_stand_in_a_template(name: str) -> None:
    told = change_of_order(modality="MR", station_ae="MR1")
    assert segment("ZZZ", told, fields={"ZZZ-1": f"<{{{name}}}>"})[1] not in ("<>", f"<{{{name}}}>")
    assert IDENTITY_NAMES < TEMPLATE_NAMES


@pytest.mark.parametrize(
    ("told", "settings", "reason"),
    [
        (change(order=None), {}, "no order"),
        (change_of_order(placer_order_number="", filler_order_number=""), {}, "ORC-2, ORC-3"),
        (change_of_order(patient=Patient("")), {}, "PID-3"),
        (change_of_order(code_value="", code_meaning="", code_scheme=""), {}, "OBR-4"),
        (change_of_order(study_instance_uid="1.2.3"), {}, "another study"),
        (change_of_order(accession_number=""), {"message": "OMI"}, "IPC-1"),
        (change_of_order(requested_procedure_id=""), {"message": "OMI"}, "IPC-2"),
        (change_of_order(scheduled_step_id=""), {"message": "OMI"}, "IPC-4"),
        (change(), {"fields": {"ZDS-1": ""}}, "ZDS-1"),
        (change_of_order(placer_order_number=""), {"fields": {"OBR-3": ""}}, "OBR-2, OBR-3"),
        (change(key=""), {}, "MSH-10"),
        (change(key="x" * 21), {}, "MSH-10"),
        (change(key="a^b"), {}, "MSH-10"),
        (change(), {"character_set": "ASCII"}, "PID"),
    ],
)
def test_what_the_message_needs_and_nobody_gives_is_named(
    told: PriorityChange, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PermanentError, match=reason):
        build(told, destination(**settings))


anything = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.sampled_from(MESSAGES), anything, anything, anything)
def test_no_text_injects_a_segment_or_a_field(message: str, name: str, code: str, number: str) -> None:
    told = change_of_order(
        patient=Patient("PID7", name, name, name, name),
        placer_order_number=number,
        code_meaning=code,
        referring_physician=name,
    )
    plain = lines(change(), message=message)
    written = lines(replace(told, rule=code, order=told.order), message=message)
    assert [line[:3] for line in written] == [line[:3] for line in plain]
    assert all(len(line.split("|")) <= len(model.split("|")) for line, model in zip(written, plain, strict=True))


@given(
    st.text(st.characters(exclude_characters="\\", exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=20),
    st.lists(st.text(st.characters(exclude_characters="^=\\", exclude_categories=["Cc", "Cs", "Z"])), max_size=5),
    st.sampled_from(["ORM", "OMI"]),
)
def test_what_is_written_is_read_back(text: str, name: list[str], message: str) -> None:
    told = change_of_order(
        patient=Patient(text, text, "^".join(name).rstrip("^"), "19700131", "F"),
        accession_number=text if message == "OMI" else "",
        code_meaning=text,
    )
    (event,) = read_events(build(told, destination(message=message)), Hl7Listener())
    assert isinstance(event, OrderReceived)
    assert told.order is not None
    order = replace(told.order, priority=Level.URGENT, priority_text="A")
    if message == "ORM":
        order = replace(order, requested_procedure_id="", scheduled_step_id="")
    assert event == OrderReceived(order, OrderAction.CHANGE, "XO")
