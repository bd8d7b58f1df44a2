"""Recurring work goes on when the wall clock is set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.schedulers import base
from apscheduler.triggers.cron import CronTrigger

from dicom_node.jobs import steady_scheduler
from dicom_node.jobs.steady_scheduler import LOOK_SECONDS, Every, SteadyScheduler

HANG_SECONDS = 60  # only so that a broken test ends
SHORT = 0.05


class Clock(datetime):
    """The wall clock as APScheduler reads it."""

    turned = timedelta()

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + cls.turned


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(Clock, "turned", timedelta())
    for module in (base, steady_scheduler):
        monkeypatch.setattr(module, "datetime", Clock)
    return Clock


@pytest.fixture
def scheduler() -> Iterator[SteadyScheduler]:
    made = SteadyScheduler(timezone="UTC", job_defaults={"coalesce": True, "misfire_grace_time": None})
    yield made
    made.shutdown()


# By the decades, a list of missed runs would take all memory.
@pytest.mark.parametrize("days", [-1, 1, -20_000, 20_000])
def test_work_goes_on_when_the_clock_is_set(clock: type[Clock], scheduler: SteadyScheduler, days: int) -> None:
    ran = threading.Event()
    scheduler.add_job(ran.set, "interval", seconds=SHORT)
    scheduler.start()
    for turned in (timedelta(days=days), timedelta()):
        assert ran.wait(HANG_SECONDS)
        clock.turned = turned
        for _ in range(2):  # the first may have begun before
            ran.clear()
            assert ran.wait(HANG_SECONDS)


def test_work_at_a_time_of_day_waits_for_the_next_one_only(clock: type[Clock], scheduler: SteadyScheduler) -> None:
    job = scheduler.add_job(print, CronTrigger(hour=3, timezone=UTC))
    scheduler.start(paused=True)
    clock.turned = timedelta(days=-30)
    scheduler.resume()
    scheduler._process_jobs()
    assert job.next_run_time - clock.now(UTC) <= timedelta(days=1)


def test_missed_runs_are_one() -> None:
    every, now = Every(seconds=1, timezone=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert every.get_next_fire_time(datetime(1970, 1, 1, tzinfo=UTC), now) == now + timedelta(seconds=1)
    assert every.get_next_fire_time(now - timedelta(seconds=0.4), now) == now + timedelta(seconds=0.6)


def test_it_looks_at_the_clock_again_soon(scheduler: SteadyScheduler) -> None:
    scheduler.add_job(print, CronTrigger(month=1, timezone=UTC))
    scheduler.start(paused=True)
    scheduler.resume()
    wait = scheduler._process_jobs()
    assert wait is not None
    assert wait <= LOOK_SECONDS
