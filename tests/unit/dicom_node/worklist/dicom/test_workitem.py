"""Table CC.2.5-3: what N-CREATE, N-SET and N-GET may do to a work item, and its final states."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.base.workitems import UpsState, Workitem
from dicom_node.worklist.dicom import workitem as workitems
from dicom_node.worklist.dicom.answering import Refusal
from dicom_node.worklist.dicom.dataset import plain
from support.worklist_steps import code, performed, scheduled

UID, NOW, LATER = "1.2.840.1", "20260105080000", "20260105090000"


def item(**changes: object) -> Workitem:
    return workitems.created(UID, plain(scheduled(**changes)), NOW)[0]


def modification(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return plain(dataset)


def test_a_created_work_item_has_every_attribute_it_must_have() -> None:
    workitem, added = workitems.created(UID, plain(scheduled()), NOW)
    attributes = workitems.attributes_of(workitem)
    assert (workitem.state, workitem.priority, workitem.transaction_uid, workitem.version) == (
        "SCHEDULED",
        "LOW",
        "",
        1,
    )
    assert attributes.SOPClassUID == workitems.UPS_PUSH
    assert attributes.SOPInstanceUID == UID
    assert attributes.ScheduledProcedureStepModificationDateTime == NOW
    assert "TransactionUID" not in attributes
    assert set(workitems.CREATE_EMPTY) <= {element.keyword for element in attributes}
    assert "PatientSex" in added
    assert "PatientID" not in added


def test_a_worklist_label_is_filled_in() -> None:
    workitem, added = workitems.created(UID, plain(scheduled(WorklistLabel="")), NOW)
    assert workitems.attributes_of(workitem).WorklistLabel == added.WorklistLabel == workitems.DEFAULT_WORKLIST_LABEL


@pytest.mark.parametrize("keyword", [*workitems.CREATE_WITH_VALUE, "ProcedureStepState"])
def test_type_1_must_be_there(keyword: str) -> None:
    attributes = scheduled()
    delattr(attributes, keyword)
    with pytest.raises(Refusal, match=keyword) as refused:
        workitems.created(UID, plain(attributes), NOW)
    assert refused.value.status == 0x0120
    assert refused.value.tags == (Tag(keyword),)


@pytest.mark.parametrize("keyword", workitems.CREATE_WITH_VALUE)
def test_type_1_must_have_a_value(keyword: str) -> None:
    with pytest.raises(Refusal, match=keyword) as refused:
        item(**{keyword: ""})
    assert refused.value.status == 0x0121


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, 0xC309),
        ({"ProcedureStepState": ""}, 0xC309),
        ({"TransactionUID": "1.2.3"}, 0x0106),
        ({"ScheduledProcedureStepPriority": "STAT"}, 0x0106),
        ({"InputReadinessState": "MAYBE"}, 0x0106),
        ({"SOPInstanceUID": "1.2.9"}, 0x0106),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.34.6.3"}, 0x0106),
        ({"ProcedureStepProgressInformationSequence": [scheduled()]}, 0x0106),
        ({"UnifiedProcedureStepPerformedProcedureSequence": [Dataset(), scheduled()]}, 0x0106),
        ({"ReferencedRequestSequence": [Dataset()]}, 0x0120),
        ({"ScheduledHumanPerformersSequence": [Dataset()]}, 0x0120),
    ],
)
def test_what_cannot_be_created(changes: dict[str, object], status: int) -> None:
    with pytest.raises(Refusal) as refused:
        item(**changes)
    assert refused.value.status == status


def test_a_set_replaces_attributes_and_counts() -> None:
    before = item()
    after = workitems.with_set(before, modification(ScheduledProcedureStepPriority="HIGH"), LATER)
    assert (after.priority, after.version, after.state) == ("HIGH", 2, UpsState.SCHEDULED)
    assert workitems.attributes_of(after).ScheduledProcedureStepModificationDateTime == LATER
    assert workitems.attributes_of(after).PatientID == "ID1"
    assert before.priority == "LOW"


def test_a_set_in_another_character_set_keeps_all_text() -> None:
    before = item(PatientName="Müller", SpecificCharacterSet="ISO_IR 100")
    changes = modification(SpecificCharacterSet="ISO_IR 144", ProcedureStepLabel="Срочно")
    attributes = workitems.attributes_of(workitems.with_set(before, changes, LATER))
    assert (str(attributes.PatientName), attributes.ProcedureStepLabel) == ("Müller", "Срочно")


@pytest.mark.parametrize("keyword", [word for word in workitems.SET_NEVER if not word.endswith("Sequence")])
def test_what_a_set_may_never_change(keyword: str) -> None:
    value = "COMPLETED" if keyword == "ProcedureStepState" else "19700101" if "Date" in keyword else "1.2"
    with pytest.raises(Refusal, match=keyword) as refused:
        workitems.with_set(item(), modification(ProcedureStepLabel="x", **{keyword: value}), LATER)
    assert refused.value.status == 0x0105


@pytest.mark.parametrize("keyword", [word for word in workitems.SET_NEVER if word.endswith("Sequence")])
def test_sequences_that_a_set_may_never_change(keyword: str) -> None:
    with pytest.raises(Refusal, match=keyword):
        workitems.with_set(item(), modification(**{keyword: []}), LATER)


def test_a_set_does_not_schedule() -> None:
    with pytest.raises(Refusal) as refused:
        workitems.with_set(item(), modification(ProcedureStepState="SCHEDULED"), LATER)
    assert refused.value.status == 0xC303


@pytest.mark.parametrize("keyword", workitems.SET_WITH_VALUE)
def test_what_a_set_may_not_empty(keyword: str) -> None:
    with pytest.raises(Refusal, match=keyword) as refused:
        workitems.with_set(item(), modification(**{keyword: [] if keyword.endswith("Sequence") else ""}), LATER)
    assert refused.value.status == 0x0121


def test_completed_needs_what_was_performed() -> None:
    claimed = workitems.with_state(item(), UpsState.IN_PROGRESS, "1.2.3.4", NOW)
    assert not workitems.final_state_met(claimed, UpsState.COMPLETED)
    done = workitems.with_set(claimed, plain(performed()), LATER)
    assert workitems.final_state_met(done, UpsState.COMPLETED)


@pytest.mark.parametrize("keyword", [*workitems.PERFORMED_WITH_VALUE, "OutputInformationSequence"])
def test_each_requirement_of_completed(keyword: str) -> None:
    changes = performed()
    delattr(changes.UnifiedProcedureStepPerformedProcedureSequence[0], keyword)
    assert not workitems.final_state_met(workitems.with_set(item(), plain(changes), LATER), UpsState.COMPLETED)


@pytest.mark.parametrize("state", [UpsState.COMPLETED, UpsState.CANCELED])
@pytest.mark.parametrize("keyword", workitems.FINAL_WITH_VALUE)
def test_each_requirement_of_both_final_states(keyword: str, state: UpsState) -> None:
    done = workitems.with_set(item(), plain(performed()), LATER)
    attributes = workitems.attributes_of(done)
    delattr(attributes, keyword)
    assert not workitems.final_state_met(Workitem(UID, done.state, "", workitems.data_sets.write(attributes)), state)


def test_canceled_says_when_and_why() -> None:
    claimed = workitems.with_state(item(), UpsState.IN_PROGRESS, "1.2.3.4", NOW)
    assert workitems.final_state_met(claimed, UpsState.CANCELED)
    canceled = workitems.attributes_of(workitems.with_state(claimed, UpsState.CANCELED, "1.2.3.4", LATER))
    (progress,) = canceled.ProcedureStepProgressInformationSequence
    assert progress.ProcedureStepCancellationDateTime == LATER
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
    assert set(workitems.CANCELED_WITH_VALUE) <= {element.keyword for element in progress}


def test_a_performers_own_reason_stays() -> None:
    reason = Dataset()
    reason.ProcedureStepDiscontinuationReasonCodeSequence = [code("110514", "DCM", "Incorrect worklist entry selected")]
    changed = workitems.with_set(item(), modification(ProcedureStepProgressInformationSequence=[reason]), LATER)
    canceled = workitems.attributes_of(workitems.with_state(changed, UpsState.CANCELED, "1.2.3.4", LATER))
    (progress,) = canceled.ProcedureStepProgressInformationSequence
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110514"


def test_a_get_gives_what_is_asked_and_never_the_lock() -> None:
    claimed = workitems.with_state(item(), UpsState.IN_PROGRESS, "1.2.3.4", NOW)
    chosen, complete = workitems.selected(claimed, [Tag("PatientID"), Tag("ProcedureStepState")])
    assert ({element.keyword for element in chosen}, complete) == ({"PatientID", "ProcedureStepState"}, True)
    chosen, complete = workitems.selected(claimed, [Tag("TransactionUID"), Tag("PatientID")])
    assert ({element.keyword for element in chosen}, complete) == ({"PatientID"}, False)
    assert b"1.2.3.4" not in claimed.encoded
    everything, complete = workitems.selected(claimed, [])
    assert complete
    assert everything.PatientID == "ID1"
