"""A Unified Procedure Step as it is kept, and what each service may put into it: PS3.4 table CC.2.5-3. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import generate_uid

from dicom_node.base.workitems import UpsState, Workitem
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom.answering import INVALID_ATTRIBUTE_VALUE, Refusal
from dicom_node.worklist.dicom.dataset import is_empty, merged, text_of
from dicom_node.worklist.dicom.levels import UPS_PRIORITIES
from dicom_node.worklist.dicom.ups_states import (
    NOT_CREATED_SCHEDULED,
    ONLY_CREATED_SCHEDULED,
    WORDS,
    Step,
)

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
NO_SUCH_ATTRIBUTE = 0x0105
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
DEFAULT_WORKLIST_LABEL = "Worklist"

ENUMERATIONS = {
    "ScheduledProcedureStepPriority": UPS_PRIORITIES,
    "InputReadinessState": ("INCOMPLETE", "UNAVAILABLE", "READY"),
}
#: N-CREATE type 1: there and with a value.
CREATE_WITH_VALUE = (
    "ScheduledProcedureStepPriority",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "InputReadinessState",
)
#: N-CREATE type 2, and 1C where the provider is at 2: created empty when not provided.
CREATE_EMPTY = (
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledWorkitemCodeSequence",
    "CommentsOnTheScheduledProcedureStep",
    "InputInformationSequence",
    "StudyInstanceUID",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
#: "Shall be empty" at N-CREATE.
CREATE_WITHOUT_VALUE = (
    "TransactionUID",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
#: Type 1 inside the items of a sequence, at N-CREATE and N-SET.
ITEMS_WITH_VALUE = {
    "ReferencedRequestSequence": ("StudyInstanceUID",),
    "ScheduledHumanPerformersSequence": (
        "HumanPerformerCodeSequence",
        "HumanPerformerName",
        "HumanPerformerOrganization",
    ),
    "OtherPatientIDsSequence": ("PatientID",),
    "ReplacedProcedureStepSequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
}
#: N-SET "not allowed", and what only the provider writes.
SET_NEVER = (
    "SOPClassUID",
    "SOPInstanceUID",
    "ScheduledProcedureStepModificationDateTime",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence",
    "ReplacedProcedureStepSequence",
    "ProcedureStepState",
)
#: N-SET 3/1: not needed, but never without a value.
SET_WITH_VALUE = (
    *CREATE_WITH_VALUE,
    "WorklistLabel",
    "ExpectedCompletionDateTime",
    "ScheduledWorkitemCodeSequence",
    "CommentsOnTheScheduledProcedureStep",
)
#: Final State R (CC.2.5.1.1): before either final state.
FINAL_WITH_VALUE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "ScheduledProcedureStepPriority",
    "ScheduledProcedureStepModificationDateTime",
    "ScheduledProcedureStepStartDateTime",
    "InputReadinessState",
    "ProcedureStepState",
)
#: Final State P inside the performed procedure: before COMPLETED. The output may have no items.
PERFORMED_WITH_VALUE = (
    "PerformedStationNameCodeSequence",
    "PerformedProcedureStepStartDateTime",
    "PerformedWorkitemCodeSequence",
    "PerformedProcedureStepEndDateTime",
)
#: Final State X inside the progress information: before CANCELED.
CANCELED_WITH_VALUE = ("ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence")
NEVER_RETURNED = frozenset({Tag("TransactionUID")})


def local_now() -> str:
    """This moment as DICOM's DT, with the offset from UTC."""
    return datetime.now().astimezone().strftime("%Y%m%d%H%M%S.%f%z")


def attributes_of(workitem: Workitem) -> Dataset:
    """The work item's data set, plain."""
    return data_sets.read(workitem.encoded)


def step_of(workitem: Workitem) -> Step:
    """What the state table looks at."""
    return Step(workitem.state, workitem.transaction_uid)


