"""Recurring work, run by APScheduler: closing quiet studies, settling disputes, taking back lost claims, deleting what
is outdated."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent

from dicom_node.base.config import Configuration
from dicom_node.base.events import Event, log
from dicom_node.base.types import Verdict
from dicom_node.jobs.pruning import Retention
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.steady_scheduler import SteadyScheduler

# Verdicts of the first pairs, in order; None where a file could not be read now.
Compare = Callable[[Sequence[tuple[Path, Path]]], Sequence[Verdict | None]]
CLOSE_SECONDS = 1.0
SETTLE_SECONDS = 1.0
RECLAIM_SECONDS = 5.0
PRUNE_SECONDS = 60.0
PRUNE_ROUNDS = 50  # at a time, with a pause after each: others must come to write in between, and a stop waits for all
PRUNE_PAUSE_SECONDS = 0.05
DAY_SECONDS = 86400.0
ASSOCIATION_DAYS = 30.0  # after its end; what came over it keeps its name
COMPARISONS = 300  # of one pair of which nothing comes to be known, before the later object is quarantined


class Housekeeping:
    """The node's recurring jobs, each of which can also be run by hand in a test."""

    def __init__(self, configuration: Configuration, registry: Registry, compare: Compare, pulse: Pulse) -> None:
        self._configuration = configuration
        self._registry = registry
        self._compare = compare
        self._pulse = pulse
        self._unreadable: Counter[str] = Counter()

    def scheduler(self) -> SteadyScheduler:
        """A scheduler with all jobs, not yet started. A job never overlaps itself; missed runs become one."""
        scheduler = SteadyScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        scheduler.add_listener(_log_failure, EVENT_JOB_ERROR)
        scheduler.add_job(self.close_quiet_studies, "interval", seconds=CLOSE_SECONDS, id="close studies")
        scheduler.add_job(self.settle_disputes, "interval", seconds=SETTLE_SECONDS, id="settle disputes")
        scheduler.add_job(self.reclaim_lost_studies, "interval", seconds=RECLAIM_SECONDS, id="reclaim studies")
        scheduler.add_job(self.delete_outdated, "interval", seconds=PRUNE_SECONDS, id="delete outdated")
        return scheduler

    def close_quiet_studies(self) -> None:
        """Close what has been quiet long enough, or open too long."""
        self._pulse.beat()
        now = time.time()
        intake = self._configuration.intake
        closed = self._registry.close_quiet(now - intake.stability_seconds, now - intake.max_open_seconds, now)
        for study, partial_reason in closed:
            log(Event.STUDY_COMPLETE, study=study, reason=partial_reason)
            if self._configuration.node.name is not None:
                self._tell_of_nodes(study)

    def _tell_of_nodes(self, study: str) -> None:
        nodes = self._registry.received_by(study)
        if len(nodes) > 1:
            log(Event.STUDY_OVER_NODES, study=study, count=len(nodes), node=", ".join(nodes))

    def settle_disputes(self) -> None:
        """Compare objects that share a SOP Instance UID but not their bytes."""
        spool = self._configuration.node.spool
        disputed = self._registry.disputed()
        if not disputed:
            return
        verdicts = self._compare([(spool / first, spool / path) for path, first in disputed])
        for (path, first), verdict in zip(disputed, verdicts, strict=False):
            settled = verdict or self._after_failure(spool, first, path)
            if settled is None:
                continue
            if not self._registry.settle(path, settled, first):
                continue
            level = "warning" if settled is Verdict.QUARANTINED else "info"
            log(Event.OBJECT_SETTLED, level, reason=settled.value, path=path)

    def _after_failure(self, spool: Path, first: str, path: str) -> Verdict | None:
        """None to try once more; a pair that can never be read must not hold up its study and all other pairs."""
        if (verdict := self._registry.verdict_without_file(first, path)) is not None:
            return verdict
        if not (spool / first).exists() and (spool / path).exists():
            self._registry.mark_lost([first], time.time())
            return None
        self._unreadable[path] += 1
        if self._unreadable[path] < COMPARISONS:
            return None
        del self._unreadable[path]
        return Verdict.QUARANTINED

    def reclaim_lost_studies(self) -> None:
        """Return to the queue what a worker stopped renewing."""
        for study in self._registry.reclaim_expired(time.time(), self._configuration.model.max_attempts):
            log(Event.STUDY_RELEASED, "warning", study=study, reason="its worker's lease ran out")

    def delete_outdated(self) -> None:
        """Delete what the worklist keeps and nothing needs any more; what is left over waits for the next time."""
        gone: Counter[str] = Counter()
        for _ in range(PRUNE_ROUNDS):
            deleted = self._registry.prune(self._retention(time.time()))
            if not deleted:
                break
            gone.update(deleted)
            time.sleep(PRUNE_PAUSE_SECONDS)
        for kind, count in gone.items():
            log(Event.RECORDS_DELETED, job=kind, count=count)

    def _retention(self, now: float) -> Retention:
        kept = self._configuration.worklist
        return Retention(
            messages=now - kept.keep_messages_days * DAY_SECONDS,
            message_bytes=kept.keep_messages_bytes,
            orders=now - kept.keep_orders_days * DAY_SECONDS,
            steps=now - kept.keep_steps_days * DAY_SECONDS,
            locked_steps=now - kept.keep_locked_steps_days * DAY_SECONDS,
            final_steps=kept.max_final_steps,
            listed=now - kept.keep_hours * 3600,
            associations=now - ASSOCIATION_DAYS * DAY_SECONDS,
            audited=self._configuration.audit.enabled,
        )


def _log_failure(event: JobExecutionEvent) -> None:
    log(Event.JOB_FAILED, "error", job=event.job_id, error=type(event.exception).__name__)
