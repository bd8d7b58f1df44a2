"""What comes in: every message ends in events or a stated refusal. Not here: what the registry makes of the events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from dicom_node.worklist.hl7.inbound import read_events
from dicom_node.worklist.hl7.refusal import Refused
from support.hl7_messages import A08, A40, OMI, ORM, ORU, PID, STUDY_UID, lines, msh

PATIENT = Patient("PID7", "HOSP", "Muster^Anna^Maria^Dr.^jun.", "19700131", "F")
ORDER = Order(
    patient=PATIENT,
    accession_number="ACC1",
    placer_order_number="P1^RIS",
    filler_order_number="F1^RIS",
    study_instance_uid=STUDY_UID,
    requested_procedure_id="RP1",
    scheduled_step_id="SPS1",
    code_value="MRHEAD",
    code_meaning="MRI head",
    code_scheme="L",
    modality="MR",
    scheduled_at="20260102093000",
    patient_class="I",
    referring_physician="House^Gregory",
    priority=Level.CRITICAL,
    priority_text="S",
)


def read(*segments: str, **values: Any) -> tuple[WorklistEvent, ...]:
    return read_events(lines(*segments), Hl7Listener(**values))


def order(*segments: str, **values: Any) -> Order:
    (event,) = read(*segments, **values)
    assert isinstance(event, OrderReceived)
    return event.order


def report(*segments: str) -> FinalReport:
    (event,) = read(*segments)
    assert isinstance(event, FinalReport)
    return event


def swap(segments: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    assert any(old in segment for segment in segments)
    return tuple(segment.replace(old, new) for segment in segments if segment.replace(old, new))


def refusal(*segments: str, **values: Any) -> Refused:
    with pytest.raises(Refused) as raised:
        read(*segments, **values)
    return raised.value


def test_an_orm_order() -> None:
    assert read(*ORM) == (OrderReceived(ORDER, OrderAction.NEW, "NW"),)


def test_an_omi_order() -> None:
    found = order(*OMI)
    assert found.priority is Level.URGENT
    assert (found.accession_number, found.station_ae, found.modality) == ("ACC1", "MR1", "MR")
    assert (found.requested_procedure_id, found.scheduled_step_id) == ("RP1", "SPS1")
    assert found.study_instance_uid == STUDY_UID


def test_an_omg_order() -> None:
    found = order(*swap(OMI[:-1], "OMI^O23^OMI_O23", "OMG^O19^OMG_O19"))
    assert (found.priority, found.placer_order_number) == (Level.URGENT, "P1^RIS")


@pytest.mark.parametrize(
    ("code", "action", "status"),
    [
        ("NW", OrderAction.NEW, OrderStatus.SCHEDULED),
        ("XO", OrderAction.CHANGE, OrderStatus.SCHEDULED),
        ("SN", OrderAction.CHANGE, OrderStatus.SCHEDULED),
        ("CA", OrderAction.CANCEL, OrderStatus.CANCELLED),
        ("DC", OrderAction.CANCEL, OrderStatus.CANCELLED),
        ("RU", OrderAction.CANCEL, OrderStatus.CANCELLED),
        ("RO", OrderAction.NEW, OrderStatus.SCHEDULED),
    ],
)
def test_order_control(code: str, action: OrderAction, status: OrderStatus) -> None:
    expected = OrderReceived(replace(ORDER, status=status), action, code)
    assert read(*swap(ORM, "ORC|NW", f"ORC|{code}")) == (expected,)


def test_order_status_and_an_order_control_that_is_not_known() -> None:
    assert order(*swap(ORM, "||SC||", "||CM||")).status is OrderStatus.COMPLETED
    assert "ORC-1" in str(refusal(*swap(ORM, "ORC|NW", "ORC|ZZ")))


def test_a_cancellation_may_come_without_obr() -> None:
    assert order(msh("ORM^O01"), PID, "ORC|CA|P1^RIS").status is OrderStatus.CANCELLED


@pytest.mark.parametrize(("text", "level"), [("X", None), ("", None), ("CITO", Level.URGENT), ("T", Level.URGENT)])
def test_priorities(text: str, level: Level | None) -> None:
    found = order(*swap(ORM, "^^S", f"^^{text}"), priorities={"cito": "urgent"})
    assert (found.priority, found.priority_text) == (level, text)


def test_numbers_are_kept_as_they_came_and_may_stand_in_obr_alone() -> None:
    assert order(*swap(ORM, "F1^RIS", "F\\T\\1^RIS^1.2^ISO")).filler_order_number == "F\\T\\1^RIS^1.2^ISO"
    assert order(*swap(ORM, "ORC|NW|P1^RIS|F1^RIS", "ORC|NW||")).placer_order_number == "P1^RIS"


def test_several_orders_in_one_message() -> None:
    second = "ORC|NW|P2|F2", "OBR|1|P2|F2|MRHEAD||||||||||||||ACC2|RP1"
    found = read(*ORM[:-1], *second)
    assert [event.order.accession_number for event in found if isinstance(event, OrderReceived)] == ["ACC1", "ACC2"]
    both = read(*ORM[:-1], *second, ORM[-1])
    assert [event.order.study_instance_uid for event in both if isinstance(event, OrderReceived)] == [STUDY_UID] * 2


def test_one_study_for_orders_of_two_procedures_is_refused() -> None:
    second = "ORC|NW|P2|F2", "OBR|1|P2|F2|MRHEAD||||||||||||||ACC2|RP2"
    assert "not one requested procedure" in str(refusal(*ORM[:-1], *second, ORM[-1]))


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        (swap(ORM, "OBR|1|P1^RIS", "OBR|1|P9^RIS"), "ORC-2, OBR-2"),
        ((*OMI, OMI[-1].replace(STUDY_UID, "1.2.3")), "ZDS-1, IPC-3"),
        ((*OMI, OMI[-1].replace("ACC1", "ACC2")), "IPC-1"),
        ((*OMI, "ZDS|1.2.3"), "ZDS-1, IPC-3"),
        (swap(ORM, f"ZDS|{STUDY_UID}", "ZDS|not-a-uid"), "not a UID"),
        ((*ORM, PID), "exactly one"),
        (tuple(s for s in ORM if not s.startswith("PID")), "exactly one"),
        (tuple(s for s in ORM if not s.startswith("ORC")), "without an ORC"),
        (swap(ORM, "PID7^^^HOSP^PI", ""), "PID-3"),
        (swap(ORM, "|ACC1|", "|AC\\X0A\\C1|"), "OBR-18"),
        (swap(ORM, "|ACC1|", f"|{'9' * 200}|"), "OBR-18"),
        (swap(ORM, "P1^RIS", "9" * 200), "ORC-2"),
        ((msh("ORM^O01"), PID, "ORC|NW"), "no number"),
        ((msh("ORM^O01"), PID), "without an ORC"),
        (swap(ORU, "OBR|1|", "ZZZ|1|"), "without an OBR"),
    ],
)
def test_what_contradicts_itself_or_lacks_a_key_is_refused(segments: tuple[str, ...], reason: str) -> None:
    refused = refusal(*segments)
    assert reason in str(refused)
    assert refused.code == "AE"


@pytest.mark.parametrize(
    ("first", "condition"),
    [
        (msh("SIU^S12"), 200),
        (msh("ADT^A01"), 201),
        (msh("ORM^O01", f11="T"), 202),
        (msh("ORM^O01", "3.0"), 203),
        (msh("ORM^O01", ""), 203),
    ],
)
def test_what_is_not_for_this_node_is_rejected(first: str, condition: int) -> None:
    refused = refusal(first, *ORM[1:])
    assert (refused.code, refused.condition) == ("AR", condition)


def test_the_assigning_authority_chooses_the_patient_id() -> None:
    both = swap(ORM, "PID7^^^HOSP^PI", "X1^^^OTHER^PI~PID7^^^HOSP&1.2.3&ISO^MR")
    assert order(*both, assigning_authority="HOSP").patient.patient_id == "PID7"
    assert order(*both, assigning_authority="1.2.3").patient == replace(PATIENT, issuer="1.2.3")
    assert order(*both).patient.patient_id == "X1"
    assert "assigning authority" in str(refusal(*both, assigning_authority="CITY"))


def test_an_internal_number_comes_before_an_insurance_number() -> None:
    assert order(*swap(ORM, "PID7^^^HOSP^PI", "SS1^^^GOV^SS~PID7^^^HOSP^PI")).patient == PATIENT


def test_the_site_says_where_the_accession_number_is() -> None:
    assert order(*ORM, accession_number="OBR-3.1").accession_number == "F1"
    assert order(*ORM, accession_number="ORC-2").accession_number == "P1"


def test_a_correction() -> None:
    assert read(*A08) == (PatientCorrected(Patient("PID7", "HOSP", "Muster^Anne", "19700130", "F")),)


def test_merges() -> None:
    assert read(*A40) == (PatientsMerged(PATIENT, Patient("OLD9", "HOSP")),)
    assert len(read(*A40, PID, "MRG|OLD10^^^HOSP^PI")) == 2


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        (A40[:3], "pairs"),
        ((*A40[:2], A40[3], A40[2]), "pairs"),
        ((*A40, A40[3]), "pairs"),
        (swap(A40, "OLD9^^^HOSP^PI", ""), "MRG-1"),
        (swap(A40, "OLD9", "PID7"), "into itself"),
        (swap(A40, "OLD9^^^HOSP", "PID7"), "into itself"),
    ],
)
def test_a_merge_that_is_not_clear_is_refused(segments: tuple[str, ...], reason: str) -> None:
    assert reason in str(refusal(*segments))


def test_a_final_report() -> None:
    found = report(*ORU)
    assert found.text == "No acute infarct.\nOld lacunae.\nImpression:\nnormal for age."
    assert found.final_at == 1_767_431_700
    assert (found.order.accession_number, found.order.patient, found.corrected) == ("ACC1", PATIENT, False)


@pytest.mark.parametrize("status", ["P", "R", "X", "I", "W"])
def test_what_is_not_final_changes_nothing(status: str) -> None:
    assert read(*swap(ORU, "+0100|||F", f"+0100|||{status}")) == ()
    assert read(*swap(swap(ORU, "+0100|||F", "+0100|||"), "||||||F", f"||||||{status}")) == ()


@pytest.mark.parametrize("status", ["P", "R"])
def test_a_preliminary_report_that_names_who_reads_is_a_reading_that_began(status: str) -> None:
    [found] = read(*swap(swap(ORU, "+0100|||F", f"+0100|||{status}|||||||7&Reader&Rita"), "||||||F", f"||||||{status}"))
    assert isinstance(found, ReadingBegun)
    assert (found.at, found.order) == (1_767_431_700, report(*ORU).order)


@pytest.mark.parametrize("end", ["P", "R", "P|||||||^", 'R|||||||""', "A|||||||7&Reader&Rita", "I|||||||7&Reader&Rita"])
def test_a_preliminary_report_that_may_be_a_devices_is_none(end: str) -> None:
    assert read(*swap(swap(ORU, "+0100|||F", f"+0100|||{end}"), "||||||F", "||||||P")) == ()


def test_an_examination_in_process_is_no_reading() -> None:
    [found] = read(*swap(ORM, "ORC|NW|P1^RIS|F1^RIS||SC", "ORC|SC|P1^RIS|F1^RIS||IP"))
    assert isinstance(found, OrderReceived)
    assert found.order.status is OrderStatus.IN_PROGRESS


def test_a_correction_says_so_and_only_final_rows_count() -> None:
    assert report(*swap(ORU, "+0100|||F", "+0100|||C")).corrected
    mixed = (*ORU, "OBX|3|TX|||draft||||||P", "OBX|4|ED|||PDF||||||F")
    assert report(*mixed) == report(*ORU)
    assert read(*swap(ORU, "||||||F", "||||||P")) == ()


def test_the_status_of_the_rows_alone_is_enough() -> None:
    assert report(*swap(ORU, "+0100|||F", "+0100|||")) == report(*ORU)


def test_a_report_may_name_the_study() -> None:
    named = report(*ORU, f"OBX|3|HD|113014^DICOM Study^DCM||{STUDY_UID}||||||F")
    assert named.order.study_instance_uid == STUDY_UID


def test_delimiters_that_a_reporter_forgot_to_escape_are_not_cut_off() -> None:
    assert "a^b&c" in report(*swap(ORU, "No acute infarct.", "a^b&c")).text


def test_character_sets() -> None:
    raw = lines(*ORM).decode().replace("Muster", "Müller")
    assert refusal_of(raw.encode("latin-1"), "ASCII")
    assert name_of(raw.encode("latin-1"), "8859/1") == "Müller^Anna^Maria^Dr.^jun."
    declared = raw.replace("P|2.3.1", "P|2.3.1||||||UNICODE UTF-8")
    assert name_of(declared.encode(), "8859/1") == "Müller^Anna^Maria^Dr.^jun."
    assert refusal_of(declared.encode("latin-1"), "8859/1")


def name_of(raw: bytes, character_set: str) -> str:
    (event,) = read_events(raw, Hl7Listener.model_validate({"character_set": character_set}))
    assert isinstance(event, OrderReceived)
    return event.order.patient.name


def refusal_of(raw: bytes, character_set: str) -> str:
    with pytest.raises(Refused) as raised:
        read_events(raw, Hl7Listener.model_validate({"character_set": character_set}))
    return str(raised.value)


def test_other_delimiters_mean_the_same() -> None:
    table = str.maketrans("|^~&", "!@#%")
    text = lines(*ORM).decode().translate(table).replace("\\", "$")
    assert read_events(text.encode(), Hl7Listener()) == read(*ORM)


def test_a_null_deletes_nothing() -> None:
    assert order(*swap(ORM, "ORC|NW|P1^RIS", 'ORC|NW|""')).placer_order_number == "P1^RIS"
    assert order(*swap(ORM, "19700131", '""')).patient.birth_date == ""


@given(st.sampled_from([ORM, OMI, ORU, A08, A40]), st.data())
@settings(max_examples=300)
def test_any_damage_ends_in_events_or_a_refusal(segments: tuple[str, ...], data: st.DataObject) -> None:
    raw = bytearray(lines(*segments))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 30))] = data.draw(
            st.one_of(st.binary(max_size=6), st.sampled_from([b"|", b"^", b"~", b"&", b"\\", b"\r", b"MSH|", b'""']))
        )
    ends_well(bytes(raw))


@given(st.binary(max_size=200))
def test_any_bytes_end_in_events_or_a_refusal(raw: bytes) -> None:
    ends_well(raw)
    ends_well(b"MSH|^~\\&|||||||ORM^O01|1|P|2.5.1\r" + raw)


def ends_well(raw: bytes) -> None:
    try:
        events = read_events(raw, Hl7Listener(character_set="8859/1"))
    except Refused as refused:
        events, code, words = (), refused.code, str(refused)
    else:
        code, words = "AA", ""
    assert isinstance(events, tuple)
    assert code in ("AA", "AE", "AR")
    assert words.isascii()
