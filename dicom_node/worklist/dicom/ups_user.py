"""UPS SCU (PS3.4 annex CC): tell a worklist manager a reading priority, at the step it has or at one we create.

A priority is never lowered, a step that somebody performs is never touched, and a step that may be another patient's is
never moved. The same change told again ends in the same place.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pynetdicom.association import Association

from dicom_node.base.errors import PeerRefused, PeerUnreachable, PermanentError
from dicom_node.base.orders import Order, Patient, PriorityChange
from dicom_node.base.requestor import associated
from dicom_node.base.types import Level
from dicom_node.base.ups_settings import UpsSettings
from dicom_node.base.workitems import UpsState
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom.answering import PENDING, PENDING_WITHOUT_SOME_KEYS
from dicom_node.worklist.dicom.dataset import text_of
from dicom_node.worklist.dicom.levels import UPS_PRIORITIES, lower
from dicom_node.worklist.dicom.modality_worklist import code_items
from dicom_node.worklist.dicom.statuses import BUSY, TRANSFER_SYNTAXES, UNABLE_TO_PROCESS, judge
from dicom_node.worklist.dicom.ups_provider import UPS_PULL
from dicom_node.worklist.dicom.ups_states import (
    ALREADY_IN_PROGRESS,
    DUPLICATE_SOP_INSTANCE,
    FINAL,
    NO_LONGER_UPDATED,
    NOT_IN_PROGRESS,
    WRONG_TRANSACTION_UID,
)
from dicom_node.worklist.dicom.workitem import UPS_PUSH

MAX_STEPS = 100  # of one study; a peer that answers with more did not look at the keys
CLAIMED_MEANWHILE = (WRONG_TRANSACTION_UID, ALREADY_IN_PROGRESS, NOT_IN_PROGRESS, NO_LONGER_UPDATED)
MAX_LABEL = 64  # LO
MAX_COMMENTS = 1024  # LT holds ten times that
NAMESPACE = uuid.UUID("5d0f0b1c-7a0e-5a52-9d52-0d8b4c1f6a37")
RETURNED = ("SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "ScheduledProcedureStepPriority", "PatientID")


class Outcome(enum.StrEnum):
    """How telling a change ended. Only the first three changed anything at the peer."""

    CREATED = "created"
    RAISED = "raised"
    RESTORED = "restored"
    ALREADY = "already as high"
    IN_PROGRESS = "in progress: it belongs to its performer"
    FINISHED = "finished"
    UNKNOWN_PRIORITY = "the peer's priority is not known"
    NO_STEP = "no step"
    OVERTAKEN = "somebody else changed the priority since"


@dataclass(frozen=True)
class Told:
    """What happened to which step. before, after: (0074,1200) at the peer; empty where there was or is none."""

    outcome: Outcome
    sop_instance_uid: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class ReferencedImage:
    """One image for Input Information (0040,4021)."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class _Step:
    """A UPS as the peer's C-FIND describes it."""

    sop_instance_uid: str
    state: UpsState
    priority: str
    patient_id: str
    accession_number: str
    study_instance_uid: str
    workitem_code: str


def tell(
    change: PriorityChange,
    settings: UpsSettings,
    calling_ae: str,
    ours: Level | None = None,
    images: Sequence[ReferencedImage] = (),
) -> Told:
    """Tell the worklist manager the change.

    ours: for an undo, the level that we told last; it is restored only while the peer still has that one's priority.
    Raises PeerUnreachable or PeerBusy (try again); PeerRefused, or PermanentError when it is not certain which step of
    whom is meant: nothing is changed then.
    """
    if change.undo and ours is None:
        raise PermanentError("an undo needs the level that was told")
    contexts = [(sop_class, TRANSFER_SYNTAXES) for sop_class in (UPS_PULL, UPS_PUSH)]
    with associated(settings, calling_ae, contexts) as association:
        step = _one_step(_steps_of(association, change), change, settings)
        if step is not None and change.undo and ours is not None:
            return _restore(association, step, change, settings, ours)
        if step is not None:
            return _raise(association, step, change, settings)
        if change.undo or change.order is None or not settings.create:
            return Told(Outcome.NO_STEP)
        return _create(association, change, settings, images)


