"""Modality Worklist SCP (PS3.4 annex K): the registry's orders, each as a worklist item with its reading priority."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Protocol

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pynetdicom.events import Event as AssociationEvent

from dicom_node.base.orders import Order, OrderStatus, RankedOrder
from dicom_node.base.types import Level
from dicom_node.base.workitems import WorklistQuery
from dicom_node.worklist.dicom import matching
from dicom_node.worklist.dicom.answering import Answer, answer_for, find, parameter
from dicom_node.worklist.dicom.dataset import read
from dicom_node.worklist.dicom.levels import REQUESTED_PROCEDURE_PRIORITY
from dicom_node.worklist.dicom.query import worklist_query

MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
STEP_SEQUENCE = "ScheduledProcedureStepSequence"
COMMENTS = "RequestedProcedureComments"
Value = str | Callable[[], list[Dataset]] | None  # a sequence is made where it is asked for
ASCII_ONLY = ("AE", "AS", "CS", "DA", "DT", "TM", "UI")
#: PS3.3 section C.4.10, (0040,0020); a worklist knows no word for the others.
STEP_STATUS = {OrderStatus.SCHEDULED: "SCHEDULED", OrderStatus.IN_PROGRESS: "STARTED"}
#: Table K.6-1: return keys of type 2 that an order does not know; always there, always empty.
NOT_KNOWN: dict[str, Value] = dict.fromkeys(
    (
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
)
NOT_KNOWN_OF_STEP: dict[str, Value] = dict.fromkeys(
    (
        "ScheduledPerformingPhysicianName",
        "ScheduledStationName",
        "ScheduledProcedureStepLocation",
        "PreMedication",
        "RequestedContrastAgent",
    )
)


class OrderSource(Protocol):
    """Where the orders are. Reads page by page: an iterator holds no more than one page."""

    def orders(self, query: WorklistQuery) -> Iterator[RankedOrder]:
        """Orders that are not over, each with its reading priority as it is now.

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
        marked = COMMENTS in identifier
        for ranked in self._source.orders(worklist_query(identifier)):
            item = item_of(ranked if marked else _unraised(ranked), identifier)
            if matching.matches(identifier, item, absent_matches=True):
                answer, complete = matching.project(identifier, item, absent_matches=True)
                yield answer_for(answer, identifier), complete


def item_of(ranked: RankedOrder, query: Dataset | None = None) -> Dataset:
    """The worklist item of an order: every return key of table K.6-1 that is not optional, empty where not known.

    Requested Procedure Comments (0040,1400) say when a model that is not clinical gave the priority. query: only what
    it asks for is made.
    """
    order, patient = ranked.order, ranked.order.patient
    steps = query.get(STEP_SEQUENCE) if query is not None else None
    step = steps[0] if steps and steps[0] else None
    values: dict[str, Value] = {
        "AccessionNumber": order.accession_number,
        "ReferringPhysicianName": order.referring_physician,
        "PatientName": patient.name,
        "PatientID": patient.patient_id,
        "IssuerOfPatientID": patient.issuer,
        "PatientBirthDate": patient.birth_date,
        "PatientSex": patient.sex,
        "StudyInstanceUID": order.study_instance_uid,
        "RequestingPhysician": order.requesting_physician,
        "RequestedProcedureDescription": order.code_meaning,
        "RequestedProcedureCodeSequence": partial(code_items, order),
        STEP_SEQUENCE: lambda: [_step_of(order, step)],
        "RequestedProcedureID": order.requested_procedure_id,
        "RequestedProcedurePriority": _priority(ranked.level),
        COMMENTS: f"Priority given by {ranked.marking}" if ranked.marking else "",
        "PlacerOrderNumberImagingServiceRequest": order.placer_order_number,
        "FillerOrderNumberImagingServiceRequest": order.filler_order_number,
    }
    return _data_set(values | NOT_KNOWN, query)


def _unraised(ranked: RankedOrder) -> RankedOrder:
    """As the order says where a model that is not clinical gave more: no such priority goes out without its marking."""
    return RankedOrder(ranked.order, ranked.order.priority) if ranked.marking else ranked


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


def _step_of(order: Order, asked: Dataset | None) -> Dataset:
    values: dict[str, Value] = {
        "Modality": order.modality,
        "ScheduledStationAETitle": order.station_ae,
        "ScheduledProcedureStepStartDate": order.scheduled_at[:8],
        "ScheduledProcedureStepStartTime": order.scheduled_at[8:].partition("+")[0].partition("-")[0],
        "ScheduledProcedureStepDescription": order.code_meaning,
        "ScheduledProtocolCodeSequence": partial(code_items, order),
        "ScheduledProcedureStepID": order.scheduled_step_id,
        "ScheduledProcedureStepStatus": STEP_STATUS.get(order.status, ""),
    }
    return _data_set(values | NOT_KNOWN_OF_STEP, asked)


def _data_set(values: Mapping[str, Value], asked: Dataset | None) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        if asked is None or _attribute(keyword)[0] in asked:
            _put(made, keyword, value() if callable(value) else value)
    return made


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
