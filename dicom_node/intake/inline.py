"""C-STORE in the thread that reads the socket: all that the receiver overrides of pynetdicom's internals for speed.

pynetdicom's two threads for each association look at their queues a thousand times a second and hand each other every
fragment, which takes several times longer than the disk takes for an image. Here

- the reading thread sleeps until its peer sends or its own side has something to send (`InlineProvider`),
- the association's thread sleeps until the reading thread did something for it (`Doorbell`),
- a C-STORE request and its data set go straight from the socket's buffer into the spool, and the answer straight back.

Negotiation, release, abort, every other service, and every C-STORE that is in any way out of the ordinary stay with
pynetdicom, which is given those PDUs unread. Written for the pynetdicom of `PYNETDICOM`; with any other the node takes
pynetdicom's own path (`usable`), on which everything works alike, only slower.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynetdicom
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine

from dicom_node.base.associations import CONNECTION_CLOSED, INVALID_PDU
from dicom_node.base.events import Event, log
from dicom_node.intake.guarded import GuardedHandler
from dicom_node.intake.identity import is_uid
from dicom_node.intake.incoming import Incoming
from dicom_node.intake.limits import MAX_PDU_BYTES, MAX_WAITING_MESSAGES, PDU_HEADER, PDU_SLACK_BYTES, Pace
from dicom_node.intake.storage import Announcement, Answer, Peer, Storage

PYNETDICOM = "3.0.4"

DATA_TRANSFER = "Sta6"  # PS3.8 9.2.1: association established and ready for data transfer
AWAITING_REQUEST = "Sta2"  # transport connection open
P_DATA_TF = 0x04
PDV = struct.Struct(">LBB")  # PS3.8 9.3.5.1 and E.2: length, context id, message control header
COMMAND, LAST = 0x01, 0x02
ELEMENT = struct.Struct("<HHL")  # command sets are implicit VR little endian (PS3.7 6.3.1)
US = struct.Struct("<H")
NUMBERS = struct.Struct("<" + 4 * "HHLH")  # four elements with a value of VR US
GROUP_LENGTH = struct.Struct("<HHLL")
C_STORE_RQ, C_STORE_RSP, NO_DATA_SET = 0x0001, 0x8001, 0x0101
PRIORITIES = (0, 1, 2)
LOOK_SECONDS = 0.2  # how late a timeout, or a word from outside, may be noticed
READ_BYTES = 1 << 18
LEAST_PDU_BYTES = 1024  # a peer that takes less gets its answers in fragments, by pynetdicom


def usable() -> bool:
    """Whether the installed pynetdicom is the one that this was written for."""
    return bool(pynetdicom.__version__ == PYNETDICOM)


@dataclass(frozen=True)
class StoreService:
    """What the reading thread needs to store: where, of whom it comes, and under which abstract syntaxes.

    peer_of: None while the association's opening was not put down yet.
    """

    storage: Storage
    peer_of: Callable[[Association], Peer | None]
    classes: frozenset[str]
    pace: Pace


def inline_handler(service: StoreService, pdu_seconds: float) -> type[GuardedHandler]:
    """pynetdicom's handler of new connections, for associations that store inline.

    pdu_seconds: how long a PDU may take that began.
    """

    class InlineHandler(GuardedHandler):
        def _prepare(self, association: Association) -> None:
            association._reactor_checkpoint = Doorbell()
            association.dul = InlineProvider(association, service, pdu_seconds)

    return InlineHandler


class Doorbell(threading.Event):
    """An association's checkpoint, at which its thread waits until there may be something to do."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self._rung = threading.Event()

    def ring(self) -> None:
        """Have the association's thread look at its queues."""
        self._rung.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it rings, or some time passed; then as long as others hold the checkpoint."""
        self._rung.wait(LOOK_SECONDS)
        self._rung.clear()
        return super().wait(timeout)


class _RingingStateMachine(StateMachine):
    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        finally:
            self.dul.assoc._reactor_checkpoint.ring()  # type: ignore[attr-defined] # a Doorbell


@dataclass
class _Storing:
    """A C-STORE whose data set is coming."""

    context_id: int
    announced: Announcement
    peer: Peer
    data_set: Incoming
    began: float


class InlineProvider(DULServiceProvider):
    """An association's reading thread (PS3.8), with Storage built in."""

    def __init__(self, association: Association, service: StoreService, pdu_seconds: float) -> None:
        """Takes the place of the provider that the association was made with."""
        replaced = association.dul
        super().__init__(association)
        self.socket, self.event_queue = replaced.socket, replaced.event_queue
        self._idle_timer, self.artim_timer = replaced._idle_timer, replaced.artim_timer
        self.state_machine = _RingingStateMachine(self)
        self._run_loop_delay = 0.0  # it sleeps in `_is_transport_event`
        self._service = service
        self._pdus = _Pdus(pdu_seconds)
        self._storing: _Storing | None = None
        self._poll = select.poll()
        self._polled: int | None = None
        self._hasty = 0  # requests in a row that came before the answer to the one before
        self._waking, self._wakened = socket.socketpair()
        self._waking.setblocking(False)
        self._lock = threading.Lock()

    def run_reactor(self) -> None:
        """Until the association ends."""
        try:
            super().run_reactor()
        finally:
            if self._storing is not None:
                self._storing.data_set.discard()
            with self._lock:
                self._waking.close()
                self._wakened.close()
            self.assoc._reactor_checkpoint.ring()  # type: ignore[attr-defined] # a Doorbell

    def send_pdu(self, primitive: Any) -> None:
        """Queue what the association's thread has to send, and wake the thread that sends."""
        super().send_pdu(primitive)
        self._wake()

    def kill_dul(self) -> None:
        """Have the thread end."""
        super().kill_dul()
        self._wake()

    def stop_dul(self) -> bool:
        """End the thread if the connection is closed; whether it was."""
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    def _wake(self) -> None:
        with self._lock:
            if self._waking.fileno() >= 0:
                try:
                    self._waking.send(b"\0")
                except BlockingIOError:  # it has been told often enough
                    return

    def _is_transport_event(self) -> bool:
        if not self.event_queue.empty():  # as the connection's opening, with which its request may have come
            return False
        connection = self._connection()
        state = self.state_machine.current_state
        if connection is None or state not in (DATA_TRANSFER, AWAITING_REQUEST):
            time.sleep(0.001)
            return super()._is_transport_event()
        if state == DATA_TRANSFER:
            return self._transfer(connection)
        if not self._readable(connection):
            return False
        self._read_pdu_data()
        return True

    def _connection(self) -> Any:
        return self.socket.socket if self.socket is not None else None

    def _readable(self, connection: Any) -> bool:
        """Wait a while for the peer; whether there is something of it. A closed connection ends the association."""
        if _pending(connection):
            return True
        try:
            descriptor = connection.fileno()
            ready = dict(self._poll_of(descriptor).poll(1000 * LOOK_SECONDS))
            if self._wakened.fileno() in ready:
                self._wakened.recv(4096)
        except (OSError, ValueError):  # closed by another thread
            self.event_queue.put(CONNECTION_CLOSED)
            return False
        return descriptor in ready

    def _poll_of(self, descriptor: int) -> select.poll:
        """Made once for a connection. Raises ValueError for a closed one's descriptor, which is negative."""
        if descriptor != self._polled or descriptor < 0:
            self._poll, self._polled = select.poll(), descriptor  # not `select`, which knows none above 1023
            self._poll.register(descriptor, select.POLLIN)
            self._poll.register(self._wakened, select.POLLIN)
        return self._poll

    def _transfer(self, connection: Any) -> bool:
        """Take C-STOREs for as long as they come and nothing else is to be done; whether anything came."""
        came = False
        try:
            connection.settimeout(0)
            while self._undisturbed() and (self._pdus.whole or self._readable(connection)):
                storing = self._read(connection)
                if storing is not None:
                    self._answer(connection, storing)
                self._idle_timer.restart()
                came = True
            if self._pdus.hopeless():
                raise ConnectionAbortedError
            connection.settimeout(self._pdus.seconds)  # for what pynetdicom sends
        except OSError:
            self.event_queue.put(CONNECTION_CLOSED)
        return came

    def _undisturbed(self) -> bool:
        return (
            self.state_machine.current_state == DATA_TRANSFER
            and not self.event_queue.queue  # what `empty` tells, without its lock
            and not self.to_provider_queue.queue
            and not self._kill_thread
            and not self._pdus.hopeless()
        )

    def _read(self, connection: Any) -> _Storing | None:
        """Take what is there, up to the end of a C-STORE, which is returned. Raises OSError at the connection's end."""
        if not self._pdus.whole:
            self._pdus.receive(connection)
        while self._pdus.whole and not self.event_queue.queue:
            pdu = self._pdus.take()
            if pdu[0] != P_DATA_TF or self.assoc.dimse.message is not None:
                self._hand_over(pdu)
                continue
            storing = self._take_data(pdu)
            if storing is not None:
                return storing
        return None

    def _take_data(self, pdu: memoryview) -> _Storing | None:
        """The C-STORE that is complete with these presentation data values."""
        try:
            values = pdu[PDU_HEADER.size :]
            place = 0
            if self._storing is None:
                self._storing, place = self._begin(values)
            if self._storing is None:
                self._hand_over(pdu)
                return None
            return self._complete(self._storing, values, place)
        except _Malformed:
            self.event_queue.put(INVALID_PDU)
            return None

    def _hand_over(self, pdu: memoryview) -> None:
        """Give pynetdicom a PDU that it would have read itself."""
        try:
            decoded, event = self._decode_pdu(bytearray(pdu))
        except Exception:  # noqa: BLE001 - whatever a PDU makes it raise, the PDU is invalid
            self.event_queue.put(INVALID_PDU)
            return
        self.event_queue.put(event)
        self._recv_pdu.put(decoded)

    def _complete(self, storing: _Storing, values: memoryview, place: int) -> _Storing | None:
        """Take a data set's next values; the C-STORE once it has all of them. Raises _Malformed."""
        complete = False
        while place < len(values):
            if complete or place + PDV.size > len(values):
                raise _Malformed
            length, context_id, control = PDV.unpack_from(values, place)
            end = place + 4 + length
            if length < 2 or end > len(values) or control & COMMAND or context_id != storing.context_id:
                raise _Malformed
            storing.data_set.write(values[place + PDV.size : end])
            place = end
            complete = bool(control & LAST)
        if complete:
            self._storing = None
            return storing
        if self._service.pace.broken(storing.began, storing.data_set.size):
            log(
                Event.ASSOCIATION_ABORTED,
                "warning",
                association=storing.peer.association_id,
                reason="a message came too slowly; see intake.least_bytes_per_second",
            )
            raise _Malformed
        return None

    def _begin(self, values: memoryview) -> tuple[_Storing | None, int]:
        """The C-STORE that begins here, and where its data set does; None for whatever else begins."""
        if len(values) < PDV.size:
            return None, 0
        length, context_id, control = PDV.unpack_from(values)
        end = 4 + length
        context = self.assoc._accepted_cx.get(context_id)
        if control & (COMMAND | LAST) != COMMAND | LAST or end > len(values) or context is None:
            return None, 0
        announced = announcement(values[PDV.size : end], str(context.abstract_syntax), str(context.transfer_syntax[0]))
        peer = self._service.peer_of(self.assoc)
        room = self.assoc.requestor.maximum_length or LEAST_PDU_BYTES
        if announced is None or peer is None or room < LEAST_PDU_BYTES:
            return None, 0
        if announced.sop_class_uid != announced.abstract_syntax or announced.sop_class_uid not in self._service.classes:
            return None, 0
        incoming = self._service.storage.incoming(peer.calling_ae)
        return _Storing(context_id, announced, peer, incoming, time.monotonic()), end

    def _answer(self, connection: Any, storing: _Storing) -> None:
        answer = self._service.storage.store(storing.announced, storing.data_set, storing.peer)
        command = response(storing.announced, answer)
        value = PDV.pack(len(command) + 2, storing.context_id, COMMAND | LAST) + command
        self._send_answer(connection, PDU_HEADER.pack(P_DATA_TF, len(value)) + value)
        self._hasty = self._hasty + 1 if self._pdus.buffered else 0
        if self._hasty > MAX_WAITING_MESSAGES:  # it goes on and on before it is answered
            self.event_queue.put(INVALID_PDU)

    def _send_answer(self, connection: Any, pdu: bytes) -> None:
        """At once where the connection takes it, as nearly always; else as pynetdicom does. Raises OSError."""
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pdu = pdu[connection.send(pdu) :]
        if pdu:
            connection.settimeout(self._pdus.seconds)
            assert self.socket is not None
            self.socket.send(pdu)
            connection.settimeout(0)


