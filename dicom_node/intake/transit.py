"""How much of objects that are on their way may be here at a time: of everybody, and of one calling AE title."""

from __future__ import annotations

import queue
import threading
from collections import Counter

IN_MEMORY_BYTES = 64 << 20  # with more than that on its way, all that comes goes to the disk


class Transit:
    """The bytes of all objects of which some came that are not stored yet. One sender may have half of the bound."""

    def __init__(self, max_bytes: int, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._max_bytes = max_bytes
        self._in_memory_bytes = in_memory_bytes
        self._of: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._forgotten: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    def share(self, calling_ae: str) -> Share:
        """What one object of a sender takes of it."""
        return Share(self, calling_ae)

    @property
    def crowded(self) -> bool:
        """Whether nothing more should be held in memory."""
        return self._of.total() > self._in_memory_bytes

    def take(self, calling_ae: str, count: int) -> bool:
        """Whether so many bytes more may come."""
        with self._lock:
            self._settle()
            if self._of.total() + count > self._max_bytes or 2 * (self._of[calling_ae] + count) > self._max_bytes:
                return False
            self._of[calling_ae] += count
            return True

    def give_back(self, calling_ae: str, count: int) -> None:
        """So many bytes are stored, or thrown away."""
        with self._lock:
            self._subtract(calling_ae, count)

    def forget(self, calling_ae: str, count: int) -> None:
        """As `give_back`, out of a finalizer: the collector may call it in a thread that holds the lock."""
        self._forgotten.put((calling_ae, count))

    def _settle(self) -> None:
        while not self._forgotten.empty():
            self._subtract(*self._forgotten.get())

    def _subtract(self, calling_ae: str, count: int) -> None:
        self._of[calling_ae] -= count
        if not self._of[calling_ae]:
            del self._of[calling_ae]


class Share:
    """What one object takes. Not safe for several threads at once."""

    def __init__(self, transit: Transit, calling_ae: str) -> None:
        self._transit = transit
        self._calling_ae = calling_ae
        self._count = 0

    @property
    def crowded(self) -> bool:
        """As `Transit.crowded`."""
        return self._transit.crowded

    def take(self, count: int) -> bool:
        """Whether so many bytes more may come."""
        taken = self._transit.take(self._calling_ae, count)
        self._count += count if taken else 0
        return taken

    def give_back(self) -> None:
        """All of it; harmless afterwards."""
        count, self._count = self._count, 0
        if count:
            self._transit.give_back(self._calling_ae, count)

    def forget(self) -> None:
        """All of it, out of a finalizer."""
        count, self._count = self._count, 0
        if count:
            self._transit.forget(self._calling_ae, count)
