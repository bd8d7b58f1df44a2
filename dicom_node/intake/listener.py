"""The listening socket: pynetdicom's server with bounded connections."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any

from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.base.events import Event, log
from dicom_node.intake.entrance import Entrance
from dicom_node.intake.limits import BoundedSocket
from dicom_node.intake.secured import Secured

LOOK_SECONDS = 0.5
ENDING = 32  # connections that were ended for others, and whose threads did not notice yet


class Listener(ThreadedAssociationServer):
    """Accepts connections. At most `max_connections` at once have threads, whether or not they become associations."""

    request_queue_size = 128
    daemon_threads = True
    max_connections = 256
    pdu_seconds = 60.0
    secured: Secured | None = None  # with TLS, and then for every connection
    request_seconds = 15.0

    def get_request(self) -> tuple[socket.socket, Any]:
        """A bounded connection."""
        plain, address = super().get_request()
        bounded = BoundedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        bounded.pdu_seconds, bounded.request_seconds = self.pdu_seconds, self.request_seconds
        bounded.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return bounded, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: the handshake, which must not hold up others, then the association."""
        if self.secured is not None:
            request = self.secured(request, str(client_address[0]))
        if request is not None:
            super().finish_request(request, client_address)

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """One line instead of a traceback, which may quote what the peer sent."""
        log(
            Event.ASSOCIATION_ABORTED,
            "warning",
            address=str(client_address[0]),
            reason="connection could not be set up",
        )

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._stopping = threading.Event()
        # Under TLS the handshake comes first.
        self._entrance = Entrance(self.request_seconds, whole=self.secured is None)
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """False once the thread ended, on request or by an error in the program."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accept nothing more; associations go on."""
        self._stopping.set()
        self._thread.join()
        self._entrance.close()
        self.server_close()

    def _listen(self) -> None:
        # Instead of `serve_forever`, which would watch the listening socket alone.
        assert self.socket is not None
        self.socket.setblocking(False)
        self._entrance.watch(self)
        tidied = time.monotonic()
        while not self._stopping.is_set():
            for connection, address in self._entrance.asking(LOOK_SECONDS):
                try:
                    self._serve(connection, address)
                except RuntimeError as error:  # no thread can be started: this connection alone is lost
                    reason = "no thread for the connection"
                    log(Event.ASSOCIATION_REFUSED, "error", error=type(error).__name__, reason=reason)
                    connection.close()
            self._accept()
            if time.monotonic() - tidied > LOOK_SECONDS:
                self.service_actions()
                tidied = time.monotonic()

    def _accept(self) -> None:
        try:
            connection, address = self.get_request()
        except BlockingIOError:
            return
        except OSError as error:
            log(Event.ASSOCIATION_REFUSED, "error", error=type(error).__name__, reason="connection cannot be accepted")
            self._stopping.wait(LOOK_SECONDS)  # no descriptor is left, or no memory
            return
        self._entrance.enter(connection, address)

    def _serve(self, connection: socket.socket, address: Any) -> None:
        if self._make_room(str(address[0])):
            connection.settimeout(self.pdu_seconds)
            self.process_request(connection, address)
        else:
            log(Event.ASSOCIATION_REFUSED, "warning", address=str(address[0]), reason="too many connections")
            connection.close()

    def _make_room(self, host: str) -> bool:
        """Whether one more may have threads. Where too many have no association, as refused peers that do not leave,
        the oldest is ended.
        """
        present = self.active_associations
        idle = [one for one in present if not one.is_established]
        own = [one for one in idle if one.requestor.address_info and one.requestor.address_info.address == host]
        if len(own) >= self.max_connections // 4:
            _end(own[0])
        elif len(present) >= self.max_connections and idle:
            _end(idle[0])
        return len(present) < self.max_connections + ENDING


def _end(association: Any) -> None:
    with suppress(OSError, AttributeError):  # it ended by itself
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