class _Malformed(Exception):
    """A P-DATA-TF that is not what must follow."""


class _Pdus:
    """Takes PDUs out of what came. seconds: how long one may take that began."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._buffer = bytearray(READ_BYTES)
        self._begin = self._end = 0
        self._began: float | None = None

    @property
    def buffered(self) -> bool:
        """Whether any of the next PDU is here."""
        return self._end > self._begin

    @property
    def whole(self) -> bool:
        """Whether all of the next PDU is here."""
        return self._end - self._begin >= self._next_size()

    def hopeless(self) -> bool:
        """Whether the next PDU declares too many bytes, or did not end in time."""
        if self._began is None or self.whole:
            return False
        too_large = self._next_size() > PDU_HEADER.size + MAX_PDU_BYTES + PDU_SLACK_BYTES
        return too_large or time.monotonic() - self._began > self.seconds

    def receive(self, connection: socket.socket) -> None:
        """Read what is there, if anything is, without waiting. Raises OSError at the connection's end."""
        if self._began is None:  # under TLS before any of it is here: half a record cannot be read
            self._began = time.monotonic()
        count = self._next_size()
        if self._begin + count > len(self._buffer) or not self.buffered:
            self._make_room(count)
        try:
            got = connection.recv_into(memoryview(self._buffer)[self._end :])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        if not got:
            raise ConnectionResetError
        self._end += got

    def take(self) -> memoryview:
        """The next PDU, which is whole. Its bytes last until more is received."""
        begin, self._begin = self._begin, self._begin + self._next_size()
        self._began = time.monotonic() if self.buffered else None
        return memoryview(self._buffer)[begin : self._begin]

    def _next_size(self) -> int:
        """How many bytes the next PDU has, as far as that is known."""
        if self._end - self._begin < PDU_HEADER.size:
            return PDU_HEADER.size
        return PDU_HEADER.size + int(PDU_HEADER.unpack_from(self._buffer, self._begin)[1])

    def _make_room(self, count: int) -> None:
        """For a PDU of so many bytes: what is here goes to the front. Nobody looks at earlier ones any more."""
        rest = self._buffer[self._begin : self._end]
        if count > len(self._buffer):
            self._buffer = bytearray(count)
        self._buffer[: len(rest)] = rest
        self._begin, self._end = 0, len(rest)


