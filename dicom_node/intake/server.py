"""pynetdicom's server without a listening socket: it is given connections that ask for an association."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.base.events import Event, log
from dicom_node.intake.limits import BoundedSocket
from dicom_node.intake.secured import Secured

ENDING = 32  # connections that were ended for others, and whose threads did not notice yet
TIDY_SECONDS = 0.5


class AssociationServer(ThreadedAssociationServer):
    """At most `max_connections` at once have threads, whether or not they become associations."""

    daemon_threads = True
    max_connections = 256
    pdu_seconds = 60.0
    secured: Secured | None = None  # with TLS, and then for every connection
    request_seconds = 15.0
    #: Called in an association's own thread, the last that it does.
    ended: Callable[[Association], None] = staticmethod(lambda _: None)
    _tidied = 0.0

    def server_bind(self) -> None:
        """Nothing listens here."""

    def server_activate(self) -> None:
        """Nothing listens here."""

    def serve(self, plain: socket.socket, address: Any) -> None:
        """Serve a connection in threads of its own; it is closed where it cannot have any."""
        connection = BoundedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        connection.pdu_seconds, connection.request_seconds = self.pdu_seconds, self.request_seconds
        if not self._make_room(str(address[0])):
            log(Event.ASSOCIATION_REFUSED, "warning", address=str(address[0]), reason="too many connections")
            connection.close()
            return
        connection.settimeout(self.pdu_seconds)
        try:
            self.process_request(connection, address)
        except RuntimeError as error:  # no thread can be started: this connection alone is lost
            reason = "no thread for the connection"
            log(Event.ASSOCIATION_REFUSED, "error", error=type(error).__name__, reason=reason)
            connection.close()

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

    def tidy(self) -> None:
        """Have pynetdicom collect the threads of associations that ended, now and then."""
        if time.monotonic() - self._tidied > TIDY_SECONDS:
            self.service_actions()
            self._tidied = time.monotonic()

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
