"""What archives answer to requests for storage commitment: N-EVENT-REPORT, PS3.4 section J.3.3.

It comes on an association that the archive opens, proposing itself as SCP, or on the one that asked. Nothing in it is
believed but what was asked, of whom it was asked: any other answer is logged and changes nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.dimse_messages import N_EVENT_REPORT_RQ, DIMSEMessage
from pynetdicom.events import Event as AssociationEvent
from pynetdicom.presentation import PresentationContext

from dicom_node.base.commitments import Commitment, Remedy, Settled
from dicom_node.base.config import Configuration, Destination
from dicom_node.base.errors import PermanentError
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.jobs.registry import DATABASE_AWAY, Registry
from dicom_node.sending.outbox import back_off
from dicom_node.sending.remedies import in_words, remedy_for

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
#: Event Type ID, PS3.4 table J.3-2: all is committed; failures exist.
EVENT_TYPES = (1, 2)
# Statuses of an N-EVENT-REPORT, PS3.7 section 10.1.1.1.8.
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
UNRECOGNIZED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213
MAX_ANSWER_BYTES = 1 << 16  # a request names one object; decoding takes a hundred times the room
UID = re.compile(r"[0-9.]{1,64}")


class Useless(PermanentError):
    """An answer that changes nothing. status: what its sender is told."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What an archive keeps, by SOP Instance UID, and what not, with the Failure Reason (0008,1197)."""

    transaction_uid: str
    kept: frozenset[str]
    failed: dict[str, int]


