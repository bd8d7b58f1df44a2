"""An order as a Modality Worklist item (PS3.4 table K.6-1). The queries are in the integration tests."""

from __future__ import annotations

import pytest

from dicom_node.base.orders import OrderStatus
from dicom_node.base.types import Level
from dicom_node.worklist.dicom.modality_worklist import item_of
from support.worklist_memory import order


def test_an_item_has_every_return_key_of_the_table() -> None:
    item = item_of(order("1"), Level.CRITICAL)
    step = item.ScheduledProcedureStepSequence[0]
    assert item.RequestedProcedurePriority == "STAT"
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == ("20260105", "083000")
    assert (step.Modality, step.ScheduledStationAETitle, step.ScheduledProcedureStepID) == ("MR", "MR1", "S1")
    assert step.ScheduledProcedureStepStatus == "SCHEDULED"
    assert item.RequestedProcedureCodeSequence[0].CodeValue == "MRHEAD"
    of_step = {
        *["ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime", "Modality"],
        *["ScheduledPerformingPhysicianName", "ScheduledProcedureStepDescription", "ScheduledStationName"],
        *["ScheduledProcedureStepLocation", "ScheduledProtocolCodeSequence", "ScheduledProcedureStepID"],
    }
    of_item = {
        *[
            "RequestedProcedureID",
            "RequestedProcedureDescription",
            "RequestedProcedureCodeSequence",
            "StudyInstanceUID",
        ],
        *["ReferencedStudySequence", "RequestedProcedurePriority", "PatientTransportArrangements", "AccessionNumber"],
        *["RequestingPhysician", "ReferringPhysicianName", "AdmissionID", "CurrentPatientLocation", "PatientName"],
        *["ReferencedPatientSequence", "PatientID", "PatientBirthDate", "PatientSex", "PatientWeight", "PatientState"],
        *["ConfidentialityConstraintOnPatientDataDescription", "PregnancyStatus", "MedicalAlerts", "Allergies"],
        *["SpecialNeeds", "ScheduledProcedureStepSequence"],
    }
    assert of_step <= {element.keyword for element in step}
    assert of_item <= {element.keyword for element in item}


@pytest.mark.parametrize(
    ("level", "ordered", "expected"),
    [
        (Level.CRITICAL, None, "STAT"),
        (Level.URGENT, None, "HIGH"),
        (Level.ELEVATED, None, "HIGH"),
        (Level.ROUTINE, Level.CRITICAL, "ROUTINE"),
        (None, Level.URGENT, "HIGH"),
        (None, None, ""),
    ],
)
def test_the_priority_is_ours_or_the_orders(level: Level | None, ordered: Level | None, expected: str) -> None:
    assert item_of(order("1", priority=ordered), level).RequestedProcedurePriority == expected


def test_a_started_order_says_so() -> None:
    step = item_of(order("1", status=OrderStatus.IN_PROGRESS), None).ScheduledProcedureStepSequence[0]
    assert step.ScheduledProcedureStepStatus == "STARTED"


def test_a_long_code_and_one_without_a_scheme() -> None:
    (code,) = item_of(order("1", code_value="X" * 17), None).RequestedProcedureCodeSequence
    assert (code.LongCodeValue, "CodeValue" in code) == ("X" * 17, False)
    assert len(item_of(order("1", code_scheme=""), None).RequestedProcedureCodeSequence) == 0


def test_an_offset_of_the_scheduled_moment_is_not_part_of_its_time() -> None:
    step = item_of(order("1", scheduled_at="20260105083000-0500"), None).ScheduledProcedureStepSequence[0]
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == ("20260105", "083000")


def test_a_text_that_its_vr_cannot_hold_is_left_out_and_the_item_stays() -> None:
    item = item_of(order("1", modality="МР", station_ae="РЕНТГЕН", birth_date="١٩٧٠٠١٠١"), None)
    [step] = item.ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledStationAETitle, item.PatientBirthDate) == ("", "", "")
    assert item.AccessionNumber == "A1"
