"""What every association needs that pynetdicom does not do by itself."""

from __future__ import annotations

import socket
from typing import Any

from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.pdu import A_ABORT_RQ

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


def _send_at_once(event: Event) -> None:
    connection: Any = event.assoc.dul.socket
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


#: pynetdicom leaves Nagle's algorithm on: every request would wait 40 ms for the peer's delayed acknowledgement.
WITHOUT_DELAY = (evt.EVT_CONN_OPEN, _send_at_once)
