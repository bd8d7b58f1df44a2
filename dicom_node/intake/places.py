"""How many associations there may be at once: of everybody, and of one calling AE title."""

from __future__ import annotations

import threading
from typing import Protocol

from dicom_node.intake.access import LIMIT_EXCEEDED, LIMIT_OF_ONE_EXCEEDED, NO_PLACE_ANY_MORE, Rejection


class Places(Protocol):
    """Where an association gets its place, whichever process keeps count."""

    def take(self, association_id: str, calling_ae: str) -> Rejection | None:
        """None where there is one; `give_back` frees it. calling_ae: without padding."""
        ...

    def give_back(self, association_id: str) -> None:
        """The association ended; harmless for one that has no place any more."""
        ...


class CountedPlaces:
    """The places of a whole receiver. Safe for several threads."""

    def __init__(self, of_all: int, of_one: int) -> None:
        self._of_all = of_all
        self._of_one = of_one
        self._taken: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = False

    def take(self, association_id: str, calling_ae: str) -> Rejection | None:
        """See `Places`."""
        with self._lock:
            if self._closed:
                return NO_PLACE_ANY_MORE
            if len(self._taken) >= self._of_all:
                return LIMIT_EXCEEDED
            if list(self._taken.values()).count(calling_ae) >= self._of_one:
                return LIMIT_OF_ONE_EXCEEDED
            self._taken[association_id] = calling_ae
            return None

    def close(self) -> None:
        """There are none any more."""
        with self._lock:
            self._closed = True

    def give_back(self, association_id: str) -> None:
        """See `Places`."""
        with self._lock:
            self._taken.pop(association_id, None)
