"""Storage Commitment Push Model as SCU (PS3.4 Annex J): the archive is asked to keep what it stored."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event as AssociationEvent

from dicom_node.base.config import Destination
from dicom_node.base.errors import NotCommitted, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.base.events import Event, log
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.orders import Delivery, Outcome, Stage
from dicom_node.base.requestor import NotAccepted, associated
from dicom_node.jobs.registry import Registry
from dicom_node.sending.commitment_answers import STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE, CommitmentAnswers
from dicom_node.sending.remedies import MAX_UNANSWERED
from dicom_node.sending.storescu import StoreScu, read_object

REQUEST = 1  # Action Type ID, PS3.4 table J.3-1
SUCCESS = 0x0000
WARNINGS = (0x0001, 0x0107, 0x0116)  # PS3.7 annex C
BUSY = (0x0110, 0x0131, 0x0210, 0x0213)  # processing failure, a number used twice, resource limitation
SAME_ASSOCIATION_SECONDS = 1.0  # some archives answer at once on the association that asked
LOOK_AGAIN_SECONDS = 0.02
HOW_TO_GO_ON = "allow it there, or set storage_commitment = false, then `dicom-node retry`"


class CommitmentScu:
    """Takes objects to one archive, and asks it to keep what it stored."""

    def __init__(
        self, destination: Destination, outgoing: Path, calling_ae: str, registry: Registry, answers: CommitmentAnswers
    ) -> None:
        self._destination = destination
        self._outgoing = outgoing
        self._calling_ae = calling_ae
        self._registry = registry
        self._answers = answers
        self._store = StoreScu(destination, outgoing, calling_ae)

    def __call__(self, delivery: Delivery) -> Outcome:
        """One attempt at what comes next. Raises what `store` and `ask` raise, or NotCommitted."""
        if not delivery.stored:
            return self._store(delivery)
        if delivery.unanswered >= MAX_UNANSWERED:
            raise NotCommitted(f"the peer answered none of {delivery.unanswered} requests for storage commitment")
        self.ask(delivery)
        return Outcome(stage=Stage.ASKED)

    def ask(self, delivery: Delivery) -> None:
        """One N-ACTION in a transaction of its own, written down before it goes out.

        An answer that comes at once on the same association is taken. Raises PeerUnreachable or PeerBusy (ask again),
        PeerRefused (a person is needed), LostClaim when the answer to an earlier request came meanwhile, and what
        `read_object` raises.
        """
        assert delivery.path is not None
        dataset = read_object(self._outgoing / delivery.path, before_pixels=True)
        answered = threading.Event()

        def on_answer(event: AssociationEvent) -> tuple[int, None]:
            try:
                return self._answers.on_event_report(event)
            finally:
                answered.set()

        contexts = [(STORAGE_COMMITMENT, (ExplicitVRLittleEndian, ImplicitVRLittleEndian))]
        try:
            handlers = [(evt.EVT_N_EVENT_REPORT, on_answer)]
            answerable = self._answers.answerable
            with associated(
                self._destination, self._calling_ae, contexts, handlers=handlers, answerable=answerable
            ) as association:
                transaction_uid = generate_uid(prefix=None)
                self._registry.ask(delivery, transaction_uid, dataset.SOPInstanceUID, time.time())
                passed(FaultPoint.COMMITMENT_NOTED)
                _request(association, transaction_uid, dataset)
                passed(FaultPoint.COMMITMENT_ASKED)
                self._registry.taken(transaction_uid)
                log(Event.COMMITMENT_ASKED, study=delivery.study_id, destination=delivery.destination)
                _wait(association, answered)
        except NotAccepted as error:
            raise PeerRefused(f"the peer stored the object but takes no Storage Commitment: {HOW_TO_GO_ON}") from error


def _request(association: Association, transaction_uid: str, stored: Dataset) -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID = stored.SOPClassUID
    reference.ReferencedSOPInstanceUID = stored.SOPInstanceUID
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [reference]
    try:
        status, _ = association.send_n_action(information, REQUEST, STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE)
    except RuntimeError as error:  # pynetdicom's word for an association that ended since
        raise PeerUnreachable("the peer ended the association before its commitment was asked") from error
    _judge(status.Status if "Status" in status else None)


def _judge(status: int | None) -> None:
    if status is None:
        raise PeerUnreachable("the peer gave no answer to the request for storage commitment")
    if status == SUCCESS or status in WARNINGS:
        return
    if status in BUSY or status & 0xFF00 == 0xA700:
        raise PeerBusy(f"the peer could not take the request for storage commitment now (status 0x{status:04X})")
    raise PeerRefused(
        f"the peer stored the object but refused Storage Commitment (status 0x{status:04X}): {HOW_TO_GO_ON}"
    )


def _wait(association: Association, answered: threading.Event) -> None:
    until = time.monotonic() + SAME_ASSOCIATION_SECONDS
    while association.is_established and time.monotonic() < until and not answered.wait(LOOK_AGAIN_SECONDS):
        pass
