"""How a request ends: statuses whose Error Comment names attributes, never values, and paced C-FIND answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pynetdicom.events import Event as AssociationEvent

from dicom_node.base.errors import PermanentError, RetriableError
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.jobs.registry import DATABASE_AWAY
from dicom_node.worklist.dicom.dataset import InvalidAttribute, UnreadableDataSet, for_answer

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITHOUT_SOME_KEYS = 0xFF01
CANCELLED = 0xFE00
OUT_OF_RESOURCES = 0xA700
IDENTIFIER_DOES_NOT_MATCH = 0xA900
UNABLE_TO_PROCESS = 0xC001
PROCESSING_FAILURE = 0x0110
RESOURCE_LIMITATION = 0x0213
INVALID_ATTRIBUTE_VALUE = 0x0106
MAX_COMMENT = 64  # Error Comment (0000,0902) is LO
ANSWERS_AT_ONCE = 16  # answers that may wait for the peer to take them
DRAINED_SECONDS = 0.002  # long enough for pynetdicom to look for a C-CANCEL between two answers

Answer = tuple[Dataset, Dataset | None]


class Refusal(PermanentError):
    """A request ends with this status. tags: the attributes it is about."""

    def __init__(self, status: int, comment: str, *tags: BaseTag) -> None:
        super().__init__(comment)
        self.status = status
        self.tags = tags


def status(code: int, comment: str = "", *tags: BaseTag) -> Dataset:
    """A status as pynetdicom takes it; tags become the Attribute Identifier List (0000,1005) where there is one."""
    answer = Dataset()
    answer.Status = code
    if comment:
        answer.ErrorComment = comment[:MAX_COMMENT]
    if tags:
        answer.AttributeIdentifierList = list(tags)
    return answer


def refusal(error: Exception, service: str, unreadable: int, away: int) -> Dataset:
    """The status for an error, logged. unreadable: for a data set that is none; away: for one that may pass."""
    if isinstance(error, Refusal):
        answer = status(error.status, str(error), *error.tags)
    elif isinstance(error, InvalidAttribute):
        answer = status(
            INVALID_ATTRIBUTE_VALUE if unreadable == PROCESSING_FAILURE else unreadable, str(error), error.tag
        )
    elif isinstance(error, UnreadableDataSet):
        answer = status(unreadable, str(error))
    elif isinstance(error, RetriableError):
        answer = status(away, str(error))
    elif isinstance(error, DATABASE_AWAY):
        answer = status(away, "the registry cannot be reached now")  # its own words quote what was asked for
    else:
        log(Event.OBJECT_REFUSED, "error", job=service, error=type_and_place(error))
        return status(
            UNABLE_TO_PROCESS if unreadable == IDENTIFIER_DOES_NOT_MATCH else PROCESSING_FAILURE, "processing failure"
        )
    log(Event.OBJECT_REFUSED, "warning", job=service, status=f"0x{answer.Status:04X}", reason=answer.ErrorComment)
    return answer


def find(
    event: AssociationEvent, service: str, answers: Callable[[], Iterator[tuple[Dataset, bool]]]
) -> Iterator[Answer]:
    """C-FIND responses, one at a time, until the last, a C-CANCEL or an error (PS3.4 tables K.4-1 and CC.2.8-2).

    answers: gives each match's attributes and whether every key was supported; the query's own Specific Character Set
    is already in it. No more than a few answers wait in memory, however slowly the peer reads.
    """
    try:
        for count, (answer, complete) in enumerate(answers()):
            if count % ANSWERS_AT_ONCE == 0 and not _drained(event):
                return
            if event.is_cancelled:
                yield status(CANCELLED), None
                return
            yield status(PENDING if complete else PENDING_WITHOUT_SOME_KEYS), answer
    except Exception as error:  # noqa: BLE001 - the association's edge: every error becomes a status
        answer_status = refusal(error, service, IDENTIFIER_DOES_NOT_MATCH, OUT_OF_RESOURCES)
        tags = answer_status.pop("AttributeIdentifierList", None)
        if tags is not None:
            answer_status.OffendingElement = tags.value
        yield answer_status, None


def parameter(event: AssociationEvent, name: str) -> Any:
    """A parameter of the request (PS3.7 sections 9.1 and 10.1); None when the peer sent none."""
    return getattr(event.request, name, None)


def answer_for(attributes: Dataset, query: Dataset) -> Dataset:
    """The identifier of a response, in the query's character set where that can express it."""
    return for_answer(attributes, query.get("SpecificCharacterSet"))


def _drained(event: AssociationEvent) -> bool:
    """Wait until the peer took what was sent; False when the association ended meanwhile."""
    association = event.assoc
    while association.dul.to_provider_queue.qsize():
        if not association.is_established or not association.dul.is_alive():
            return False
        time.sleep(DRAINED_SECONDS)
    time.sleep(DRAINED_SECONDS)
    return bool(association.is_established)
