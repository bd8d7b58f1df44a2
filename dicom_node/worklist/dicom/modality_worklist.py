"""Modality Worklist SCP (PS3.4 annex K): the registry's orders, each as a worklist item with its reading priority."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Protocol

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pynetdicom.events import Event as AssociationEvent

from dicom_node.base.orders import Order, OrderStatus
from dicom_node.base.types import Level
from dicom_node.base.workitems import WorklistQuery
from dicom_node.worklist.dicom import matching
from dicom_node.worklist.dicom.answering import Answer, answer_for, find, parameter
from dicom_node.worklist.dicom.dataset import read
from dicom_node.worklist.dicom.levels import REQUESTED_PROCEDURE_PRIORITY
from dicom_node.worklist.dicom.query import worklist_query

MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
#: PS3.3 section C.4.10, (0040,0020); a worklist knows no word for the others.
ASCII_ONLY = ("AE", "AS", "CS", "DA", "DT", "TM", "UI")
STEP_STATUS = {OrderStatus.SCHEDULED: "SCHEDULED", OrderStatus.IN_PROGRESS: "STARTED"}
#: Table K.6-1: return keys of type 2 that an order does not know; always there, always empty.
NOT_KNOWN = (
    "ReferencedStudySequence",
    "PatientTransportArrangements",
    "AdmissionID",
    "CurrentPatientLocation",
    "ReferencedPatientSequence",
    "PatientWeight",
    "ConfidentialityConstraintOnPatientDataDescription",
    "PatientState",
    "PregnancyStatus",
    "MedicalAlerts",
    "Allergies",
    "SpecialNeeds",
)
NOT_KNOWN_OF_STEP = (
    "ScheduledPerformingPhysicianName",
    "ScheduledStationName",
    "ScheduledProcedureStepLocation",
    "PreMedication",
    "RequestedContrastAgent",
)


class OrderSource(Protocol):
    """Where the orders are. Reads page by page: an iterator holds no more than one page."""

    def orders(self, query: WorklistQuery) -> Iterator[tuple[Order, Level | None]]:
        """Orders that are not over, and the reading priority the node gave each, None where it gave none.

        Every order that satisfies the query, once, in a stable order. May raise a RetriableError.
        """
        ...


class ModalityWorklist:
    """Answers C-FIND from an order source."""

    def __init__(self, source: OrderSource) -> None:
        self._source = source

    def on_find(self, event: AssociationEvent) -> Iterator[Answer]:
        """Responses to one C-FIND (PS3.4 section K.4.1.3)."""
        return find(event, "modality worklist", lambda: self._answers(event))

    def _answers(self, event: AssociationEvent) -> Iterator[tuple[Dataset, bool]]:
        identifier = read(parameter(event, "Identifier"), str(event.context.transfer_syntax))
        matching.check(identifier)
        for order, level in self._source.orders(worklist_query(identifier)):
            item = item_of(order, level)
            if matching.matches(identifier, item, absent_matches=True):
                answer, complete = matching.project(identifier, item, absent_matches=True)
                yield answer_for(answer, identifier), complete


def item_of(order: Order, level: Level | None) -> Dataset:
    """The worklist item of an order: every return key of table K.6-1 that is not optional, empty where not known.

    level: the node's own priority; the order's where there is none.
    """
    item = Dataset()
    patient = order.patient
    _put(item, "AccessionNumber", order.accession_number)
    _put(item, "ReferringPhysicianName", order.referring_physician)
    _put(item, "PatientName", patient.name)
    _put(item, "PatientID", patient.patient_id)
    _put(item, "IssuerOfPatientID", patient.issuer)
    _put(item, "PatientBirthDate", patient.birth_date)
    _put(item, "PatientSex", patient.sex)
    _put(item, "StudyInstanceUID", order.study_instance_uid)
    _put(item, "RequestingPhysician", order.requesting_physician)
    _put(item, "RequestedProcedureDescription", order.code_meaning)
    _put(item, "RequestedProcedureCodeSequence", code_items(order))
    _put(item, "ScheduledProcedureStepSequence", [_step_of(order)])
    _put(item, "RequestedProcedureID", order.requested_procedure_id)
    _put(item, "RequestedProcedurePriority", _priority(level or order.priority))
    _put(item, "PlacerOrderNumberImagingServiceRequest", order.placer_order_number)
    _put(item, "FillerOrderNumberImagingServiceRequest", order.filler_order_number)
    for keyword in NOT_KNOWN:
        _put(item, keyword, None)
    return item


def code_items(order: Order) -> list[Dataset]:
    """The order's code as the items of a code sequence: one, or none where a part that must be there is missing."""
    if not (order.code_value and order.code_scheme and order.code_meaning):
        return []
    code = Dataset()
    long = len(order.code_value) > 16  # PS3.3 table 8.8-1: a longer one goes into (0008,0119)
    _put(code, "LongCodeValue" if long else "CodeValue", order.code_value)
    _put(code, "CodingSchemeDesignator", order.code_scheme)
    _put(code, "CodeMeaning", order.code_meaning)
    return [code]


def _step_of(order: Order) -> Dataset:
    step = Dataset()
    _put(step, "Modality", order.modality)
    _put(step, "ScheduledStationAETitle", order.station_ae)
    _put(step, "ScheduledProcedureStepStartDate", order.scheduled_at[:8])
    _put(step, "ScheduledProcedureStepStartTime", order.scheduled_at[8:].partition("+")[0].partition("-")[0])
    _put(step, "ScheduledProcedureStepDescription", order.code_meaning)
    _put(step, "ScheduledProtocolCodeSequence", code_items(order))
    _put(step, "ScheduledProcedureStepID", order.scheduled_step_id)
    _put(step, "ScheduledProcedureStepStatus", STEP_STATUS.get(order.status, ""))
    for keyword in NOT_KNOWN_OF_STEP:
        _put(step, keyword, None)
    return step


def _priority(level: Level | None) -> str:
    return REQUESTED_PROCEDURE_PRIORITY[level] if level is not None else ""


def _put(dataset: Dataset, keyword: str, value: object) -> None:
    tag, vr = _attribute(keyword)
    value = [] if value is None and vr == "SQ" else value
    if vr in ASCII_ONLY and isinstance(value, str) and not value.isascii():
        value = ""  # one item that cannot be encoded must not end the answer
    # What an HL7 message said is passed on as it came; a value too long for its VR is still the value.
    dataset.add(DataElement(tag, vr, value, validation_mode=config.IGNORE))


@cache
def _attribute(keyword: str) -> tuple[BaseTag, str]:
    tag = Tag(keyword)
    return tag, dictionary_VR(tag)
