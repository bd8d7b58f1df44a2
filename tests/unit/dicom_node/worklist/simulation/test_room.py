"""What holds in any reading room: read once, one at a time, in order, and nobody idle while a study waits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.worklist.simulation.draw import Floats, Ints
from dicom_node.worklist.simulation.room import NEVER, Readings, Room

HOURS = (2, 0, 1, 3)
GAPS = st.integers(0, 40).map(float)
TIMES = st.integers(1, 90).map(float)


@dataclass(frozen=True)
class Day:
    """What comes into the room: [N] each, as `Room` takes it."""

    arrival: Floats
    rank: Ints
    reading: Floats
    raise_at: Floats
    raised_rank: Ints

    def read(self, on_duty: tuple[int, ...], *, flag: bool = True) -> Readings:
        raises = (self.raise_at, self.raised_rank) if flag else ()
        return Room(self.arrival, self.rank, self.reading, on_duty, *raises).run()

    def rank_at(self, study: int, now: float) -> int:
        return int(self.raised_rank[study] if self.raise_at[study] < now else self.rank[study])


@st.composite
def days(draw: st.DrawFn) -> Day:
    """Whole minutes, so that many things happen at once."""
    studies = draw(st.lists(st.tuples(GAPS, st.integers(0, 3), TIMES, st.none() | GAPS), min_size=1, max_size=40))
    gaps, ranks, reading, delays = zip(*studies, strict=True)
    arrival = np.cumsum(np.array(gaps))
    delay = np.array([NEVER if delay is None else delay for delay in delays])
    return Day(arrival, np.array(ranks), np.array(reading), arrival + delay, np.minimum(np.array(ranks) + 1, 3))


@given(days())
def test_every_study_is_read_once_and_by_one_who_reads_nothing_else(day: Day) -> None:
    done = day.read(HOURS)
    assert np.all(done.start < NEVER)
    assert np.all(done.start >= day.arrival)
    for reader in range(max(HOURS)):
        mine = done.reader == reader
        order = np.argsort(done.start[mine])
        start, end = done.start[mine][order], (done.start + day.reading)[mine][order]
        assert np.all(start[1:] >= end[:-1])
    assert set(done.reader) <= set(range(max(HOURS)))


@given(days())
def test_the_most_urgent_that_waits_is_next_and_the_oldest_among_equals(day: Day) -> None:
    start = day.read(HOURS).start
    for study, now in enumerate(start):
        rank = day.rank_at(study, now)
        for other in np.flatnonzero((day.arrival < now) & (start > now)):
            assert day.rank_at(other, now) < rank or (day.rank_at(other, now) == rank and other > study)


@given(days())
def test_no_reader_on_duty_is_idle_while_a_study_waits(day: Day) -> None:
    done = day.read(HOURS)
    end = done.start + day.reading
    for now in np.concatenate([day.arrival, done.start, end]):
        if np.any((day.arrival <= now) & (done.start > now)):
            busy = done.reader[(done.start <= now) & (end > now)]
            assert set(range(HOURS[int(now // 60) % len(HOURS)])) <= set(busy)


@given(days())
def test_nobody_begins_to_read_off_duty(day: Day) -> None:
    done = day.read(HOURS)
    duty = np.array([HOURS[int(start // 60) % len(HOURS)] for start in done.start])
    assert np.all(done.reader < duty)


@given(days())
def test_a_flag_that_never_comes_changes_nothing(day: Day) -> None:
    silent = Day(day.arrival, day.rank, day.reading, np.full(len(day.rank), NEVER), day.raised_rank)
    assert np.array_equal(silent.read(HOURS).start, day.read(HOURS, flag=False).start)


@given(days())
def test_equal_reading_times_keep_the_total_wait_whatever_the_order(day: Day) -> None:
    """Conservation law, Kleinrock 1965, on every single path: only who waits changes, never how much is waited."""
    even = Day(day.arrival, day.rank, np.full(len(day.rank), 15.0), day.raise_at, day.raised_rank)
    assert sorted(even.read(HOURS).start) == sorted(even.read(HOURS, flag=False).start)


@given(days())
def test_one_reader_keeps_the_total_wait_weighted_by_reading_time(day: Day) -> None:
    first_come = Day(day.arrival, np.zeros_like(day.rank), day.reading, day.raise_at, day.raised_rank)
    total = float(day.reading @ first_come.read((1,), flag=False).start)
    assert float(day.reading @ day.read((1,)).start) == pytest.approx(total)


def room(arrival: list[float], on_duty: tuple[int, ...], raises: dict[int, float] | None = None) -> list[float]:
    """Routine studies of 30 minutes; some become urgent at a time. Start times."""
    at = np.array([(raises or {}).get(study, NEVER) for study in range(len(arrival))])
    count = len(arrival)
    ranks = np.zeros(count, dtype=np.int64)
    return Room(np.array(arrival), ranks, np.full(count, 30.0), on_duty, at, ranks + 2).run().start.tolist()


def test_a_raised_study_overtakes_but_interrupts_nobody() -> None:
    assert room([0, 1, 2], (1,)) == [0, 30, 60]
    assert room([0, 1, 2], (1,), raises={2: 10}) == [0, 60, 30]


def test_a_flag_after_the_start_of_reading_is_too_late() -> None:
    assert room([0, 1, 2], (1,), raises={1: 31}) == [0, 30, 60]


def test_a_reader_who_goes_off_duty_finishes_and_takes_no_more() -> None:
    assert room([50, 51], (1, 0, 1)) == [50, 120]
    assert room([50, 51], (2, 1, 1)) == [50, 51]
