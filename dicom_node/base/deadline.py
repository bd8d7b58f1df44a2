"""One moment by which an exchange with a peer is over, whatever the peer does.

A timeout bounds one wait: a peer that sends a byte before each ends holds its connection for ever. At the deadline the
connection itself is shut down, which ends every read and write that waits on it, and all that follow.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

#: An exchange (connecting, sending and the answer, each at most twice) ends within so many of its peer's timeouts.
TIMEOUTS_PER_EXCHANGE = 6
TOO_LATE = "the peer did not bring the exchange to its end in time"


class Deadline:
    """Ends what is exchanged over the sockets it watches so many seconds after its block was entered."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._over = self._left = False
        self._watched: list[socket.socket] = []

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """What is still open stays open from now on."""
        self._timer.cancel()
        with self._lock:
            self._left = True

    @property
    def passed(self) -> bool:
        """Whether it ended the exchange."""
        return self._over

    def remaining(self, at_most: float) -> float:
        """Seconds for one wait: above 0, as 0 would mean not to wait at all."""
        return max(min(at_most, self._until - time.monotonic()), 0.001)

    def watch(self, peer: socket.socket) -> None:
        """Shut this socket down too at the deadline; now, if that has passed."""
        with self._lock:
            self._watched.append(peer)
            if self._over:
                _shut_down(peer)

    def connect(self, host: str, port: int, seconds: float) -> socket.socket:
        """A connection that is watched. seconds: for each address of the host, and then its timeout.

        Raises OSError, UnicodeError for what is no host name.
        """
        error = OSError("the host name has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            peer = socket.socket(family, kind, protocol)
            try:
                peer.settimeout(self.remaining(seconds))
                peer.connect(address)
            except OSError as failure:
                peer.close()
                error = failure
            else:
                peer.settimeout(self.remaining(seconds))
                self.watch(peer)
                return peer
        raise error

    def _end(self) -> None:
        with self._lock:
            if self._left:
                return
            self._over = True
            for peer in self._watched:
                _shut_down(peer)


def _shut_down(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already, or given to TLS: then that socket is watched
        # Not the method of a TLS socket, which would let whoever reads from it go on without TLS.
        socket.socket.shutdown(peer, socket.SHUT_RDWR)
