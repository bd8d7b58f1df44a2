"""A TCP connection that can be cut, delayed, throttled, half closed or held: a relay on loopback.

with Wire(node.port) as wire:                    # connect to wire.port instead
    wire.trouble = Trouble("cut", back=True, after=2000)
    wire.trouble = None                          # healed: what was held goes on
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Literal

CHUNK = 1 << 14
NARROW_BYTES = 2048  # at once on a throttled connection
NARROW_SECONDS = 0.002
DELAY_SECONDS = 0.03
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST

What = Literal["cut", "half closed", "held", "delayed", "throttled"]


@dataclass(frozen=True)
class Trouble:
    """What happens to each connection, in one direction, once so many bytes went that way. back: towards the caller."""

    what: What
    back: bool = False
    after: int = 0


class Wire:
    """Relays connections to a port of loopback while the block lasts."""

    def __init__(self, target: int) -> None:
        self.trouble: Trouble | None = None
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, name="wire", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.trouble = None
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in list(self._open):
            _reset(connection)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._server.accept()
            except OSError:
                return
            try:
                called = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _reset(caller)
                caller.close()
                continue
            called.settimeout(None)
            with self._lock:
                self._open |= {caller, called}
            threading.Thread(target=self._carry, args=(caller, called), name="wire", daemon=True).start()

    def _carry(self, caller: socket.socket, called: socket.socket) -> None:
        """Both directions, until both have ended."""
        answers = threading.Thread(target=self._relay, args=(called, caller, True), name="wire", daemon=True)
        answers.start()
        self._relay(caller, called, False)
        answers.join()
        with self._lock:
            self._open -= {caller, called}
        caller.close()
        called.close()

    def _relay(self, source: socket.socket, goal: socket.socket, back: bool) -> None:
        gone = 0
        try:
            goal.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(CHUNK):
                gone += len(data)
                if not self._let_through(goal, source, data, back, gone):
                    return
            goal.shutdown(socket.SHUT_WR)
        except OSError:  # one end is gone: so is the other
            _reset(source)
            _reset(goal)

    def _let_through(self, goal: socket.socket, source: socket.socket, data: bytes, back: bool, gone: int) -> bool:
        """Pass on what came; False when nothing more goes this way."""
        trouble = self.trouble
        if trouble is None or trouble.back is not back or gone <= trouble.after:
            goal.sendall(data)
            return True
        if trouble.what in ("cut", "half closed"):
            goal.sendall(data[: max(0, trouble.after - (gone - len(data)))])
        if trouble.what == "cut":
            _reset(source)
            _reset(goal)
            return False
        if trouble.what == "half closed":
            goal.shutdown(socket.SHUT_WR)
            while source.recv(CHUNK):  # what is said now reaches nobody
                pass
            return False
        if trouble.what == "held":
            while self.trouble is trouble:
                time.sleep(0.01)
        elif trouble.what == "delayed":
            time.sleep(DELAY_SECONDS)
        elif trouble.what == "throttled":
            for start in range(0, len(data), NARROW_BYTES):
                goal.sendall(data[start : start + NARROW_BYTES])
                time.sleep(NARROW_SECONDS)
            return True
        goal.sendall(data)
        return True


def _reset(connection: socket.socket) -> None:
    """Have both ends see a reset, soon: the connection is shut down here, and closed by who carries it."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RDWR)
