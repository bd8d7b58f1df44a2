"""What the node does at each event of an association. pynetdicom calls these handlers."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any, Protocol

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event as AssociationEvent
from pynetdicom.presentation import PresentationContext

from dicom_node.base.config import IntakeSection
from dicom_node.base.events import Event, log
from dicom_node.base.tls import shown_certificate
from dicom_node.intake.access import NO_REASON, AccessRule, Rejection
from dicom_node.intake.incoming import Incoming
from dicom_node.intake.inline import StoreService
from dicom_node.intake.limits import Bounds, IncomingDataSet, Pace
from dicom_node.intake.places import Places
from dicom_node.intake.presentation import storage_classes
from dicom_node.intake.registrar import Closed, Opened, Registrar
from dicom_node.intake.storage import SUCCESS, Announcement, Answer, Peer, Storage

CLOSED = "Sta1"  # PS3.8 9.2.1


class FurtherServices(Protocol):
    """Services that the node's AE offers beside Verification and Storage, to the same peers."""

    def contexts(self) -> list[PresentationContext]:
        """The presentation contexts to add to those that are supported."""
        ...

    def handlers(self) -> list[evt.EventHandlerType]:
        """Events and handlers, as pynetdicom's server takes them."""
        ...

    def answerable(self, message: DIMSEMessage) -> bool:
        """Whether it is a request of these services with all that an answer needs."""
        ...


