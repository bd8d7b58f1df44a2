"""APScheduler, steady when the wall clock is set: its own next times are moments of that clock.

Set back by an hour, it would run nothing for an hour: no study would be closed. Set forward, it would list every run
that it missed before it runs one; by the decades that a machine without a battery is behind at its start, until there
is no memory left.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

LOOK_SECONDS = 10.0  # the clock may be set back while the scheduler decides how long to sleep


class Every(IntervalTrigger):  # type: ignore[misc]
    """An interval whose missed runs are one, however many they were."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The next run after the last one; where that is over, an interval from now."""
        following: datetime | None = super().get_next_fire_time(previous_fire_time, now)
        is_over = previous_fire_time is not None and following is not None and following <= now
        return now + self.interval if is_over else following


class SteadyScheduler(BackgroundScheduler):  # type: ignore[misc]
    """A scheduler whose jobs go on soon after the clock was set: within their interval, or LOOK_SECONDS."""

    #: What `add_job` makes of the word.
    _trigger_classes: ClassVar[dict[str, type]] = {"interval": Every}

    def _process_jobs(self) -> float | None:
        """What APScheduler's thread calls whenever the next job may be due; how long it sleeps."""
        now = datetime.now(self.timezone)
        for job in self.get_jobs():
            due = _due(job, now)
            if due is not None:
                job.modify(next_run_time=due)
        wait: float | None = super()._process_jobs()
        return wait if wait is None else min(wait, LOOK_SECONDS)


def _due(job: Job, now: datetime) -> datetime | None:
    """When a job is due that the clock was set back before; None where it is due as it stands."""
    if job.next_run_time is None:  # paused
        return None
    if isinstance(job.trigger, Every):
        return now if job.next_run_time - now > job.trigger.interval else None
    earliest: datetime | None = job.trigger.get_next_fire_time(None, now)
    return earliest if earliest is not None and earliest < job.next_run_time else None
