"""A process that stands still is killed and started again; one that gives signs of life is left alone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicom_node.base.events import Event
from dicom_node.supervisor import Child

SILENT = "import time; time.sleep(600)"
LIVELY = "import os, time\nwhile True: os.write(1, b'.'); time.sleep(0.01)"


@pytest.fixture
def lock() -> Iterator[int]:
    descriptor = os.open(Path(os.devnull), os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def watched(child: Child, until: Event, rounds: int) -> list[int]:
    """Numbers of the events while the child is looked after, at most so many rounds."""
    with capture_logs() as lines:
        for _ in range(rounds):
            child.ensure_running()
            if until.number in [line["number"] for line in lines]:
                break
            time.sleep(0.01)
    return [line["number"] for line in lines]


def test_a_silent_process_is_killed_and_started_again(lock: int) -> None:
    child = Child("worker", [sys.executable, "-c", SILENT], lock, silence_seconds=0.2)
    try:
        seen = watched(child, Event.PROCESS_ENDED, 6000)
        assert seen == [Event.PROCESS_STARTED.number, Event.PROCESS_SILENT.number, Event.PROCESS_ENDED.number]
        assert Event.PROCESS_STARTED.number in watched(child, Event.PROCESS_STARTED, 6000)
    finally:
        child.stop()
        child.wait(time.monotonic() + 60)


def test_signs_of_life_keep_a_process_alive(lock: int) -> None:
    child = Child("worker", [sys.executable, "-c", LIVELY], lock, silence_seconds=30)
    try:
        watched(child, Event.PROCESS_STARTED, 1)
        before = child._heard
        for _ in range(6000):
            child.ensure_running()
            if child._heard > before:
                break
            time.sleep(0.01)
        assert child._heard > before
    finally:
        child.stop()
        child.wait(time.monotonic() + 60)
