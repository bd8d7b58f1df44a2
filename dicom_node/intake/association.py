"""What the node does at each event of an association, and the one table from errors to DICOM status.

pynetdicom calls these handlers. Success is answered to a C-STORE only after the spool said that the object is durable.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event as AssociationEvent
from pynetdicom.presentation import PresentationContext

from dicom_node.base.disk import NO_RESERVE, Reserve
from dicom_node.base.errors import DiskFull, NodeError, NotDicom, PermanentError
from dicom_node.base.events import Event, log
from dicom_node.base.types import Arrival
from dicom_node.intake.access import LIMIT_EXCEEDED, NO_REASON, AccessRule, Rejection
from dicom_node.intake.identity import Identity, InvalidUid, TooLarge, checked_uid, read_identity
from dicom_node.intake.limits import Bounds, OversizedDataSet
from dicom_node.intake.registrar import Closed, Opened, Registrar, RegistryBehind
from dicom_node.intake.spool import Spool, arrival_of

SUCCESS = 0x0000
PRIORITY_HIGH = 0x0001  # PS3.7 9.3.1.1, (0000,0700)
MAX_COMMENT = 64  # Error Comment (0000,0902) is LO


class Mismatch(NotDicom):
    """The data set is not the instance that the C-STORE request announced."""


class ClassNotNegotiated(PermanentError):
    """The request names another SOP class than its presentation context."""


#: PS3.4 B.2.3 and PS3.7 annex C; the first line that fits counts, anything else is a processing failure.
STATUS: tuple[tuple[type[NodeError], int], ...] = (
    (DiskFull, 0xA700),
    (RegistryBehind, 0xA700),
    (ClassNotNegotiated, 0x0122),
    (Mismatch, 0xA900),
    (InvalidUid, 0x0117),
    (TooLarge, 0xC001),
    (NotDicom, 0xC000),
)
PROCESSING_FAILURE = 0x0110


def status_of(error: Exception) -> int:
    """The C-STORE status for an error."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), PROCESSING_FAILURE)


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


@dataclass
class _Peer:
    """An accepted peer. `recorded`: its opening went to the registrar, so its closing must follow."""

    association_id: str
    calling_ae: str
    address: str
    recorded: bool = False


class StorageProvider:
    """Verification and Storage SCP (PS3.4 annexes A and B) over one spool, beside further services if there are any."""

    def __init__(
        self,
        access: AccessRule,
        spool: Spool,
        registrar: Registrar,
        max_associations: int,
        max_object_bytes: int,
        further: FurtherServices | None = None,
        reserve: Reserve = NO_RESERVE,
    ) -> None:
        self._access = access
        self._spool = spool
        self._registrar = registrar
        self._max_associations = max_associations
        self._max_object_bytes = max_object_bytes
        self._further = further
        self._reserve = reserve
        self._peers: dict[Association, _Peer] = {}
        self._lock = threading.Lock()

    def handlers(self) -> list[evt.EventHandlerType]:
        """Events and handlers, as pynetdicom's server takes them."""
        further = self._further
        bounds = Bounds(self._max_object_bytes, further.answerable) if further else Bounds(self._max_object_bytes)
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_ESTABLISHED, self.on_established),
            (evt.EVT_ABORTED, self.on_aborted),
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
        peer.recorded = True
        self._registrar.put(Opened(peer.association_id, peer.calling_ae, peer.address, time.time()))
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
        """Make the object durable and answer, with a reason free of patient data when it is refused."""
        peer = self._peers[event.assoc]
        try:
            arrival = self._store(event, peer)
        except Exception as error:  # noqa: BLE001 - the association's edge: every error becomes a status
            return _refused(error, peer)
        log(
            Event.OBJECT_STORED,
            "debug",
            study=arrival.study_id,
            association=peer.association_id,
            sop_uid=arrival.sop_instance_uid,
            bytes=arrival.size,
        )
        return _response(SUCCESS)

    def sweep(self) -> None:
        """Close what ended, however it ended: the one sign that no thread can forget is that it is gone.

        The association's own thread stores its objects, so once it ended all of them are with the registrar.
        """
        with self._lock:
            ended = [association for association in self._peers if not association.is_alive()]
            peers = [self._peers.pop(association) for association in ended]
        for peer in peers:
            if peer.recorded:
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

    def _rejection(self, association: Association) -> Rejection | None:
        request = association.requestor.primitive
        source = association.requestor.address_info
        if request is None or source is None:
            raise ValueError("no A-ASSOCIATE request")
        address = source.address
        rejection = self._access.rejection(request.calling_ae_title, address, request.called_ae_title)
        peer = _Peer(uuid.uuid4().hex, request.calling_ae_title.strip(), address)
        with self._lock:
            if rejection is None and len(self._peers) >= self._max_associations:
                rejection = LIMIT_EXCEEDED
            if rejection is None:
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

    def _store(self, event: AssociationEvent, peer: _Peer) -> Arrival:
        self._registrar.admit()
        request = event.request
        if not isinstance(request, C_STORE) or request.DataSet is None:
            raise NotDicom("not a C-STORE request with a data set")
        data_set = request.DataSet
        if isinstance(data_set, OversizedDataSet) or data_set.getbuffer().nbytes > self._max_object_bytes:
            raise TooLarge("object is larger than intake.max_object_bytes")
        syntax = str(event.context.transfer_syntax)
        data_set.seek(0)
        identity = read_identity(data_set, syntax, self._max_object_bytes)
        _check_announced(identity, request, str(event.context.abstract_syntax))
        encoded = data_set.getbuffer()
        arrival = arrival_of(
            identity,
            transfer_syntax_uid=syntax,
            digest=hashlib.sha256(encoded).hexdigest(),
            size=len(encoded),
            calling_ae=peer.calling_ae,
            urgent=request.Priority == PRIORITY_HIGH,
            received_at=time.time(),
            association_id=peer.association_id,
        )
        self._reserve.admit(len(encoded))
        self._spool.write(arrival, encoded)
        self._registrar.put(arrival)
        return arrival


def _check_announced(identity: Identity, request: C_STORE, abstract_syntax: str) -> None:
    announced_class = checked_uid(str(request.AffectedSOPClassUID), "Affected SOP Class UID")
    if announced_class != abstract_syntax:
        raise ClassNotNegotiated("SOP class was not negotiated for this presentation context")
    if identity.sop_class_uid != announced_class:
        raise Mismatch("data set has another SOP Class UID than announced")
    announced_instance = checked_uid(str(request.AffectedSOPInstanceUID), "Affected SOP Instance UID")
    if identity.sop_instance_uid != announced_instance:
        raise Mismatch("data set has another SOP Instance UID than announced")


def _refused(error: Exception, peer: _Peer) -> Dataset:
    status = status_of(error)
    # Only the node's own errors have messages that are known to be free of patient data.
    words = str(error) if isinstance(error, NodeError) else "processing failure"
    log(
        Event.OBJECT_REFUSED,
        "warning" if isinstance(error, NodeError) else "error",
        association=peer.association_id,
        calling_ae=peer.calling_ae,
        status=f"0x{status:04X}",
        reason=words,
        error=type(error).__name__,
    )
    return _response(status, words)


def _response(status: int, comment: str = "") -> Dataset:
    response = Dataset()
    response.Status = status
    if comment:
        response.ErrorComment = comment[:MAX_COMMENT]
    return response