def step_uid(change: PriorityChange) -> str:
    """The SOP Instance UID of the step that we create for a study: always the same one."""
    return f"2.25.{uuid.uuid5(NAMESPACE, change.study_instance_uid).int}"


def attributes_of(change: PriorityChange, settings: UpsSettings, images: Sequence[ReferencedImage] = ()) -> Dataset:
    """The N-CREATE of a reading step for the change's order: all that table CC.2.5-3 requires of an SCU."""
    order = change.order or Order(Patient(""))
    step = Dataset()
    step.TransactionUID = ""
    step.ProcedureStepState = str(UpsState.SCHEDULED)
    step.ScheduledProcedureStepPriority = settings.priorities[change.level]
    step.ProcedureStepLabel = _marked(settings.label, change.marking)
    step.WorklistLabel = _marked(settings.worklist_label, change.marking)
    comments = f"Reading priority {change.level}: {change.rule}"
    step.CommentsOnTheScheduledProcedureStep = _marked(comments, change.marking, MAX_COMMENTS)
    step.InputReadinessState = "READY"
    step.ScheduledProcedureStepStartDateTime = datetime.fromtimestamp(change.at).strftime("%Y%m%d%H%M%S")
    step.ScheduledWorkitemCodeSequence = [_code(settings)]
    step.InputInformationSequence = _inputs(change, settings, images)
    step.StudyInstanceUID = change.study_instance_uid
    _put_patient(step, order.patient)
    step.ReferencedRequestSequence = [_request(change, order)]
    for keyword in (
        "ScheduledProcessingParametersSequence",
        "ScheduledStationNameCodeSequence",
        "ScheduledStationClassCodeSequence",
        "ScheduledStationGeographicLocationCodeSequence",
        "ProcedureStepProgressInformationSequence",
        "UnifiedProcedureStepPerformedProcedureSequence",
    ):
        setattr(step, keyword, [])
    return step


def _steps_of(association: Association, change: PriorityChange) -> list[_Step]:
    """The peer's steps for the change's study, by accession number and by Study Instance UID."""
    accession = change.order.accession_number if change.order else ""
    found = _find(association, "AccessionNumber", accession) if accession else []
    if not found:
        found = _find(association, "StudyInstanceUID", change.study_instance_uid)
    # A peer that does not support a key ignores it: what came back is looked at again.
    steps = [
        step
        for step in found
        if change.study_instance_uid == step.study_instance_uid or (accession and accession == step.accession_number)
    ]
    own = step_uid(change)
    return list({step.sop_instance_uid: step for step in steps}.values()) or [
        step for step in found if step.sop_instance_uid == own
    ]


def _one_step(steps: list[_Step], change: PriorityChange, settings: UpsSettings) -> _Step | None:
    """The step that is meant; None when the peer has none. Raises PermanentError when that is not certain."""
    if any(step.study_instance_uid not in ("", change.study_instance_uid) for step in steps):
        raise PermanentError("the peer has steps of another study under this accession number")
    patients = {step.patient_id for step in steps if step.patient_id}
    if change.order is not None and change.order.patient.patient_id:
        patients.add(change.order.patient.patient_id)
    if len(patients) > 1:
        raise PermanentError("the peer's steps for this study are of another patient")
    alive = [step for step in steps if step.state not in FINAL]
    waiting = [step for step in alive if step.state is UpsState.SCHEDULED]
    if len(waiting) > 1:
        waiting = [step for step in waiting if step.workitem_code == settings.workitem.value]
        if len(waiting) != 1:
            raise PermanentError(
                "the peer has several scheduled steps for this study; it is not certain which is meant"
            )
    return next(iter([*waiting, *alive, *steps]), None)


