"""The HL7 receiver: takes messages over MLLP, has them stored, then applied, and only then acknowledges them.

How a message ends:
- stored and applied: AA;
- malformed, or its content was refused: AE with the reason; a type, event, version or processing ID that is not for
  this node: AR (chapter 2.9.2.2). Both are stored all the same;
- it could not be stored or applied now (the database is away, a fault in the node): no answer, and the connection ends.
  An AR would be right by chapter 2.9 as well, but many senders skip a message on it; on silence every sender repeats;
- the same bytes again, already applied: AA again, nothing else;
- longer than the limit: AE if its header could be read, the connection ends, nothing is stored;
- wrong framing, a peer that stops inside a message: nothing to answer, the connection ends.

Connections are limited, of one address and of all together. Past a limit the one that has been idle for longest is
closed for the new one, so that nobody who may connect is shut out by connections on which nothing happens; the new one
is refused only while all are inside a message.

Original and enhanced acknowledgement mode are both answered as MSH-15 and MSH-16 ask. Messages of one connection are
worked off in order; several connections at once, so `store` and `apply` must bear threads.
"""

from __future__ import annotations

import ipaddress
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from dicom_node.base.errors import NodeError, PermanentError, RetriableError
from dicom_node.base.events import type_and_place
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.hl7_settings import Hl7Listener
from dicom_node.base.orders import WorklistEvent
from dicom_node.base.tls import Renewing, server_context, tls_words
from dicom_node.worklist.hl7.acknowledgement import acknowledge, replies
from dicom_node.worklist.hl7.framing import BlockReader, MessageTooLarge, WrongFraming, block
from dicom_node.worklist.hl7.header import Header, read_header
from dicom_node.worklist.hl7.inbound import read_events
from dicom_node.worklist.hl7.refusal import Condition, Refused

CHUNK = 1 << 16
STOP_SECONDS = 10.0
NOT_A_PEER = "not one of the peers that may connect"
NO_TLS = "no TLS connection"


@dataclass(frozen=True)
class Stored:
    """Where a message is kept. applied: the very same bytes were applied before."""

    id: int
    applied: bool = False


@dataclass
class _Place:
    """An open connection. socket: itself, or what TLS made of it. idle_since: monotonic; None inside a message."""

    socket: socket.socket
    address: str
    idle_since: float | None
    closed: bool = False


@dataclass(frozen=True)
class Handlers:
    """What the node does with messages. All are called from the connections' threads.

    store(bytes, peer's address): returns once the message is durable. apply(id, events): all of them or none, in one
    transaction; PermanentError refuses the message (AE), any other error means "not now". refused(id, reason): the
    message is kept and was not applied. trouble(peer's address, reason): a connection ended, or was not let in, for a
    reason worth a log line; no patient data in it.
    """

    store: Callable[[bytes, str], Stored]
    apply: Callable[[int, tuple[WorklistEvent, ...]], None]
    refused: Callable[[int, Refused], None]
    trouble: Callable[[str, str], None]


class NotSecured(RetriableError):
    """The peer could not prove itself, or does not speak TLS."""


