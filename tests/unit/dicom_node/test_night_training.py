"""Night training gives way to studies, keeps to its window, and never outlives who started it.

What runs is a command that writes ticks; that `dicom-node retrain` resumes is tested with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from structlog.testing import capture_logs

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.events import Event
from dicom_node.jobs.registry import Registry
from dicom_node.night_training import NightTraining, retrain_command
from support.studies import arrival, handover, new_registry, report

HANG_SECONDS = 120
NIGHT, DAY = datetime(2026, 3, 1, 23), datetime(2026, 3, 1, 12)
TICKS = """
import os, sys, time
with open(sys.argv[1], "a", buffering=1) as file:
    for _ in range(int(sys.argv[2])):
        print(os.getpid(), os.nice(0), file=file)
        time.sleep(0.02)
"""
# A scheduler's process: runs night training on the registry in a folder.
PARENT = """
import json, sys, threading
from datetime import UTC, datetime
from pathlib import Path
from dicom_node.base.config import load_configuration
from dicom_node.jobs.registry import Registry
from dicom_node.night_training import NightTraining
configuration = load_configuration(Path(sys.argv[1]))
registry = Registry(configuration.node.database_url)
command, night = json.loads(sys.argv[2]), datetime(2026, 3, 1, 23)
NightTraining(configuration, registry, threading.Event(), command, lambda: night).run()
"""


def configured(folder: Path, **retrain: object) -> Configuration:
    settings = {"enabled": True, "labels": "labels.csv", "nice": 7} | retrain
    return configuration_from({"node": {"storage": str(folder)}, "retrain": settings}, folder)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


class Night:
    """Night training of a command that ticks, in a thread."""

    def __init__(self, folder: Path) -> None:
        self.registry: Registry = new_registry(folder)
        self.stop = threading.Event()
        self.now = NIGHT
        self.ticks = folder / "ticks"
        self.ticks.touch()
        self.folder = folder
        self._thread: threading.Thread | None = None

    def begin(self, count: int = 100_000) -> None:
        command = [sys.executable, "-c", TICKS, str(self.ticks), str(count)]
        night = NightTraining(configured(self.folder), self.registry, self.stop, command, lambda: self.now)
        self._thread = threading.Thread(target=night.run)
        self._thread.start()

    def end(self) -> None:
        if self._thread is not None:
            self._thread.join(HANG_SECONDS)
            assert not self._thread.is_alive()

    def count(self) -> int:
        return len(self.ticks.read_text().splitlines())

    @property
    def pid(self) -> int:
        until(self.count, "a tick")
        return int(self.ticks.read_text().split()[0])

    def goes_on(self) -> None:
        before = self.count()
        until(lambda: self.count() > before + 3, "more ticks")

    def a_study_waits(self) -> None:
        self.registry.record_arrivals([arrival(1)])
        assert self.registry.close_quiet(200, 0, 200)


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    running = Night(tmp_path)
    yield running
    running.stop.set()
    running.end()


def state(pid: int) -> str:
    """As in proc(5): T is stopped. Empty where the process is gone or only waits to be collected."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
    return "" if letter in "ZX" else letter


def test_it_stands_still_while_a_study_waits_or_runs_and_goes_on_afterwards(night: Night) -> None:
    with capture_logs() as logs:
        night.begin()
        night.goes_on()
        night.a_study_waits()
        until(lambda: state(night.pid) == "T", "it is stopped")
        claim = night.registry.claim("w", time.time() + 60, time.time())
        assert claim is not None
        before = night.count()
        time.sleep(1.5)  # longer than it looks again
        assert (state(night.pid), night.count()) == ("T", before)
        night.registry.finish_reported(claim, report(), handover(), time.time())
        night.goes_on()
        night.stop.set()
        night.end()
    assert [line["number"] for line in logs] == [
        event.number
        for event in (
            Event.RETRAINING_STARTED,
            Event.RETRAINING_PAUSED,
            Event.RETRAINING_WENT_ON,
            Event.RETRAINING_ENDED,
        )
    ]
    assert state(night.pid) == ""
    assert night.ticks.read_text().split()[1] == "7", "it is less favoured than the node"


def test_it_ends_with_its_window_even_while_it_stands_still(night: Night) -> None:
    night.a_study_waits()
    night.begin()
    until(lambda: states_of_children() == ["T"], "it is stopped")
    night.now = DAY
    night.end()
    assert states_of_children() == []


def states_of_children() -> list[str]:
    """States of this process's children that run a command with ticks."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                ticks = b"ticks" in (folder / "cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == os.getpid() and ticks and state(int(folder.name)):
                found.append(state(int(folder.name)))
    return found


def test_outside_the_window_nothing_is_started(night: Night) -> None:
    night.now = DAY
    night.begin()
    night.end()
    assert not (night.folder / "training").exists()


def test_how_the_command_ended_is_logged(night: Night) -> None:
    with capture_logs() as logs:
        night.begin(count=2)
        night.end()
    assert [(line["number"], line.get("status"), line["log_level"]) for line in logs][-1] == (
        Event.RETRAINING_ENDED.number,
        0,
        "info",
    )
    assert night.count() == 2


@pytest.mark.parametrize("held", [False, True])
def test_it_does_not_outlive_a_scheduler_that_was_killed(night: Night, held: bool) -> None:
    config = night.folder / "node.json"
    config.write_text(configured(night.folder).to_json())
    command = json.dumps([sys.executable, "-c", TICKS, str(night.ticks), "100000"])
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(config), command])
    try:
        night.goes_on()
        if held:
            night.a_study_waits()
            until(lambda: state(night.pid) == "T", "it is stopped")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until(lambda: not state(night.pid), "it is gone")


@pytest.mark.parametrize(("now", "at_once"), [(NIGHT, True), (DAY, False)])
def test_it_is_run_when_the_window_begins_and_at_once_inside_it(night: Night, now: datetime, at_once: bool) -> None:
    scheduler = BackgroundScheduler()
    configuration = configured(night.folder, window="22:30-05:00")
    NightTraining(configuration, night.registry, night.stop, ["true"], lambda: now).schedule(scheduler)
    scheduler.start(paused=True)
    [job] = scheduler.get_jobs()
    following = job.trigger.get_next_fire_time(None, datetime.now(UTC))
    scheduler.shutdown()
    assert (following.hour, following.minute, following.second) == (22, 30, 0)
    assert job.next_run_time <= datetime.now(UTC) if at_once else job.next_run_time == following


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [("22:00-05:00", ["22:00", "23:59", "00:00", "04:59"], ["05:00", "21:59"]), ("01:00-02:00", ["01:30"], ["00:59"])],
)
def test_a_window_may_pass_midnight(tmp_path: Path, window: str, inside: list[str], outside: list[str]) -> None:
    settings = configured(tmp_path, window=window).retrain
    moments = {moment: settings.open_at(datetime.fromisoformat(f"2026-03-01T{moment}")) for moment in inside + outside}
    assert [moment for moment, is_open in moments.items() if is_open] == inside


def test_the_command_is_the_one_that_people_give(tmp_path: Path) -> None:
    full = configured(tmp_path, what="full", reports="reports.jsonl", options=["--leave-out"])
    command = retrain_command(full)
    assert command[1:5] == ["-m", "dicom_node", "retrain", "full"]
    assert command[-1] == "--leave-out"
    assert command[command.index("--workers") + 1] == "0", "no processes that the kernel would not end"
    for option, file in (("--labels", "labels.csv"), ("--reports", "reports.jsonl")):
        assert command[command.index(option) + 1] == str(tmp_path / file)