def created(sop_instance_uid: str, attributes: Dataset, now: str) -> tuple[Workitem, Dataset]:
    """The work item that an N-CREATE makes, and the attributes that were changed or added beside those it must add.

    attributes: plain. now: DICOM DT. Raises Refusal where table CC.2.5-3 does not allow it.
    """
    _require(attributes, ("ProcedureStepState",), MISSING_ATTRIBUTE)
    if text_of(attributes, "ProcedureStepState") != UpsState.SCHEDULED:
        raise Refusal(NOT_CREATED_SCHEDULED, WORDS[NOT_CREATED_SCHEDULED], Tag("ProcedureStepState"))
    _require(attributes, CREATE_WITH_VALUE, MISSING_ATTRIBUTE)
    _require_values(attributes, CREATE_WITH_VALUE)
    _forbid(attributes, CREATE_WITHOUT_VALUE, "must be empty")
    _check_values(attributes)
    if text_of(attributes, "SOPInstanceUID") not in ("", sop_instance_uid):
        raise _invalid("SOPInstanceUID", "is not the Affected SOP Instance UID")
    if text_of(attributes, "SOPClassUID") not in ("", UPS_PUSH):
        raise _invalid("SOPClassUID", "is not UPS Push")
    added = Dataset()
    for keyword in CREATE_EMPTY:
        if keyword not in attributes:
            setattr(added, keyword, [] if keyword.endswith("Sequence") else "")
    if not text_of(attributes, "WorklistLabel"):
        added.WorklistLabel = DEFAULT_WORKLIST_LABEL
    complete = merged(attributes, added)
    complete.SOPClassUID, complete.SOPInstanceUID = UPS_PUSH, sop_instance_uid
    return _stored(Workitem(sop_instance_uid, UpsState.SCHEDULED, "", b"", version=0), complete, now), added


def with_set(workitem: Workitem, modifications: Dataset, now: str) -> Workitem:
    """The work item after an N-SET that the state table allowed. Raises Refusal; it is set whole or not at all."""
    if text_of(modifications, "ProcedureStepState") == UpsState.SCHEDULED:
        raise Refusal(ONLY_CREATED_SCHEDULED, WORDS[ONLY_CREATED_SCHEDULED], Tag("ProcedureStepState"))
    never = [keyword for keyword in SET_NEVER if keyword in modifications]
    if never:
        raise Refusal(NO_SUCH_ATTRIBUTE, f"{never[0]} is not allowed in N-SET", *map(Tag, never))
    study, said = workitem.study_instance_uid, text_of(modifications, "StudyInstanceUID")
    if study is not None and "StudyInstanceUID" in modifications and said != study:
        raise _invalid("StudyInstanceUID", "of the node's own UPS stays what it is")
    _require_values(modifications, [keyword for keyword in SET_WITH_VALUE if keyword in modifications])
    _check_values(modifications)
    return _stored(workitem, merged(attributes_of(workitem), modifications), now)


def with_state(workitem: Workitem, state: UpsState, transaction_uid: str, now: str) -> Workitem:
    """The work item in a state that the table allowed; what the provider must fill in before is filled in."""
    attributes = attributes_of(workitem)
    if state is UpsState.CANCELED:
        _fill_cancellation(attributes, now)
    attributes.ProcedureStepState = str(state)
    return _stored(replace(workitem, state=state, transaction_uid=transaction_uid), attributes, now)


def overwritten(workitem: Workitem, attributes: Dataset, now: str) -> Workitem:
    """The work item with attributes that the node itself corrects, which N-SET may not."""
    return _stored(workitem, merged(attributes_of(workitem), attributes), now)


def canceled(workitem: Workitem, information: Dataset, now: str) -> tuple[Workitem, Workitem]:
    """A SCHEDULED work item on its way through IN PROGRESS to CANCELED (CC.2.2.3): how it passes there, and its end."""
    claimed = with_state(workitem, UpsState.IN_PROGRESS, generate_uid(), now)
    reasoned = with_cancel_reasons(claimed, information)
    return claimed, with_state(reasoned, UpsState.CANCELED, claimed.transaction_uid, now)


def with_cancel_reasons(workitem: Workitem, information: Dataset) -> Workitem:
    """The work item with what a cancel request said, for one that nobody had begun (CC.2.2.3)."""
    given = Dataset()
    for keyword in ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence"):
        if not is_empty(information.get(Tag(keyword))):
            given.add(information[keyword])
    if not given:
        return workitem
    attributes = attributes_of(workitem)
    attributes.ProcedureStepProgressInformationSequence = [given]
    return replace(workitem, encoded=data_sets.write(attributes))