class Hl7Receiver(socketserver.ThreadingTCPServer):
    """Listens from construction on; `start` serves. Raises ConfigurationError or OSError (the port is taken)."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, settings: Hl7Listener, handlers: Handlers) -> None:
        self.settings = settings
        self.handlers = handlers
        self.context = Renewing(partial(server_context, settings.tls)) if settings.tls else None
        self._places: dict[Any, _Place] = {}
        self.stopping = False
        self._changed = threading.Condition()
        self._peers = {_plain(peer) for peer in settings.peers}
        if ":" in settings.bind:
            self.address_family = socket.AF_INET6
        super().__init__((settings.bind, settings.port or 0), _Conversation)

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self.serve_forever, args=(0.1,), name="hl7-receiver", daemon=True).start()

    def stop(self) -> None:
        """Accept nothing more; a message that is being worked on is finished and answered first."""
        self.stopping = True
        self.shutdown()
        self.server_close()
        with self._changed:
            for place in self._places.values():
                _stop_reading(place.socket)
            self._changed.wait_for(lambda: not self._places, STOP_SECONDS)

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Whether this peer may connect, and now."""
        address = str(client_address[0])
        source = _plain(address)
        if source not in self._peers and (self._peers or not source.is_loopback):
            self.handlers.trouble(address, NOT_A_PEER)
            return False
        own = self._find_place(address, self.settings.max_connections_of_one, of_one=True)
        return own and self._find_place(address, self.settings.max_connections, of_one=False)

    def _find_place(self, address: str, limit: int, *, of_one: bool) -> bool:
        """Whether there is a place, or one could be freed. of_one: only the connections of this address count."""
        with self._changed:
            open_now = [place for place in self._places.values() if not place.closed]
            taken = [place for place in open_now if place.address == address] if of_one else open_now
            if len(taken) < limit:
                return True
            idle = [(place.idle_since, place) for place in taken if place.idle_since is not None]
            longest = min(idle, key=lambda one: one[0])[1] if idle else None
            if longest is not None:
                longest.closed = True
                _stop_reading(longest.socket)
        if longest is None:
            self.handlers.trouble(address, "too many connections, all of them inside a message")
        else:
            self.handlers.trouble(longest.address, "idle for longest when another connection needed the place")
        return longest is not None

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection."""
        with self._changed:
            self._places[request] = _Place(request, str(client_address[0]), time.monotonic())
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection has ended."""
        with self._changed:
            self._places.pop(request, None)
            self._changed.notify_all()
        super().shutdown_request(request)

    def secured(self, request: Any, connection: socket.socket) -> None:
        """What TLS made of a connection: this is what to end then."""
        with self._changed:
            self._places[request].socket = connection

    def waits(self, request: Any) -> bool:
        """A connection waits for its next message; False once its place was given away."""
        with self._changed:
            place = self._places[request]
            if place.idle_since is None:
                place.idle_since = time.monotonic()
            return not place.closed

    def works(self, request: Any) -> None:
        """A message has begun on a connection: it keeps its place until the answer."""
        with self._changed:
            self._places[request].idle_since = None

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Nothing to print: a conversation reports its own end."""


class _Conversation(socketserver.BaseRequestHandler):
    """One connection, until either side ends it."""

    server: Hl7Receiver

    def setup(self) -> None:
        self._settings = self.server.settings
        self._handlers = self.server.handlers
        self._address = str(self.client_address[0])
        self._socket: socket.socket = self.request
        self._reader = BlockReader(self._settings.max_message_bytes)

    def handle(self) -> None:
        try:
            self._secure()
            self._converse()
        except MessageTooLarge as error:
            self._handlers.trouble(self._address, str(error))
            self._refuse_too_large(error)
        except TimeoutError:
            self._handlers.trouble(self._address, "nothing came in time")
        except (OSError, NodeError) as error:
            self._handlers.trouble(self._address, str(error) if isinstance(error, NodeError) else type(error).__name__)
        except Exception as error:  # noqa: BLE001 - the peer's edge: it gets no answer and will send again
            self._handlers.trouble(self._address, type_and_place(error))

    def finish(self) -> None:
        if self._socket is not self.request:
            self._socket.close()

    def _secure(self) -> None:
        self._socket.settimeout(self._settings.message_timeout_seconds)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.context is not None:
            try:
                self._socket = self.server.context().wrap_socket(self._socket, server_side=True)
            except OSError as error:
                raise NotSecured(f"{NO_TLS}: {tls_words(error)}") from error
            self.server.secured(self.request, self._socket)

    def _converse(self) -> None:
        began = time.monotonic()
        while not self.server.stopping:
            message = self._reader.next()
            if message is not None:
                self.server.works(self.request)
                self._take(message)
                began = time.monotonic()
                continue
            if self._reader.within_block:
                self.server.works(self.request)
                self._socket.settimeout(_remaining(began + self._settings.message_timeout_seconds))
            elif self.server.waits(self.request):
                self._socket.settimeout(self._settings.idle_timeout_seconds)
            else:
                break
            data = self._socket.recv(CHUNK)
            if not data:
                break
            if not self._reader.within_block:
                began = time.monotonic()
            self._reader.feed(data)
        if self._reader.within_block:
            raise WrongFraming("the connection ended inside a message")

    def _take(self, raw: bytes) -> None:
        """Store, apply, answer: in this order, and nothing is answered when one of the first two fails."""
        stored = self._handlers.store(raw, self._address)
        passed(FaultPoint.MESSAGE_STORED)
        refusal = None if stored.applied else self._apply(stored.id, raw)
        passed(FaultPoint.MESSAGE_APPLIED)
        if refusal is not None:
            self._handlers.refused(stored.id, refusal)
        self._answer(_header(raw), refusal)

    def _apply(self, stored_id: int, raw: bytes) -> Refused | None:
        try:
            self._handlers.apply(stored_id, read_events(raw, self._settings))
        except Refused as refusal:
            return refusal
        except PermanentError as error:
            return Refused(Condition.APPLICATION_INTERNAL_ERROR, str(error))
        return None

    def _answer(self, header: Header | None, refusal: Refused | None) -> None:
        self._socket.settimeout(self._settings.message_timeout_seconds)
        for code in replies(header, refusal):
            self._socket.sendall(block(acknowledge(header, code, refusal, uuid.uuid4().hex[:20], time.time())))

    def _refuse_too_large(self, error: MessageTooLarge) -> None:
        """Answer, then let the peer finish sending: a connection reset at once would take the answer with it."""
        try:
            self._answer(_header(error.head), Refused(Condition.APPLICATION_INTERNAL_ERROR, str(error)))
            deadline = time.monotonic() + self._settings.message_timeout_seconds
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while time.monotonic() < deadline:
                self._socket.settimeout(_remaining(deadline))
                if not self._socket.recv(CHUNK):
                    return
        except OSError as broken:
            self._handlers.trouble(self._address, type(broken).__name__)


def _header(raw: bytes) -> Header | None:
    try:
        return read_header(raw)
    except Refused:
        return None


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _stop_reading(connection: socket.socket) -> None:
    try:
        # Not SSLSocket's own shutdown, which would end the encryption under an answer that is being sent.
        socket.socket.shutdown(connection, socket.SHUT_RD)
    except OSError:
        return  # it has ended by itself
