"""The listening socket: connections come in, and go on to who serves them once they ask for an association."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from pynetdicom.transport import AddressInformation

from dicom_node.base.events import Event, log
from dicom_node.intake.entrance import Entrance

LOOK_SECONDS = 0.5
BACKLOG = 128


class Listener:
    """Accepts connections. serve: takes each with its address, and may not block. entrance: where they wait until then.

    Raises OSError on construction when nobody can listen at the address.
    """

    def __init__(
        self, address: tuple[str, int], entrance: Entrance, serve: Callable[[socket.socket, Any], None]
    ) -> None:
        self._serve = serve
        self._entrance = entrance
        self._stopping = threading.Event()
        self._socket = socket.socket(AddressInformation.from_tuple(address).address_family)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

    def start(self) -> None:
        """Accept in a thread of its own."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """False once the thread ended, on request or by an error in the program."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accept nothing more; associations go on."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._entrance.close()
        self._socket.close()

    def _listen(self) -> None:
        self._entrance.watch(self._socket)
        while not self._stopping.is_set():
            for connection, address in self._entrance.asking(LOOK_SECONDS):
                self._serve(connection, address)
            self._accept()

    def _accept(self) -> None:
        try:
            connection, address = self._socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log(Event.ASSOCIATION_REFUSED, "error", error=type(error).__name__, reason="connection cannot be accepted")
            self._stopping.wait(LOOK_SECONDS)  # no descriptor is left, or no memory
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._entrance.enter(connection, address)
