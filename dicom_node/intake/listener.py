"""The listening socket: pynetdicom's server with bounded connections."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Any

from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.base.events import Event, log
from dicom_node.intake.limits import BoundedSocket
from dicom_node.intake.secured import Secured


class Listener(ThreadedAssociationServer):
    """Accepts connections, at most `max_connections` at once whether or not they ever become associations."""

    request_queue_size = 128
    daemon_threads = True
    max_connections = 256
    pdu_seconds = 60.0
    secured: Secured | None = None  # with TLS, and then for every connection

    def get_request(self) -> tuple[socket.socket, Any]:
        """A bounded connection."""
        plain, address = super().get_request()
        bounded = BoundedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        bounded.pdu_seconds = self.pdu_seconds
        bounded.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bounded.settimeout(self.pdu_seconds)
        return bounded, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: the handshake, which must not hold up others, then the association."""
        if self.secured is not None:
            request = self.secured(request, str(client_address[0]))
        if request is not None:
            super().finish_request(request, client_address)

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Whether to serve a new connection at all."""
        if len(self.active_associations) < self.max_connections:
            return True
        log(Event.ASSOCIATION_REFUSED, "warning", address=str(client_address[0]), reason="too many connections")
        return False

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
        threading.Thread(target=self.serve_forever, name="listener", daemon=True).start()

    def stop(self) -> None:
        """Accept nothing more; associations go on."""
        # Not pynetdicom's shutdown(), which expects the server to have been started by its AE.
        socketserver.BaseServer.shutdown(self)
        self.server_close()
