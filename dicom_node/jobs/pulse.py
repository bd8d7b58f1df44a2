"""Whether work moves on: a process whose work stands still is no longer alive, whatever its other threads say."""

from __future__ import annotations

import time

PATIENCE_SECONDS = 600.0  # far longer than any step between two beats takes on a busy machine


class Pulse:
    """Beaten by the work itself, at every step; read by the threads that speak for the process."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience = patience_seconds
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """The work moved on."""
        self._beaten = time.monotonic()

    def alive(self) -> bool:
        """Whether the work moved on not long ago."""
        return time.monotonic() - self._beaten < self._patience
