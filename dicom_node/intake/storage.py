"""Verification of what a C-STORE brings, and its way into spool and registry: the same whoever reads the network.

Success is answered only after the spool said that the object is durable.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from dicom_node.base.disk import NO_RESERVE, Reserve
from dicom_node.base.errors import DiskFull, NodeError, NotDicom, PermanentError
from dicom_node.base.events import Event, log
from dicom_node.base.types import Arrival
from dicom_node.intake.identity import Identity, InvalidUid, checked_uid, read_identity
from dicom_node.intake.incoming import Incoming, TooLarge, TooMuchInTransit
from dicom_node.intake.registrar import Registrar, RegistryBehind
from dicom_node.intake.spool import Spool, arrival_of
from dicom_node.intake.transit import Transit

SUCCESS = 0x0000
PRIORITY_HIGH = 0x0001  # PS3.7 9.3.1.1, (0000,0700)
PARSED_AT_ONCE = 4  # a hostile header may cost 64 MB while it is read (`prima_core.base.bounded`)
MAX_COMMENT = 64  # Error Comment (0000,0902) is LO


class Mismatch(NotDicom):
    """The data set is not the instance that the C-STORE request announced."""


class ClassNotNegotiated(PermanentError):
    """The request names another SOP class than its presentation context."""


#: PS3.4 B.2.3 and PS3.7 annex C; the first line that fits counts, anything else is a processing failure.
STATUS: tuple[tuple[type[NodeError], int], ...] = (
    (DiskFull, 0xA700),
    (RegistryBehind, 0xA700),
    (TooMuchInTransit, 0xA700),
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


@dataclass(frozen=True)
class Peer:
    """An accepted peer. calling_ae: without padding."""

    association_id: str
    calling_ae: str
    address: str


@dataclass(frozen=True)
class Announcement:
    """What a C-STORE request and its presentation context say of the data set that follows (PS3.7 9.3.1.1)."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    priority: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Answer:
    """Status (0000,0900), and Error Comment (0000,0902), which is free of patient data."""

    status: int
    comment: str = ""


class Storage:
    """Takes objects into the spool, and their rows to the registrar."""

    def __init__(
        self,
        spool: Spool,
        registrar: Registrar,
        max_object_bytes: int,
        transit: Transit,
        reserve: Reserve = NO_RESERVE,
        parsed_at_once: int = PARSED_AT_ONCE,
    ) -> None:
        self._spool = spool
        self._registrar = registrar
        self._max_object_bytes = max_object_bytes
        self._transit = transit
        self._reserve = reserve
        self._parsing = threading.Semaphore(parsed_at_once)

    def incoming(self, calling_ae: str) -> Incoming:
        """Where to write a data set as it comes."""
        return self._spool.incoming(self._max_object_bytes, self._transit.share(calling_ae), self._reserve)

    def store(self, announced: Announcement, data_set: Incoming, peer: Peer) -> Answer:
        """Make a whole data set durable, or say why not. Never raises."""
        try:
            arrival = self._store(announced, data_set, peer)
        except Exception as error:  # noqa: BLE001 - the association's edge: every error becomes a status
            data_set.discard()
            return _refused(error, peer)
        log(
            Event.OBJECT_STORED,
            "debug",
            study=arrival.study_id,
            association=peer.association_id,
            sop_uid=arrival.sop_instance_uid,
            bytes=arrival.size,
        )
        return Answer(SUCCESS)

    def _store(self, announced: Announcement, data_set: Incoming, peer: Peer) -> Arrival:
        self._registrar.admit()
        try:
            data_set.check()
        except OSError as error:
            raise DiskFull(f"object could not be written: {error.strerror}; free space in node.storage") from error
        with data_set.reading() as stream:
            identity = read_identity(stream, announced.transfer_syntax, self._max_object_bytes, self._parsing)
        _check_announced(identity, announced)
        arrival = arrival_of(
            identity,
            transfer_syntax_uid=announced.transfer_syntax,
            digest=data_set.digest,
            size=data_set.size,
            calling_ae=peer.calling_ae,
            urgent=announced.priority == PRIORITY_HIGH,
            received_at=time.time(),
            association_id=peer.association_id,
        )
        self._reserve.admit(data_set.unwritten)
        self._spool.keep(arrival, data_set)
        self._registrar.put(arrival)
        return arrival


def _check_announced(identity: Identity, announced: Announcement) -> None:
    announced_class = checked_uid(announced.sop_class_uid, "Affected SOP Class UID")
    if announced_class != announced.abstract_syntax:
        raise ClassNotNegotiated("SOP class was not negotiated for this presentation context")
    if identity.sop_class_uid != announced_class:
        raise Mismatch("data set has another SOP Class UID than announced")
    announced_instance = checked_uid(announced.sop_instance_uid, "Affected SOP Instance UID")
    if identity.sop_instance_uid != announced_instance:
        raise Mismatch("data set has another SOP Instance UID than announced")


def _refused(error: Exception, peer: Peer) -> Answer:
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
    return Answer(status, words[:MAX_COMMENT])