def announcement(command: memoryview, abstract_syntax: str, transfer_syntax: str) -> Announcement | None:
    """A C-STORE request (PS3.7 9.3.1.1) with all that it must have, well formed; None for any other command set."""
    elements: dict[int, bytes] = {}
    place, before = 0, -1
    while place + ELEMENT.size <= len(command):
        group, element, length = ELEMENT.unpack_from(command, place)
        place += ELEMENT.size + length
        if group != 0 or element <= before or place > len(command):
            return None
        elements[element], before = bytes(command[place - length : place]), element
    if place != len(command):
        return None
    try:
        numbers = (US.unpack(elements[one])[0] for one in (0x0100, 0x0110, 0x0700, 0x0800))
        field, message_id, priority, data_set = numbers
        sop_class, instance = (elements[one].decode("latin-1").rstrip("\0") for one in (0x0002, 0x1000))
    except (KeyError, struct.error):  # one is missing, or of another length
        return None
    if field != C_STORE_RQ or data_set == NO_DATA_SET or priority not in PRIORITIES:
        return None
    if not (is_uid(sop_class) and is_uid(instance)):
        return None
    return Announcement(message_id, sop_class, instance, priority, abstract_syntax, transfer_syntax)


def response(announced: Announcement, answer: Answer) -> bytes:
    """The command set of a C-STORE response (PS3.7 9.3.1.2)."""
    sop_class, instance = _even(announced.sop_class_uid, b"\0"), _even(announced.sop_instance_uid, b"\0")
    comment = _even(answer.comment, b" ")
    body = b"".join(
        (
            ELEMENT.pack(0, 0x0002, len(sop_class)),
            sop_class,
            NUMBERS.pack(
                *(0, 0x0100, 2, C_STORE_RSP),
                *(0, 0x0120, 2, announced.message_id),
                *(0, 0x0800, 2, NO_DATA_SET),
                *(0, 0x0900, 2, answer.status),
            ),
            ELEMENT.pack(0, 0x0902, len(comment)) + comment if comment else b"",
            ELEMENT.pack(0, 0x1000, len(instance)),
            instance,
        )
    )
    return GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _even(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)


def _pending(connection: Any) -> bool:
    """Whether TLS has bytes that no `select` tells of."""
    pending = getattr(connection, "pending", None)
    return bool(pending and pending())
