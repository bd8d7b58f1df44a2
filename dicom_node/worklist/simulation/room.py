"""The reading room: one queue, several readers, one event after the other.

The most urgent study first, in the order of arrival among equals; nobody is interrupted.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dicom_node.worklist.simulation.draw import Floats, Ints

HOUR, FREE, ARRIVAL, RAISE = range(4)  # in this order when they happen at once
NEVER = float("inf")


@dataclass(frozen=True)
class Readings:
    """What happened to N studies; arrays [N]. start: minutes, on the clock of the arrivals. reader: who read it."""

    start: Floats
    reader: Ints


class Room:
    """A room with studies to come. `run` plays it to the end, when every study is read.

    arrival: minutes, ascending. rank: higher is read first. reading: minutes. raise_at, raised_rank: when a study gets
    a higher rank, NEVER for none. on_duty: readers in each hour from time 0 on, repeated without end.
    """

    def __init__(
        self,
        arrival: Floats,
        rank: Ints,
        reading: Floats,
        on_duty: Sequence[int],
        raise_at: Floats | None = None,
        raised_rank: Ints | None = None,
    ) -> None:
        self._rank = rank.tolist()
        self._raised_rank = self._rank if raised_rank is None else raised_rank.tolist()
        self._reading = reading.tolist()
        self._on_duty = on_duty
        self._start = [NEVER] * len(arrival)
        self._reader = [-1] * len(arrival)
        self._unread = len(arrival)
        self._waiting: list[tuple[int, int]] = []
        self._duty = 0
        self._idle = list(range(max(on_duty)))
        raises = [] if raise_at is None else raise_at.tolist()
        self._events = [(at, ARRIVAL, study) for study, at in enumerate(arrival.tolist())]
        self._events += [(at, RAISE, study) for study, at in enumerate(raises) if at < NEVER]
        self._events.append((0.0, HOUR, 0))
        heapq.heapify(self._events)

    def run(self) -> Readings:
        """Every study read once."""
        while self._unread:
            now, kind, item = heapq.heappop(self._events)
            if kind == FREE:
                heapq.heappush(self._idle, item)
            elif kind == HOUR:
                self._duty = self._on_duty[item % len(self._on_duty)]
                heapq.heappush(self._events, (60.0 * (item + 1), HOUR, item + 1))
            elif kind == ARRIVAL:
                heapq.heappush(self._waiting, (-self._rank[item], item))
            elif self._start[item] == NEVER:
                heapq.heappush(self._waiting, (-self._raised_rank[item], item))
            self._hand_out(now)
        return Readings(np.array(self._start), np.array(self._reader))

    def _hand_out(self, now: float) -> None:
        """Give waiting studies to idle readers on duty; reader r is on duty while more than r are."""
        while self._waiting and self._idle and self._idle[0] < self._duty:
            _, study = heapq.heappop(self._waiting)
            if self._start[study] < NEVER:
                continue  # a raised study waits twice, under its old and its new rank
            reader = heapq.heappop(self._idle)
            self._start[study], self._reader[study] = now, reader
            self._unread -= 1
            heapq.heappush(self._events, (now + self._reading[study], FREE, reader))