def _raise(association: Association, step: _Step, change: PriorityChange, settings: UpsSettings) -> Told:
    wanted, outcome = settings.priorities[change.level], _untouchable(step)
    if outcome is None and step.priority not in UPS_PRIORITIES:
        opted_in = settings.top_level_if_unknown and change.level is Level.CRITICAL
        outcome = None if opted_in else Outcome.UNKNOWN_PRIORITY
    elif outcome is None and not lower(step.priority, wanted):
        outcome = Outcome.ALREADY
    if outcome is not None:
        return Told(outcome, step.sop_instance_uid, step.priority, step.priority)
    return _set(association, step, wanted, Outcome.RAISED)


def _restore(association: Association, step: _Step, change: PriorityChange, settings: UpsSettings, ours: Level) -> Told:
    wanted, outcome = settings.priorities[change.level], _untouchable(step)
    if outcome is None and step.priority == wanted:
        outcome = Outcome.ALREADY
    if outcome is None and step.priority != settings.priorities[ours]:
        outcome = Outcome.OVERTAKEN
    if outcome is not None:
        return Told(outcome, step.sop_instance_uid, step.priority, step.priority)
    return _set(association, step, wanted, Outcome.RESTORED)


def _untouchable(step: _Step) -> Outcome | None:
    if step.state in FINAL:
        return Outcome.FINISHED
    return None if step.state is UpsState.SCHEDULED else Outcome.IN_PROGRESS


def _set(association: Association, step: _Step, priority: str, outcome: Outcome) -> Told:
    """N-SET without a transaction UID: the peer refuses it once somebody has claimed the step."""
    modification = Dataset()
    modification.ScheduledProcedureStepPriority = priority
    status, _ = _sent(lambda: association.send_n_set(modification, UPS_PUSH, step.sop_instance_uid, meta_uid=UPS_PULL))
    if status.get("Status") in CLAIMED_MEANWHILE:
        return Told(Outcome.IN_PROGRESS, step.sop_instance_uid, step.priority, step.priority)
    judge(status, "N-SET")
    return Told(outcome, step.sop_instance_uid, step.priority, priority)


def _create(
    association: Association, change: PriorityChange, settings: UpsSettings, images: Sequence[ReferencedImage]
) -> Told:
    sop_instance_uid = step_uid(change)
    attributes = data_sets.for_answer(attributes_of(change, settings, images))
    status, _ = _sent(lambda: association.send_n_create(attributes, UPS_PUSH, sop_instance_uid))
    if status.get("Status") == DUPLICATE_SOP_INSTANCE:
        # An earlier attempt got through and its answer did not.
        return _raise(association, _own_step(association, sop_instance_uid), change, settings)
    judge(status, "N-CREATE")
    return Told(Outcome.CREATED, sop_instance_uid, "", attributes.ScheduledProcedureStepPriority)


def _own_step(association: Association, sop_instance_uid: str) -> _Step:
    tags: list[BaseTag] = [Tag("ProcedureStepState"), Tag("ScheduledProcedureStepPriority")]
    status, attributes = _sent(lambda: association.send_n_get(tags, UPS_PUSH, sop_instance_uid, meta_uid=UPS_PULL))
    judge(status, "N-GET")
    return _step(attributes or Dataset(), sop_instance_uid)


def _find(association: Association, keyword: str, value: str) -> list[_Step]:
    query = Dataset()
    for returned in RETURNED:
        setattr(query, returned, "")
    code = Dataset()
    code.CodeValue = code.CodingSchemeDesignator = ""
    query.ScheduledWorkitemCodeSequence = [code]
    request = Dataset()
    request.AccessionNumber = request.StudyInstanceUID = ""
    setattr(request, keyword, value)
    query.ReferencedRequestSequence = [request]
    steps = []
    try:
        for status, identifier in association.send_c_find(data_sets.for_answer(query), UPS_PULL):
            if status.get("Status") not in (PENDING, PENDING_WITHOUT_SOME_KEYS):
                judge(status, "C-FIND", busy=(*BUSY, *UNABLE_TO_PROCESS))
            elif identifier is None:
                raise PeerRefused("the peer's answer to the C-FIND cannot be decoded")
            else:
                steps.append(_step(identifier))
            if len(steps) > MAX_STEPS:
                association.abort()
                raise PermanentError("the peer found far too many steps; it seems to ignore the keys")
    except ValueError as error:
        raise PeerRefused("the peer does not accept UPS Pull") from error
    except RuntimeError as error:
        raise PeerUnreachable("the peer ended the association") from error
    return steps


