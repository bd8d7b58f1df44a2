"""Which events a change brings about (PS3.4 section CC.2.4.3), and what they say."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.base.workitems import EventType, UpsEvent, UpsState, Workitem
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom import ups_events
from dicom_node.worklist.dicom import workitem as workitems
from dicom_node.worklist.dicom.dataset import plain
from dicom_node.worklist.dicom.ups_events import events_of
from support.worklist_steps import code, progress, scheduled

NOW = "20260105080000"


def item(**changes: object) -> Workitem:
    return workitems.created("1.2.9", plain(scheduled(**changes)), NOW)[0]


def with_set(workitem: Workitem, **values: object) -> Workitem:
    modification = Dataset()
    for keyword, value in values.items():
        setattr(modification, keyword, value)
    return workitems.with_set(workitem, plain(modification), NOW)


def kinds(events: list[UpsEvent]) -> list[EventType]:
    return [event.type for event in events]


def information(event: UpsEvent) -> Dataset:
    return data_sets.read(event.information)


def performers() -> list[Dataset]:
    performer = Dataset()
    performer.HumanPerformerCodeSequence = [code("R1", "99TEST", "Reader 1")]
    performer.HumanPerformerName, performer.HumanPerformerOrganization = "Reader^One", "Radiology"
    return [performer]


def test_a_new_work_item_is_reported_with_state_and_readiness() -> None:
    (event,) = events_of(None, item())
    said = information(event)
    assert (event.type, said.ProcedureStepState, said.InputReadinessState) == (1, "SCHEDULED", "READY")
    assert {element.keyword for element in said} == {
        "SpecificCharacterSet",
        "ProcedureStepState",
        "InputReadinessState",
    }


def test_a_new_work_item_with_a_performer_is_assigned_too() -> None:
    events = events_of(None, item(ScheduledHumanPerformersSequence=performers()))
    assert kinds(events) == [EventType.STATE_REPORT, EventType.ASSIGNED]
    said = information(events[1])
    assert said.HumanPerformerCodeSequence[0].CodeValue == "R1"
    assert said.HumanPerformerOrganization == "Radiology"


def test_a_changed_priority_is_no_event() -> None:
    before = item()
    assert events_of(before, with_set(before, ScheduledProcedureStepPriority="HIGH")) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"InputReadinessState": "INCOMPLETE"}, EventType.STATE_REPORT),
        ({"ScheduledStationNameCodeSequence": [code("ST1", "99TEST", "Station 1")]}, EventType.ASSIGNED),
        ({"ScheduledHumanPerformersSequence": performers()}, EventType.ASSIGNED),
    ],
)
def test_what_a_set_reports(values: dict[str, object], expected: EventType) -> None:
    before = item()
    after = with_set(before, **values)
    assert kinds(events_of(before, after)) == [expected]
    assert events_of(after, after) == []


def test_progress_is_reported_once_for_each_change_of_it() -> None:
    before = item()
    half = workitems.with_set(before, plain(progress("50")), NOW)
    (event,) = events_of(before, half)
    assert event.type is EventType.PROGRESS_REPORT
    assert information(event).ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 50
    assert events_of(half, workitems.with_set(half, plain(progress("50")), NOW)) == []


def test_a_state_change_is_reported_with_the_reason_of_a_cancel() -> None:
    claimed = workitems.with_state(item(), UpsState.IN_PROGRESS, "1.2", NOW)
    canceled = workitems.with_state(claimed, UpsState.CANCELED, "1.2", NOW)
    (event,) = events_of(claimed, canceled)
    said = information(event)
    assert said.ProcedureStepState == "CANCELED"
    assert said.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"


def test_a_cancel_request_says_who_and_why() -> None:
    action = Dataset()
    action.ReasonForCancellation, action.ContactDisplayName, action.PatientID = "wrong patient", "Ward 3", "1"
    event = ups_events.cancel_requested(item(), "RIS", plain(action))
    said = information(event)
    assert (event.type, said.RequestingAE, said.ReasonForCancellation) == (2, "RIS", "wrong patient")
    assert said.ContactDisplayName == "Ward 3"
    assert "PatientID" not in said


@pytest.mark.parametrize(("going_down", "word"), [(True, "GOING DOWN"), (False, "RESTARTED")])
def test_the_providers_own_status(going_down: bool, word: str) -> None:
    event = ups_events.provider_status(going_down).to("WATCHER")
    said = information(event)
    assert (event.type, event.receiver, said.SCPStatus) == (4, "WATCHER", word)
    assert said.SubscriptionListStatus == said.UnifiedProcedureStepListStatus == "WARM START"