class CommitmentAnswers:
    """Takes answers: as a service of the receiver, and on associations that the node opened."""

    def __init__(self, configuration: Configuration, registry: Registry) -> None:
        self._configuration = configuration
        self._registry = registry

    def contexts(self) -> list[PresentationContext]:
        """Storage Commitment with the peer as SCP: without this role selection no archive could report."""
        context = build_context(STORAGE_COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        context.scu_role, context.scp_role = False, True  # of the peer that proposes it (PS3.7 section D.3.3.4)
        return [context]

    def handlers(self) -> list[evt.EventHandlerType]:
        """Events and handlers, as pynetdicom's server takes them."""
        return [(evt.EVT_N_EVENT_REPORT, self.on_event_report)]

    def answerable(self, message: DIMSEMessage) -> bool:
        """Whether it is an event report of Storage Commitment with all that a response needs."""
        command = message.command_set
        return (
            isinstance(message, N_EVENT_REPORT_RQ)
            and command.get("AffectedSOPClassUID") == STORAGE_COMMITMENT
            and all(command.get(keyword) is not None for keyword in ("MessageID", "EventTypeID"))
            and bool(command.get("AffectedSOPInstanceUID"))
        )

    def on_event_report(self, event: AssociationEvent) -> tuple[int, None]:
        """Apply one answer; its status. Success only once the registry has it durably."""
        sender = str(event.assoc.remote["ae_title"]).strip()
        try:
            self._check_sender(sender)
            self._take(read_answer(event), sender)
        except Useless as error:
            log(Event.COMMITMENT_USELESS, "warning", calling_ae=sender, reason=str(error))
            return error.status, None
        except DATABASE_AWAY as error:
            log(Event.JOB_FAILED, "warning", job="storage commitment", error=type(error).__name__)
            return RESOURCE_LIMITATION, None
        except Exception as error:  # noqa: BLE001 - the association's edge: every error becomes a status
            log(Event.JOB_FAILED, "error", job="storage commitment", error=type_and_place(error))
            return PROCESSING_FAILURE, None
        return SUCCESS, None

    def _take(self, answer: Answer, sender: str) -> None:
        asked = self._registry.commitment(answer.transaction_uid)
        if asked is None:
            raise Useless(INVALID_ARGUMENT, "storage commitment of a transaction that is not known here")
        archive = self._archive(asked.destination)
        if archive is None or archive.ae_title.strip() != sender:
            raise Useless(INVALID_ARGUMENT, "storage commitment by another AE than the one that was asked")
        others = (answer.kept | answer.failed.keys()) - {asked.sop_instance_uid}
        if asked.sop_instance_uid in answer.failed:
            self._refused(asked, answer.failed[asked.sop_instance_uid], archive)
        elif asked.sop_instance_uid in answer.kept:
            self._committed(asked)
        else:
            raise Useless(INVALID_ARGUMENT, "storage commitment that does not name the object it was asked for")
        if others:
            log(
                Event.COMMITMENT_USELESS,
                "warning",
                calling_ae=sender,
                count=len(others),
                reason="storage commitment of objects that it was not asked for",
            )

    def _check_sender(self, sender: str) -> None:
        """Nobody's answer but that of an archive that may be asked is worth reading. Raises Useless."""
        archives = (one for one in self._configuration.destinations if isinstance(one, Destination))
        if sender not in {one.ae_title.strip() for one in archives}:
            raise Useless(INVALID_ARGUMENT, "storage commitment by an AE that is not asked for any")

    def _archive(self, name: str) -> Destination | None:
        """The destination, while it is one that is asked."""
        found = (one for one in self._configuration.destinations if isinstance(one, Destination) and one.name == name)
        return next(found, None)

    def _committed(self, asked: Commitment) -> None:
        settled = self._registry.committed(asked.transaction_uid, time.time())
        passed(FaultPoint.COMMITMENT_SETTLED)
        if settled is Settled.NOTHING:
            self._repeated(asked)
            return
        log(Event.DELIVERY_DONE, study=asked.study_id, destination=asked.destination, reason="committed")
        if settled is Settled.STUDY:
            log(Event.STUDY_DELIVERED, study=asked.study_id)

    def _refused(self, asked: Commitment, reason: int, archive: Destination) -> None:
        now, words = time.time(), in_words(reason)
        remedy = remedy_for(reason, asked.failures)
        wait = archive.commitment_seconds if remedy is Remedy.ASK_AGAIN else back_off(asked.failures + 1, archive)
        settled = self._registry.refused(asked.transaction_uid, remedy, words, now + wait, now)
        if settled is Settled.NOTHING:
            self._repeated(asked)
            return
        fields = {"study": asked.study_id, "destination": asked.destination, "reason": words}
        if remedy is Remedy.SET_ASIDE:
            log(Event.DELIVERY_SET_ASIDE, "error", **fields)
        else:
            log(Event.DELIVERY_POSTPONED, "warning", seconds=round(wait, 1), **fields)

    def _repeated(self, asked: Commitment) -> None:
        """It is acknowledged all the same: a sender must not repeat for ever what is settled."""
        log(
            Event.COMMITMENT_USELESS,
            "warning",
            study=asked.study_id,
            destination=asked.destination,
            reason="storage commitment that was answered before or is out of date",
        )


def read_answer(event: AssociationEvent) -> Answer:
    """The answer in an N-EVENT-REPORT. Raises Useless when it is none."""
    request: Any = event.request
    if event.context.abstract_syntax != STORAGE_COMMITMENT:
        raise Useless(UNRECOGNIZED_OPERATION, "storage commitment on a presentation context of another service")
    if request.AffectedSOPInstanceUID != WELL_KNOWN_INSTANCE:
        raise Useless(NO_SUCH_INSTANCE, "event report of an unknown SOP instance")
    if request.EventTypeID not in EVENT_TYPES:
        raise Useless(NO_SUCH_EVENT_TYPE, "event report of an unknown type")
    if request.EventInformation is None or len(request.EventInformation.getbuffer()) > MAX_ANSWER_BYTES:
        raise Useless(INVALID_ARGUMENT, "storage commitment of more than the one object that was asked for")
    try:
        information = event.event_information
        transaction_uid = str(information.TransactionUID)
        kept = frozenset(str(item.ReferencedSOPInstanceUID) for item in _items(information, "ReferencedSOPSequence"))
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
            for item in _items(information, "FailedSOPSequence")
        }
    except Exception as error:  # pydicom raises anything at all on hostile bytes
        raise Useless(INVALID_ARGUMENT, "storage commitment that cannot be read") from error
    if not UID.fullmatch(transaction_uid):
        raise Useless(INVALID_ARGUMENT, "storage commitment without a transaction UID")
    return Answer(transaction_uid, kept, failed)


def _items(information: Dataset, keyword: str) -> Iterable[Dataset]:
    return information.get(keyword) or ()