class StorageProvider:
    """Verification and Storage SCP (PS3.4 annexes A and B), beside further services if there are any."""

    def __init__(
        self,
        access: AccessRule,
        storage: Storage,
        registrar: Registrar,
        intake: IntakeSection,
        places: Places,
        further: FurtherServices | None = None,
    ) -> None:
        self._access = access
        self._storage = storage
        self._registrar = registrar
        self._places = places
        self._pace = Pace(intake.dimse_timeout_seconds, intake.least_bytes_per_second)
        self._further = further
        self._peers: dict[Association, Peer] = {}
        # Whose opening went to the registrar, so that their closing must follow.
        self._recorded: set[Association] = set()
        self._lock = threading.Lock()

    def handlers(self) -> list[evt.EventHandlerType]:
        """Events and handlers, as pynetdicom's server takes them."""
        further = self._further
        bounds = Bounds(self._incoming, self._pace, *([further.answerable] if further else []))
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_ESTABLISHED, self.on_established),
            (evt.EVT_ABORTED, self.on_aborted),
            (evt.EVT_FSM_TRANSITION, on_transition),
            (evt.EVT_PDU_RECV, bounds.on_pdu),
            (evt.EVT_DIMSE_RECV, bounds.on_message),
            (evt.EVT_C_ECHO, self.on_echo),
            (evt.EVT_C_STORE, self.on_store),
            *(further.handlers() if further else []),
        ]

    def on_requested(self, event: AssociationEvent) -> None:
        """Accept or reject; whatever goes wrong here rejects."""
        association = event.assoc
        try:
            rejection = self._rejection(association)
        except Exception as error:  # noqa: BLE001 - pynetdicom accepts the association when its handler fails
            log(Event.ASSOCIATION_REFUSED, "error", error=type(error).__name__, reason=NO_REASON.words)
            rejection = NO_REASON
        if rejection is not None:
            association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            association.kill()

    def on_established(self, event: AssociationEvent) -> None:
        """Have the association written down before anything it sends."""
        peer = self._peers[event.assoc]
        self._registrar.put(Opened(peer.association_id, peer.calling_ae, peer.address, time.time()))
        self._recorded.add(event.assoc)
        log(
            Event.ASSOCIATION_OPENED,
            association=peer.association_id,
            calling_ae=peer.calling_ae,
            address=peer.address,
        )

    def on_aborted(self, event: AssociationEvent) -> None:
        """Log an A-ABORT or a lost connection; `sweep` does the rest."""
        peer = self._peers.get(event.assoc)
        if peer is not None:
            log(Event.ASSOCIATION_ABORTED, "warning", association=peer.association_id, calling_ae=peer.calling_ae)

    def on_echo(self, _event: AssociationEvent) -> int:
        """Verification: whoever got an association may know that the node lives."""
        return SUCCESS

    def on_store(self, event: AssociationEvent) -> Dataset:
        """Have the object stored, and answer."""
        request = event.request
        if not isinstance(request, C_STORE) or request.DataSet is None:
            raise TypeError("not a C-STORE request with a data set")
        data_set = request.DataSet
        incoming = data_set.incoming if isinstance(data_set, IncomingDataSet) else self._incoming(event.assoc)
        if not isinstance(data_set, IncomingDataSet):
            incoming.write(data_set.getbuffer())
        announced = Announcement(
            message_id=int(request.MessageID or 0),
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            priority=int(request.Priority or 0),
            abstract_syntax=str(event.context.abstract_syntax),
            transfer_syntax=str(event.context.transfer_syntax),
        )
        return _response(self._storage.store(announced, incoming, self._peers[event.assoc]))

    def inline_service(self) -> StoreService:
        """The same, for the thread that reads the socket."""
        return StoreService(self._storage, self._recorded_peer, frozenset(storage_classes()), self._pace)

    def on_ended(self, association: Association) -> None:
        """Let another have the place of an association whose thread ends; `sweep` does the rest."""
        peer = self._peers.get(association)
        if peer is not None:
            self._places.give_back(peer.association_id)

    def sweep(self) -> None:
        """Close what ended, however it ended: the one sign that no thread can forget is that it is gone.

        Once both of its threads ended, whichever stores its objects, all of them are with the registrar.
        """
        with self._lock:
            ended = [one for one in self._peers if not one.is_alive() and not one.dul.is_alive()]
            peers = {association: self._peers.pop(association) for association in ended}
        for association, peer in peers.items():
            self._places.give_back(peer.association_id)  # it has it still if its thread never ran
            _forget_half_an_object(association)
            if association in self._recorded:
                self._recorded.discard(association)
                self._registrar.put(Closed(peer.association_id, time.time()))
                log(Event.ASSOCIATION_CLOSED, association=peer.association_id, calling_ae=peer.calling_ae)

    def abort_all(self, patience_seconds: float) -> None:
        """Abort what is open; an object being stored is finished first, unless that takes too long."""
        with self._lock:
            running = [association for association in self._peers if association.is_alive()]
        for association in running:
            association.abort(block=False)
        until = time.monotonic() + patience_seconds
        for association in running:
            association.join(max(0.0, until - time.monotonic()))

    def _incoming(self, association: Association) -> Incoming:
        return self._storage.incoming(self._peers[association].calling_ae)

    def _recorded_peer(self, association: Association) -> Peer | None:
        return self._peers.get(association) if association in self._recorded else None

    def _rejection(self, association: Association) -> Rejection | None:
        request = association.requestor.primitive
        source = association.requestor.address_info
        if request is None or source is None:
            raise ValueError("no A-ASSOCIATE request")
        address = source.address
        connection = association.dul.socket
        shown = shown_certificate(connection.socket if connection else None)
        rejection = self._access.rejection(request.calling_ae_title, address, request.called_ae_title, shown)
        peer = Peer(uuid.uuid4().hex, request.calling_ae_title.strip(), address)
        rejection = rejection or self._places.take(peer.association_id, peer.calling_ae)
        if rejection is None:
            with self._lock:
                self._peers[association] = peer
            return None
        log(
            Event.ASSOCIATION_REFUSED,
            "warning",
            calling_ae=peer.calling_ae,
            called_ae=request.called_ae_title.strip(),
            address=address,
            reason=rejection.words,
        )
        return rejection


def _forget_half_an_object(association: Association) -> None:
    """Of an association that ended within one: its file and its share go now, not when the association is collected."""
    message = association.dimse.message
    if message is not None and isinstance(message.data_set, IncomingDataSet):
        message.data_set.incoming.discard()


def on_transition(event: AssociationEvent) -> None:
    """Have the association's thread end with its connection, where no request came: else it waits for one."""
    association = event.assoc
    if event.next_state == CLOSED and association.requestor.primitive is None:
        nothing_more: Any = None  # as where its time is over; the queue's declared type leaves it out
        association.dul.to_user_queue.put(nothing_more)


def _response(answer: Answer) -> Dataset:
    response = Dataset()
    response.Status = answer.status
    if answer.comment:
        response.ErrorComment = answer.comment
    return response
