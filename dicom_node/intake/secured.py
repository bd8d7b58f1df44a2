"""TLS on the DICOM port: each connection's handshake in its own thread, with a deadline, and never too many at once."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from functools import partial

from dicom_node.base.events import Event, log
from dicom_node.base.tls import Renewing, ServerTls, server_context, tls_words
from dicom_node.intake.limits import BoundedSocket

MAX_HANDSHAKES = 128  # under way; for one more the oldest is given up, so that silence keeps nobody out


class BoundedTlsSocket(BoundedSocket, ssl.SSLSocket):  # type: ignore[misc]  # they name an argument differently
    """A bounded connection under TLS: what the bounds count is what was decrypted."""


class Secured:
    """Makes TLS connections of accepted ones. seconds: what a handshake may take; at_once: how many may be under way.

    Raises ConfigurationError on construction when the certificates cannot be used.
    """

    def __init__(self, settings: ServerTls, seconds: float, at_once: int = MAX_HANDSHAKES) -> None:
        self._at_once = at_once
        self._context = Renewing(partial(server_context, settings, BoundedTlsSocket))
        self._seconds = seconds
        self._under_way: list[ssl.SSLSocket] = []
        self._lock = threading.Lock()

    def __call__(self, plain: BoundedSocket, address: str) -> socket.socket | None:
        """The connection once its handshake is done, as it is for the rest; None, and closed, when that failed."""
        patience = plain.gettimeout()
        try:
            connection = self._shaken(plain)
        except OSError as error:
            log(Event.TLS_REFUSED, "warning", address=address, reason=tls_words(error))
            return None
        assert isinstance(connection, BoundedTlsSocket)
        connection.pdu_seconds, connection.request_seconds = plain.pdu_seconds, plain.request_seconds
        connection.settimeout(patience)
        return connection

    def _shaken(self, plain: BoundedSocket) -> ssl.SSLSocket:
        connection = self._context().wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._make_room(connection)
        try:
            connection.settimeout(self._seconds)
            connection.do_handshake()
        except BaseException:
            connection.close()
            raise
        finally:
            with self._lock, suppress(ValueError):
                self._under_way.remove(connection)
        return connection

    def _make_room(self, connection: ssl.SSLSocket) -> None:
        with self._lock:
            self._under_way.append(connection)
            oldest = self._under_way.pop(0) if len(self._under_way) > self._at_once else None
        if oldest is not None:
            with suppress(OSError):  # it ended by itself
                # The plain socket's: it wakes the thread that waits, which closes it.
                socket.socket.shutdown(oldest, socket.SHUT_RDWR)
