"""pynetdicom 3.0.4 may lose the response to a request, and may wait for ever to release an association.

Each association has a thread, its reactor, which looks for messages that nobody awaits. Who makes a request holds it
still meanwhile: clears a checkpoint, then waits until a flag says that the reactor is paused. The flag is set before
the reactor waits, and where nothing holds it yet it does not wait. If the system stops its thread just there, the
request goes out, and the reactor then takes the response and drops it as unexpected: the caller waits for the DIMSE
timeout. The thread that handles an N-EVENT-REPORT sets the same flag to false at its end, whoever is paused: who
releases the association at that moment waits for a reactor that waits already.

Here the flag is no flag: the reactor is paused while it waits at a closed checkpoint, and once it has ended.
"""

from __future__ import annotations

import threading

import pynetdicom
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event

KNOWN = "3.0.4"


class Checkpoint(threading.Event):
    """Open while it is set. Knows whether somebody waits at it."""

    def __init__(self) -> None:
        super().__init__()
        self._gate = threading.Condition()
        self._open = True
        self._waiting = 0

    @property
    def holds(self) -> bool:
        """Whether somebody waits, who goes on only when it is opened."""
        with self._gate:
            return not self._open and self._waiting > 0

    def is_set(self) -> bool:
        """Whether it is open."""
        with self._gate:
            return self._open

    def set(self) -> None:
        """Open it."""
        with self._gate:
            self._open = True
            self._gate.notify_all()

    def clear(self) -> None:
        """Close it."""
        with self._gate:
            self._open = False

    def wait(self, timeout: float | None = None) -> bool:
        """Pass when it is open; whether it is."""
        with self._gate:
            self._waiting += 1
            try:
                return self._gate.wait_for(lambda: self._open, timeout)
            finally:
                self._waiting -= 1


class HeldAssociation(Association):
    """An association whose reactor is paused when it is, not when somebody says so."""

    @property
    def _is_paused(self) -> bool:
        checkpoint = self._reactor_checkpoint
        held = isinstance(checkpoint, Checkpoint) and checkpoint.holds
        return held or self._kill or not self.is_alive() or threading.current_thread() is self

    @_is_paused.setter
    def _is_paused(self, _: bool) -> None:
        """Nobody's to say."""


def _hold(event: Event) -> None:
    if pynetdicom.__version__ == KNOWN:
        event.assoc._reactor_checkpoint = Checkpoint()
        event.assoc.__class__ = HeldAssociation


#: For every association that is opened: as its connection is there, before its reactor starts.
WITHOUT_LOSS = (evt.EVT_CONN_OPEN, _hold)
