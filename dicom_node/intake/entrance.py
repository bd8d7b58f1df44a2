"""Where new connections wait until they ask for an association: without a thread, and not for long.

An association costs pynetdicom two threads. A connection gets them once its A-ASSOCIATE-RQ has arrived as a whole,
which the kernel tells by the socket's low-water mark; one that sends nothing, drips or says something else costs a
descriptor. Past a limit the one that has waited for longest is closed for the new one: silence keeps nobody out.
"""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass
from typing import Any

from dicom_node.base.events import Event, log
from dicom_node.intake.limits import A_ASSOCIATE_RQ, MAX_REQUEST_BYTES, PDU_HEADER

WAITING = 256  # connections at a time
WAITING_OF_ONE = 128  # of them from one address
LEAST_REQUEST_BYTES = 68  # the fixed part (PS3.8 table 9-11)
LOG_SECONDS = 10.0  # a flood is told in one line for each of these


@dataclass
class _Place:
    address: Any
    since: float
    needs: int


class Entrance:
    """Connections that wait, the oldest first. Not safe for several threads.

    seconds: how long one may wait. whole: until its A-ASSOCIATE-RQ is there; else, for TLS, until anything is.
    """

    def __init__(self, seconds: float, *, whole: bool = True) -> None:
        self._seconds = seconds
        self._whole = whole
        self._places: dict[socket.socket, _Place] = {}
        self._selector = selectors.DefaultSelector()
        self._shut_out = 0
        self._told = 0.0

    def watch(self, listening: Any) -> None:
        """Have `asking` return when somebody connects there."""
        self._selector.register(listening, selectors.EVENT_READ)

    def enter(self, connection: socket.socket, address: Any) -> None:
        """A new connection."""
        own = [one for one, place in self._places.items() if place.address[0] == address[0]]
        if len(own) >= WAITING_OF_ONE:
            self._give_up(own[0])
        elif len(self._places) >= WAITING:
            self._give_up(next(iter(self._places)))
        connection.setblocking(False)
        self._places[connection] = _Place(address, time.monotonic(), 0)
        self._selector.register(connection, selectors.EVENT_READ)
        self._wait_for(connection, PDU_HEADER.size if self._whole else 1)

    def asking(self, timeout: float) -> list[tuple[socket.socket, Any]]:
        """Wait so long; then the connections that ask for an association, with their addresses: they leave."""
        ready = [key.fileobj for key, _ in self._selector.select(timeout)]
        asking = [one for one in ready if isinstance(one, socket.socket) and one in self._places and self._asks(one)]
        served = [(one, self._leave(one).address) for one in asking]
        for connection, _ in served:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        now = time.monotonic()
        for one in [one for one, place in self._places.items() if now - place.since > self._seconds]:
            self._close(one)
        self._tell(now)
        return served

    def close(self) -> None:
        """Close all that wait."""
        for one in list(self._places):
            self._close(one)
        self._selector.close()

    def _asks(self, connection: socket.socket) -> bool:
        """Whether to serve it now; it is closed where it ended, or began with anything but a request."""
        place = self._places[connection]
        try:
            begun = connection.recv(PDU_HEADER.size, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            begun = b""
        if not begun:
            self._close(connection)
            return False
        if not self._whole or place.needs > PDU_HEADER.size:
            return True  # what there is of it: the kernel waits no longer for the rest
        if len(begun) < PDU_HEADER.size:
            self._close(connection)
            return False
        kind, length = PDU_HEADER.unpack(begun)
        if kind != A_ASSOCIATE_RQ or not LEAST_REQUEST_BYTES <= length <= MAX_REQUEST_BYTES:
            self._close(connection)
            return False
        self._wait_for(connection, PDU_HEADER.size + length)
        return False

    def _wait_for(self, connection: socket.socket, count: int) -> None:
        self._places[connection].needs = count
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        except OSError:  # it ended meanwhile
            self._close(connection)

    def _leave(self, connection: socket.socket) -> _Place:
        self._selector.unregister(connection)
        return self._places.pop(connection)

    def _close(self, connection: socket.socket) -> None:
        self._leave(connection)
        connection.close()

    def _give_up(self, connection: socket.socket) -> None:
        self._close(connection)
        self._shut_out += 1

    def _tell(self, now: float) -> None:
        if self._shut_out and now - self._told > LOG_SECONDS:
            reason = "too many connections that ask for nothing; the oldest were closed"
            log(Event.ASSOCIATION_REFUSED, "warning", count=self._shut_out, reason=reason)
            self._shut_out, self._told = 0, now
