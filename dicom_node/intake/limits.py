"""What one association may make the node hold: the bounds that pynetdicom leaves to its user."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import NoReturn
from weakref import WeakKeyDictionary

from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.events import Event as AssociationEvent
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from dicom_node.base.associations import INVALID_PDU, refuse
from dicom_node.base.events import Event, log
from dicom_node.intake.incoming import Incoming

MAX_PDU_BYTES = 1 << 20  # as large as the largest P-DATA-TF that intake.max_pdu_bytes can allow
MAX_REQUEST_BYTES = 1 << 18  # an A-ASSOCIATE-RQ: 128 contexts with 16 transfer syntaxes each are 70 KB
PDU_SLACK_BYTES = 1024  # some senders count a PDU's length without its headers
PDU_HEADER = struct.Struct(">BxL")  # PS3.8 9.3.1: type, reserved, length of what follows
A_ASSOCIATE_RQ = 0x01
NO_DATA_SET = 0x0101  # PS3.7 9.3.1.1, Command Data Set Type (0000,0800)
MAX_COMMAND_BYTES = 1 << 16  # a command set is a few hundred bytes (PS3.7 6.3)
MAX_OTHER_BYTES = 4 << 20  # the data set of any request but C-STORE: far above every query and work item
MAX_WAITING_MESSAGES = 2  # no asynchronous operations are negotiated: one at a time (PS3.7 D.3.3.3)


class OversizedDataSet(BytesIO):
    """Takes the place of a data set that outgrew its bound: the rest is read and forgotten, then refused."""

    def write(self, data: object, /) -> int:
        """Keep nothing."""
        return len(data) if isinstance(data, bytes | bytearray | memoryview) else 0


class IncomingDataSet(BytesIO):
    """Takes the place of the data set of an object to be stored: it goes where the spool wants it, as it comes."""

    def __init__(self, incoming: Incoming, before: BytesIO) -> None:
        """before: what came of it already."""
        super().__init__()
        self.incoming = incoming
        incoming.write(before.getbuffer())

    def write(self, data: object, /) -> int:
        """Hand it on."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError("not bytes")
        self.incoming.write(bytes(data))
        return len(data)


class BoundedSocket(socket.socket):
    """A peer's connection: it begins with an A-ASSOCIATE-RQ, no PDU exceeds the bound, and one that began ends in time.

    Raises OSError out of `recv`, which closes the connection. Relies on pynetdicom reading a PDU's six header bytes by
    themselves.
    """

    _header = b""
    _body = 0
    _began = False
    _deadline = 0.0
    pdu_seconds = 60.0
    request_seconds = 60.0

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Like `socket.recv`, within the bounds."""
        if not self._header and not self._body:
            self._deadline = time.monotonic() + (self.pdu_seconds if self._began else self.request_seconds)
        self.settimeout(max(0.001, self._deadline - time.monotonic()))
        data = super().recv(bufsize, flags)
        if self._body:
            self._body -= len(data)
        else:
            self._begin(data)
        return data

    def _begin(self, data: bytes) -> None:
        self._header = self._header + data
        if len(self._header) < PDU_HEADER.size:
            return
        kind, self._body = PDU_HEADER.unpack_from(self._header)
        self._header = b""
        if not self._began and kind != A_ASSOCIATE_RQ:
            self._refuse("connection does not begin with an A-ASSOCIATE-RQ")
        longest = MAX_PDU_BYTES + PDU_SLACK_BYTES if self._began else MAX_REQUEST_BYTES
        self._began = True
        if self._body > longest:
            self._refuse(f"PDU of {self._body} bytes refused")

    def _refuse(self, reason: str) -> NoReturn:
        # Nothing more may come: pynetdicom would read on before it acts on the error.
        self.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError(reason)


@dataclass(frozen=True)
class Pace:
    """How slowly a message may come: it is ended once it took longer than `seconds`, and fell behind that rate since.

    A deadline for each PDU lets a peer drip one message for ever, and one for any message cuts off large ones.
    """

    seconds: float
    bytes_per_second: int

    def broken(self, began: float, count: int) -> bool:
        """Whether a message of which so many bytes came since `began` (monotonic) comes too slowly."""
        return time.monotonic() - began > self.seconds + count / self.bytes_per_second


class Bounds:
    """Handlers for what arrives within an association.

    incoming: where the data set of an object to be stored goes; it has bounds of its own. answerable: whether a request
    of none of the node's storage services can be answered.
    """

    def __init__(
        self,
        incoming: Callable[[Association], Incoming],
        pace: Pace,
        answerable: Callable[[DIMSEMessage], bool] = lambda _: False,
    ) -> None:
        self._incoming = incoming
        self._pace = pace
        self._answerable = answerable
        self._began: WeakKeyDictionary[DIMSEMessage, float] = WeakKeyDictionary()

    def on_pdu(self, event: AssociationEvent) -> None:
        """Before a PDU's fragments are added to the message being received (EVT_PDU_RECV)."""
        dimse = event.assoc.dimse
        message = dimse.message
        waiting = dimse.msg_queue.qsize() > MAX_WAITING_MESSAGES
        if waiting or (message is not None and message.encoded_command_set.tell() > MAX_COMMAND_BYTES):
            event.assoc.dul.event_queue.put(INVALID_PDU)
        elif message is not None and self._drips(message):
            log(
                Event.ASSOCIATION_ABORTED,
                "warning",
                reason="a message came too slowly; see intake.least_bytes_per_second",
            )
            event.assoc.dul.event_queue.put(INVALID_PDU)
        elif message is not None and message.data_set is not None:
            message.data_set = self._bounded(event.assoc, message, message.data_set)

    def on_message(self, event: AssociationEvent) -> None:
        """Once a message is complete (EVT_DIMSE_RECV): what pynetdicom would leave unanswered ends the association."""
        if not (_answerable(event.message) or self._answerable(event.message)):
            refuse(event)

    def _drips(self, message: DIMSEMessage) -> bool:
        began = self._began.setdefault(message, time.monotonic())
        data_set = message.data_set
        count = data_set.incoming.size if isinstance(data_set, IncomingDataSet) else data_set.tell() if data_set else 0
        return self._pace.broken(began, count)

    def _bounded(self, association: Association, message: DIMSEMessage, data_set: BytesIO) -> BytesIO:
        """What takes the rest of a data set. What has been received of it is at most one PDU beyond its bound."""
        # pynetdicom gives the message its class when the command set is complete, before any of the data set.
        if isinstance(message, C_STORE_RQ) and not isinstance(data_set, IncomingDataSet):
            return IncomingDataSet(self._incoming(association), data_set)
        if not isinstance(message, C_STORE_RQ) and data_set.tell() > MAX_OTHER_BYTES:
            return OversizedDataSet()
        return data_set


def _answerable(message: DIMSEMessage) -> bool:
    """Whether it is a request of Verification or Storage, with all that an answer needs."""
    if isinstance(message, C_ECHO_RQ):
        return True
    command = message.command_set
    return (
        isinstance(message, C_STORE_RQ)
        and command.get("CommandDataSetType") != NO_DATA_SET
        and all(command.get(keyword) for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"))
        and all(command.get(keyword) is not None for keyword in ("MessageID", "Priority"))
        # Another service would answer as if it had been asked: Verification says success, and nothing is stored.
        and uid_to_service_class(str(command.AffectedSOPClassUID)) is StorageServiceClass
    )
