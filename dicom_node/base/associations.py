"""What every association needs that pynetdicom does not do by itself, and why there is none."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.pdu import A_ABORT_RQ

from dicom_node.base.errors import ConfigurationError, PeerUnreachable
from dicom_node.base.tls import ClientTls, client_context, tls_words

INVALID_PDU = "Evt19"  # the state machine's "unrecognized or invalid PDU" (PS3.8 9.2.3): ends in an A-ABORT
CONNECTION_CLOSED = "Evt17"  # the state machine's "transport connection closed indication"
SERVICE_PROVIDER, UNEXPECTED_PDU = 0x02, 0x02  # source and reason of an A-ABORT (PS3.8 table 9-26)
RESPONSE = 0x8000  # in the Command Field (0000,0100) of every response (PS3.7 annex E)


def refuse(event: Event) -> None:
    """Abort the association because of a message that is complete now (EVT_DIMSE_RECV), and have nobody serve it.

    Before the abort takes effect pynetdicom would serve it: a request that its SOP class does not know ends the thread
    that does so. Without a Message ID it is no request, which is passed over. The connection ends with the abort: while
    it waited for its end, whatever else the node asked of the association would end another thread.
    """
    event.message.command_set.pop("MessageID", None)
    abort = A_ABORT_RQ()
    abort.source, abort.reason_diagnostic = SERVICE_PROVIDER, UNEXPECTED_PDU
    dul: Any = event.assoc.dul
    dul.socket.send(abort.encode())
    dul.event_queue.put(CONNECTION_CLOSED)


def is_request(event: Event) -> bool:
    """Whether the message is a request, and not a response to one."""
    return not event.message.command_set.CommandField & RESPONSE


NOBODY = "no association: nobody answers at this address"
ENDED_UNDER_TLS = "no association: the peer ended the TLS connection; does it trust the node's certificate?"


def _send_at_once(event: Event) -> None:
    connection: Any = event.assoc.dul.socket
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


#: pynetdicom leaves Nagle's algorithm on: every request would wait 40 ms for the peer's delayed acknowledgement.
WITHOUT_DELAY = (evt.EVT_CONN_OPEN, _send_at_once)


class Wrapping:
    """How pynetdicom wraps one association's socket, if it does; remembers how that went, of which it says nothing.

    Raises PeerUnreachable on construction while the certificates are of no use: they were, at the start.
    """

    def __init__(self, settings: ClientTls | None, host: str) -> None:
        self._failure = ""
        self._shaken = False
        self._settings = settings
        self._name = settings.server_name or host if settings else host
        try:
            self._context = client_context(settings) if settings else None
        except ConfigurationError as error:
            raise PeerUnreachable(str(error)) from error

    @property
    def tls_args(self) -> tuple[Any, str] | None:
        """What pynetdicom asks for: something that wraps a socket, and the name that the peer's certificate bears."""
        return (self, self._name) if self._context else None

    @property
    def words(self) -> str:
        """Why there is no association, where the peer did not even answer."""
        if self._failure:
            return f"no TLS connection: {self._failure}"
        return ENDED_UNDER_TLS if self._shaken else NOBODY

    def wrap_socket(self, plain: socket.socket, *, server_side: bool, server_hostname: str) -> ssl.SSLSocket:
        """As the context does; the handshake follows when the socket is connected."""
        assert self._context is not None
        try:
            secured = self._context.wrap_socket(plain, server_side=server_side, server_hostname=server_hostname)
        except ValueError as error:  # pynetdicom only expects what a socket raises
            self._failure = "the host is no name that a certificate can bear"
            raise ssl.SSLError(self._failure) from error
        shake = secured.do_handshake

        def do_handshake(block: bool = False) -> None:
            try:
                shake(block)
            except OSError as error:
                self._failure = tls_words(error)
                raise
            self._shaken = True

        secured.do_handshake = do_handshake  # type: ignore[method-assign]
        return secured