def _step(identifier: Dataset, sop_instance_uid: str = "") -> _Step:
    attributes = data_sets.plain(identifier)
    state = text_of(attributes, "ProcedureStepState")
    if state not in list(UpsState):
        raise PeerRefused("the peer's step has no valid state")
    request = _first(attributes, "ReferencedRequestSequence")
    return _Step(
        sop_instance_uid=sop_instance_uid or text_of(attributes, "SOPInstanceUID"),
        state=UpsState(state),
        priority=text_of(attributes, "ScheduledProcedureStepPriority"),
        patient_id=text_of(attributes, "PatientID"),
        accession_number=text_of(request, "AccessionNumber"),
        study_instance_uid=text_of(request, "StudyInstanceUID"),
        workitem_code=text_of(_first(attributes, "ScheduledWorkitemCodeSequence"), "CodeValue"),
    )


def _first(attributes: Dataset, keyword: str) -> Dataset:
    items = attributes.get(keyword)
    return items[0] if items else Dataset()


def _sent(send: Callable[[], tuple[Dataset, Dataset | None]]) -> tuple[Dataset, Dataset | None]:
    try:
        return send()
    except ValueError as error:
        raise PeerRefused("the peer does not accept UPS Push or Pull") from error
    except RuntimeError as error:
        raise PeerUnreachable("the peer ended the association") from error


def _put_patient(step: Dataset, patient: Patient) -> None:
    step.PatientName, step.PatientID, step.IssuerOfPatientID = patient.name, patient.patient_id, patient.issuer
    step.PatientBirthDate, step.PatientSex = patient.birth_date, patient.sex
    step.AdmissionID = step.AdmittingDiagnosesDescription = ""
    for keyword in (
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDsSequence",
        "IssuerOfAdmissionIDSequence",
        "AdmittingDiagnosesCodeSequence",
    ):
        setattr(step, keyword, [])


def _request(change: PriorityChange, order: Order) -> Dataset:
    request = Dataset()
    request.StudyInstanceUID = change.study_instance_uid
    request.AccessionNumber = order.accession_number
    request.IssuerOfAccessionNumberSequence = []
    request.OrderPlacerIdentifierSequence = request.OrderFillerIdentifierSequence = []
    if order.placer_order_number:
        request.PlacerOrderNumberImagingServiceRequest = order.placer_order_number
    if order.filler_order_number:
        request.FillerOrderNumberImagingServiceRequest = order.filler_order_number
    request.RequestedProcedureID = order.requested_procedure_id
    request.RequestedProcedureDescription = order.code_meaning
    request.RequestedProcedureCodeSequence = code_items(order)
    return request


def _inputs(change: PriorityChange, settings: UpsSettings, images: Sequence[ReferencedImage]) -> list[Dataset]:
    """One item a series (PS3.3 table 10-3b)."""
    items = []
    for series in dict.fromkeys(image.series_instance_uid for image in images):
        item, retrieval = Dataset(), Dataset()
        item.TypeOfInstances = "DICOM"
        item.StudyInstanceUID, item.SeriesInstanceUID = change.study_instance_uid, series
        item.ReferencedSOPSequence = [_reference(image) for image in images if image.series_instance_uid == series]
        retrieval.RetrieveAETitle = settings.retrieve_ae_title or settings.ae_title
        item.DICOMRetrievalSequence = [retrieval]
        items.append(item)
    return items


def _reference(image: ReferencedImage) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    return reference


def _code(settings: UpsSettings) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = settings.workitem.value, settings.workitem.scheme
    code.CodeMeaning = settings.workitem.meaning
    return code


def _marked(text: str, marking: str, longest: int = MAX_LABEL) -> str:
    """The text with the marking in front, which is never the part that is cut off."""
    return f"{marking}: {text}"[:longest] if marking else text[:longest]
