"""An order as a Modality Worklist item (PS3.4 table K.6-1). The queries are in the integration tests."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.base.orders import OrderStatus, RankedOrder
from dicom_node.base.types import Level
from dicom_node.worklist.dicom.modality_worklist import item_of
from support.worklist_memory import order

UNTRAINED = "untrained model, not for clinical use"


def item(number: str = "1", level: Level | None = None, marking: str = "", **changes: object) -> Dataset:
    return item_of(RankedOrder(order(number, **changes), level, marking))


def test_an_item_has_every_return_key_of_the_table() -> None:
    made = item(level=Level.CRITICAL)
    step = made.ScheduledProcedureStepSequence[0]
    assert made.RequestedProcedurePriority == "STAT"
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == ("20260105", "083000")
    assert (step.Modality, step.ScheduledStationAETitle, step.ScheduledProcedureStepID) == ("MR", "MR1", "S1")
    assert step.ScheduledProcedureStepStatus == "SCHEDULED"
    assert made.RequestedProcedureCodeSequence[0].CodeValue == "MRHEAD"
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
    assert of_item <= {element.keyword for element in made}


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (Level.CRITICAL, "STAT"),
        (Level.URGENT, "HIGH"),
        (Level.ELEVATED, "HIGH"),
        (Level.ROUTINE, "ROUTINE"),
        (None, ""),
    ],
)
def test_the_priority_in_dicoms_words(level: Level | None, expected: str) -> None:
    assert item(level=level).RequestedProcedurePriority == expected


def test_the_comments_say_which_model_raised_the_priority_only_where_it_is_not_clinical() -> None:
    made = item(level=Level.URGENT, marking=UNTRAINED)
    assert made.RequestedProcedureComments == "Priority given by untrained model, not for clinical use"
    assert made.RequestedProcedurePriority == "HIGH"
    assert item(level=Level.URGENT).RequestedProcedureComments == ""


def test_a_started_order_says_so() -> None:
    step = item(status=OrderStatus.IN_PROGRESS).ScheduledProcedureStepSequence[0]
    assert step.ScheduledProcedureStepStatus == "STARTED"


def test_a_long_code_and_one_without_a_scheme() -> None:
    (code,) = item(code_value="X" * 17).RequestedProcedureCodeSequence
    assert (code.LongCodeValue, "CodeValue" in code) == ("X" * 17, False)
    assert len(item(code_scheme="").RequestedProcedureCodeSequence) == 0


def test_an_offset_of_the_scheduled_moment_is_not_part_of_its_time() -> None:
    step = item(scheduled_at="20260105083000-0500").ScheduledProcedureStepSequence[0]
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == ("20260105", "083000")


def test_a_text_that_its_vr_cannot_hold_is_left_out_and_the_item_stays() -> None:
    made = item(modality="МР", station_ae="РЕНТГЕН", birth_date="١٩٧٠٠١٠١")
    [step] = made.ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledStationAETitle, made.PatientBirthDate) == ("", "", "")
    assert made.AccessionNumber == "A1"
