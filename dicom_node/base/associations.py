"""What every association that the node opens needs at its socket."""

from __future__ import annotations

import socket
from typing import Any

from pynetdicom import evt
from pynetdicom.events import Event


def _send_at_once(event: Event) -> None:
    connection: Any = event.assoc.dul.socket
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


#: pynetdicom leaves Nagle's algorithm on: every request would wait 40 ms for the peer's delayed acknowledgement.
WITHOUT_DELAY = (evt.EVT_CONN_OPEN, _send_at_once)
