"""APScheduler, steady when the wall clock is set: its own next times are moments of that clock.

Set back by an hour, it would run nothing for an hour: no study would be closed. Set forward, it would list every run
that it missed before it runs one; by the decades that a machine without a battery is behind at its start, until there
is no memory left.
"""

from __future__ import annotations

from datetime import datetime

from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger


class SteadyScheduler(BackgroundScheduler):  # type: ignore[misc]
    """A scheduler whose jobs go on within one interval after the clock was set."""

    def _process_jobs(self) -> float | None:
        """What APScheduler's thread calls whenever the next job may be due."""
        now = datetime.now(self.timezone)
        for job in self.get_jobs():
            due = _due(job, now)
            if due is not None:
                job.modify(next_run_time=due)
        wait: float | None = super()._process_jobs()
        return wait


def _due(job: Job, now: datetime) -> datetime | None:
    """When a job is due whose next time the clock has left behind, or that is farther ahead than any can be."""
    if job.next_run_time is None:  # paused
        return None
    if isinstance(job.trigger, IntervalTrigger):
        return now if abs(job.next_run_time - now) > job.trigger.interval else None
    earliest: datetime | None = job.trigger.get_next_fire_time(None, now)
    return earliest if earliest is not None and earliest < job.next_run_time else None
