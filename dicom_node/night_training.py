"""Retraining at night: a process of its own, within a window of the day, held still while studies wait or run.

The scheduler starts `dicom-node retrain …` when the window begins, and at once where the node is started inside it. The
process is stopped (SIGSTOP) as long as the model has studies to do, goes on afterwards, and is ended with the window:
training goes on the next night where it was. It never outlives the scheduler (`end_with_parent`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.cron import CronTrigger

from dicom_node.base.config import Configuration
from dicom_node.base.durable import PRIVATE_FILE, make_folder
from dicom_node.base.events import Event, log
from dicom_node.base.types import StudyState
from dicom_node.jobs.registry import DATABASE_AWAY, Registry

JOB = "retraining"
LOOK_SECONDS = 1.0
END_SECONDS = 20.0  # from SIGTERM to SIGKILL; nothing is lost by either
LOG = "night.log"


class NightTraining:
    """One night's run at a time. command: what is run. now: the site's local time."""

    def __init__(
        self,
        configuration: Configuration,
        registry: Registry,
        stop: threading.Event,
        command: Sequence[str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._log = configuration.node.storage / "training" / LOG
        self._settings = configuration.retrain
        self._registry = registry
        self._stop = stop
        self._command = command or retrain_command(configuration)
        self._now = now

    def schedule(self, scheduler: BaseScheduler) -> None:
        """Have it run every night, and at once where the window is open."""
        begin, _ = self._settings.hours
        trigger = CronTrigger(hour=begin.hour, minute=begin.minute)  # in the machine's own time zone
        at_once = {"next_run_time": datetime.now(UTC)} if self._settings.open_at(self._now()) else {}
        scheduler.add_job(self.run, trigger, id=JOB, **at_once)

    def run(self) -> None:
        """Until the command or the window ends, or the node stops."""
        if self._stop.is_set() or not self._settings.open_at(self._now()):
            return
        begun = time.monotonic()
        process = self._start()
        log(Event.RETRAINING_STARTED, pid=process.pid, job=self._settings.what)
        try:
            ended = self._watch(process)
        finally:
            _end(process)
        level = "error" if ended and process.returncode else "info"
        reason = f"see {LOG}" if ended else "the node stops" if self._stop.is_set() else "the window closed"
        seconds = round(time.monotonic() - begun)
        log(Event.RETRAINING_ENDED, level, status=process.returncode, reason=reason, seconds=seconds)

    def _start(self) -> subprocess.Popen[bytes]:
        make_folder(self._log.parent)
        launcher = [sys.executable, "-m", "dicom_node.end_with_parent", str(os.getpid()), str(self._settings.nice)]
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
        try:
            return subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [*launcher, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                process_group=0,
            )
        finally:
            os.close(descriptor)

    def _watch(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether the command ended by itself."""
        held = False
        while process.poll() is None:
            if self._stop.is_set() or not self._settings.open_at(self._now()):
                return False
            busy = self._busy()
            if busy != held:
                held = busy
                _signal(process, signal.SIGSTOP if held else signal.SIGCONT)
                log(Event.RETRAINING_PAUSED if held else Event.RETRAINING_WENT_ON, pid=process.pid)
            self._stop.wait(LOOK_SECONDS)
        return True

    def _busy(self) -> bool:
        """Whether the model has studies to do. A registry that does not answer is no leave to go on."""
        try:
            runs = self._registry.studies(state=StudyState.RUNNING, limit=1)
            return bool(runs) or self._registry.study_waits(time.time())
        except DATABASE_AWAY:
            return True


def retrain_command(configuration: Configuration) -> list[str]:
    """`dicom-node retrain …` as the site configured it, on what the node runs with.

    Without worker processes: only the command itself is ended by the kernel with its parent.
    """
    settings = configuration.retrain
    frozen = str(configuration.node.frozen)
    command = [sys.executable, "-m", "dicom_node", "retrain", settings.what, "--config", frozen, "--if-new"]
    command += ["--labels", str(settings.labels)]
    if settings.what == "full":
        command += ["--reports", str(settings.reports), "--workers", "0"]
    return [*command, *settings.options]


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, which reaches a process that is held only when it goes on, then SIGKILL."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        _signal(process, signal.SIGCONT)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the command and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
