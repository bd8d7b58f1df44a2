"""UPS events: which ones a change brings about (PS3.4 section CC.2.4.3), and sending one to a subscriber."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import build_role

from dicom_node.base.errors import PeerRefused, PeerUnreachable
from dicom_node.base.requestor import associated
from dicom_node.base.ups_settings import Subscriber
from dicom_node.base.workitems import EventType, UpsEvent, Workitem
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom.dataset import is_empty, text_of
from dicom_node.worklist.dicom.statuses import TRANSFER_SYNTAXES, judge
from dicom_node.worklist.dicom.workitem import UPS_PUSH, attributes_of

UPS_EVENT = "1.2.840.10008.5.1.4.34.6.4"
GLOBAL_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5"
CANCEL_REASONS = (
    "ReasonForCancellation",
    "ProcedureStepDiscontinuationReasonCodeSequence",
    "ContactURI",
    "ContactDisplayName",
)


class EventRefused(PeerRefused):
    """The subscriber took the association but not this event: the next one may fare better."""


def events_of(old: Workitem | None, new: Workitem) -> list[UpsEvent]:
    """What subscribers are told when `old` (None: just created) became `new`."""
    before, after = (attributes_of(old) if old else Dataset()), attributes_of(new)
    events = []
    if _differs(before, after, ("ProcedureStepState", "InputReadinessState")):
        events.append(state_report(new))
    people = ("ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence")
    populated = any(not is_empty(after.get(Tag(keyword))) for keyword in people)
    if _differs(before, after, people) and (populated or old is not None):
        events.append(_event(new, EventType.ASSIGNED, _assigned(after)))
    progress = "ProcedureStepProgressInformationSequence"
    if _differs(_progress(before), _progress(after), (progress,)):
        events.append(_event(new, EventType.PROGRESS_REPORT, _some(after, (progress,))))
    return events


def state_report(workitem: Workitem) -> UpsEvent:
    """UPS State Report: state and readiness as they are now, and why a canceled one was."""
    attributes = attributes_of(workitem)
    information = _some(attributes, ("ProcedureStepState", "InputReadinessState"))
    for item in attributes.get("ProcedureStepProgressInformationSequence") or []:
        information.update(_some(item, CANCEL_REASONS[:2]))
    return _event(workitem, EventType.STATE_REPORT, information)


def cancel_requested(workitem: Workitem, requesting_ae: str, action_information: Dataset) -> UpsEvent:
    """UPS Cancel Requested: who asks, and what reasons and contact the request gave."""
    information = _some(action_information, CANCEL_REASONS)
    information.RequestingAE = requesting_ae
    return _event(workitem, EventType.CANCEL_REQUESTED, information)


def provider_status(going_down: bool) -> UpsEvent:
    """SCP Status Change at start and stop; subscriptions and work items outlive both. Give it a receiver."""
    information = Dataset()
    information.SCPStatus = "GOING DOWN" if going_down else "RESTARTED"
    information.SubscriptionListStatus = information.UnifiedProcedureStepListStatus = "WARM START"
    return UpsEvent(GLOBAL_SUBSCRIPTION, EventType.SCP_STATUS_CHANGE, data_sets.write(information))


def send_event(event: UpsEvent, subscriber: Subscriber, calling_ae: str) -> None:
    """One N-EVENT-REPORT on an association of its own, as the SCP of UPS Event. Returns once the subscriber has it.

    Raises PeerUnreachable or PeerBusy (try again), EventRefused, PeerRefused (a person is needed).
    """
    role = build_role(UPS_EVENT, scp_role=True)
    with associated(subscriber, calling_ae, [(UPS_EVENT, TRANSFER_SYNTAXES)], [role]) as association:
        try:
            status, _ = association.send_n_event_report(
                data_sets.for_answer(data_sets.read(event.information)),
                event.type,
                UPS_PUSH,
                event.sop_instance_uid,
                meta_uid=UPS_EVENT,
            )
        except ValueError as error:
            raise PeerRefused("the peer does not accept UPS events") from error
        except RuntimeError as error:
            raise PeerUnreachable("the peer ended the association before it was told") from error
        try:
            judge(status, "N-EVENT-REPORT")
        except PeerRefused as error:
            raise EventRefused(str(error)) from error


def _event(workitem: Workitem, kind: EventType, information: Dataset) -> UpsEvent:
    return UpsEvent(workitem.sop_instance_uid, kind, data_sets.write(information))


def _differs(before: Dataset, after: Dataset, keywords: Iterable[str]) -> bool:
    return _some(before, keywords) != _some(after, keywords)


def _some(attributes: Dataset, keywords: Iterable[str]) -> Dataset:
    chosen = Dataset()
    for keyword in keywords:
        if not is_empty(attributes.get(Tag(keyword))):
            chosen.add(attributes[keyword])
    return chosen


def _progress(attributes: Dataset) -> Dataset:
    """The progress information as far as a change of it is reported."""
    reported = ("ProcedureStepProgress", "ProcedureStepProgressDescription", "ProcedureStepCommunicationsURISequence")
    items = [_some(item, reported) for item in attributes.get("ProcedureStepProgressInformationSequence") or []]
    progress = Dataset()
    progress.ProcedureStepProgressInformationSequence = [item for item in items if item]
    return progress


def _assigned(attributes: Dataset) -> Dataset:
    information = _some(attributes, ("ScheduledStationNameCodeSequence",))
    performers = attributes.get("ScheduledHumanPerformersSequence") or []
    codes = [code for performer in performers for code in performer.get("HumanPerformerCodeSequence") or []]
    if codes:
        information.HumanPerformerCodeSequence = codes
        information.HumanPerformerOrganization = text_of(performers[0], "HumanPerformerOrganization")
    return information
