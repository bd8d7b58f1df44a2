"""What a receiver and its helpers tell each other: short messages over a pair of sockets, and connections with them.

Each message is a list of JSON in a packet of its own (SOCK_SEQPACKET, unix(7)), so that threads may send without taking
turns. To a helper go

    ["connection", host, port]        with the connection's descriptor: serve it
    ["answer", association id, words] whether a place was free: words of the rejection, or null
    ["stop"]                          end in order
    ["alive"]                         the receiver is not held still

and from it come `["ready"]`, `["alive"]`, `["ask", association id, calling AE title]`, `["ended", association id]`.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

CONNECTION, ANSWER, STOP = "connection", "answer", "stop"
READY, ALIVE, ASK, ENDED = "ready", "alive", "ask", "ended"
LONGEST_MESSAGE = 4096
ALIVE_SECONDS = 5.0  # how often each side says that it lives
INT = struct.Struct("i")


@dataclass(frozen=True)
class Message:
    """kind: one of this module's. connection: what came with it, which the receiver of the message closes; None also
    where this process may have no more descriptors.
    """

    kind: str
    fields: Sequence[Any]
    connection: socket.socket | None = None


class Channel:
    """One end. Any thread may send; one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, kind: str, *fields: Any, connection: socket.socket | None = None) -> bool:
        """Whether the other side can have it, which may end before it reads it; never waits.

        Some hundred messages that nobody read are as many as there can be.
        """
        packet = json.dumps([kind, *fields]).encode()
        with_it = [] if connection is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, INT.pack(connection.fileno()))]
        try:
            # Not `socket.send_fds`, which leaves the flags out.
            self._end.sendmsg([packet], with_it, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # the other side is gone, or does not read
            return False
        return True

    def receive(self, timeout: float | None) -> Message | None:
        """The next message; None where none came in time. Raises EOFError when the other side is gone."""
        # Not a time-out of the socket's own, with which `send` would wait as well.
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        if not poll.poll(None if timeout is None else 1000 * timeout):
            return None
        try:
            # One that there is no room for, with as many descriptors as a process may have, is left out by the kernel.
            packet, descriptors, _, _ = socket.recv_fds(self._end, LONGEST_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise EOFError from error
        if not packet:
            raise EOFError
        kind, *fields = json.loads(packet)
        return Message(kind, fields, socket.socket(fileno=descriptors[0]) if descriptors else None)

    def close(self) -> None:
        """Let the other side know that this one is gone."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()