def final_state_met(workitem: Workitem, state: UpsState) -> bool:
    """Whether the work item may take a final state (CC.2.5.1.1). "If known" (RC) cannot be judged from outside.

    For CANCELED the provider fills in when, and why where nobody said so: it is then met.
    """
    attributes = attributes_of(workitem)
    if any(is_empty(attributes.get(Tag(keyword))) for keyword in FINAL_WITH_VALUE):
        return False
    if state is not UpsState.COMPLETED:
        return True
    performed = attributes.get("UnifiedProcedureStepPerformedProcedureSequence")
    return bool(performed) and all(
        "OutputInformationSequence" in item and not any(is_empty(item.get(Tag(word))) for word in PERFORMED_WITH_VALUE)
        for item in performed
    )


def selected(workitem: Workitem, tags: Iterable[BaseTag]) -> tuple[Dataset, bool]:
    """What an N-GET gets, and whether it got all it asked for; all attributes when it names none. Never the lock."""
    attributes, wanted = attributes_of(workitem), [Tag(tag) for tag in tags]
    if not wanted:
        return attributes, True
    chosen = Dataset()
    for tag in wanted:
        if tag in attributes and tag not in NEVER_RETURNED:
            chosen.add(attributes[tag])
    missing = [tag for tag in wanted if tag not in chosen and tag != data_sets.CHARACTER_SET]
    return chosen, not missing


def _stored(workitem: Workitem, attributes: Dataset, now: str) -> Workitem:
    attributes.ScheduledProcedureStepModificationDateTime = now
    attributes.pop("TransactionUID", None)
    return replace(
        workitem,
        priority=text_of(attributes, "ScheduledProcedureStepPriority"),
        encoded=data_sets.write(attributes),
        version=workitem.version + 1,
    )


def _fill_cancellation(attributes: Dataset, now: str) -> None:
    items = attributes.get("ProcedureStepProgressInformationSequence") or [Dataset()]
    for item in items:
        if is_empty(item.get(Tag("ProcedureStepCancellationDateTime"))):
            item.ProcedureStepCancellationDateTime = now
        if is_empty(item.get(Tag("ProcedureStepDiscontinuationReasonCodeSequence"))):
            reason = Dataset()
            reason.CodeValue, reason.CodingSchemeDesignator = "110513", "DCM"  # PS3.16 CID 9300
            reason.CodeMeaning = "Discontinued for unspecified reason"
            item.ProcedureStepDiscontinuationReasonCodeSequence = [reason]
    attributes.ProcedureStepProgressInformationSequence = list(items)


def _check_values(attributes: Dataset) -> None:
    for keyword, allowed in ENUMERATIONS.items():
        if keyword in attributes and text_of(attributes, keyword) not in allowed:
            raise _invalid(keyword, "is none of its enumerated values")
    for keyword, required in ITEMS_WITH_VALUE.items():
        for item in attributes.get(keyword) or []:
            _require(item, required, MISSING_ATTRIBUTE)
            _require_values(item, required)


def _require(attributes: Dataset, keywords: Iterable[str], status: int) -> None:
    missing = [keyword for keyword in keywords if keyword not in attributes]
    if missing:
        raise Refusal(status, f"{missing[0]} is missing", *map(Tag, missing))


def _require_values(attributes: Dataset, keywords: Iterable[str]) -> None:
    empty = [keyword for keyword in keywords if is_empty(attributes.get(Tag(keyword)))]
    if empty:
        raise Refusal(MISSING_ATTRIBUTE_VALUE, f"{empty[0]} has no value", *map(Tag, empty))


def _forbid(attributes: Dataset, keywords: Iterable[str], reason: str) -> None:
    for keyword in keywords:
        if not is_empty(attributes.get(Tag(keyword))):
            raise _invalid(keyword, reason)


def _invalid(keyword: str, reason: str) -> Refusal:
    return Refusal(INVALID_ATTRIBUTE_VALUE, f"{keyword} {reason}", Tag(keyword))
