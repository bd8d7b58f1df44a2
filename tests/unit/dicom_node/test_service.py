"""What a process says of itself: it lives while its work moves on, and no longer."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from dicom_node import service
from dicom_node.base.config import configuration_from
from dicom_node.console.health import EXPECTED, health_problems
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.service import Heartbeat
from support.studies import new_registry


@pytest.mark.parametrize(("patience", "alive"), [(600.0, True), (0.0, False)])
def test_a_process_whose_work_stands_still_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, alive: bool
) -> None:
    signs: list[bytes] = []
    monkeypatch.setattr(service.os, "write", lambda descriptor, sign: signs.append(sign) or len(sign))
    monkeypatch.setattr(Heartbeat, "_run", lambda _: None)
    registry = new_registry(tmp_path)
    beat = Heartbeat(registry, "worker", threading.Event())
    beat.pulse = Pulse(patience)
    beat.say("ready")
    assert bool(signs) == alive
    assert [(one.name, one.pid) for one in registry.processes()] == ([("worker", os.getpid())] if alive else [])


def test_what_a_person_took_back_is_taken_back_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Quiet:
        def __init__(self, *_: object) -> None:
            pass

        def start(self, *_: object) -> None:
            pass

        def stop(self) -> None:
            pass

        def run(self, stop: threading.Event) -> None:
            calls.append("send")
            stop.set()

    monkeypatch.setattr(service, "stop_on_signals", lambda _: None)
    monkeypatch.setattr(service, "Console", Quiet)
    monkeypatch.setattr(service, "Outbox", Quiet)
    monkeypatch.setattr(service, "withdraw_again", lambda *_: calls.append("withdraw"))
    monkeypatch.setattr(Heartbeat, "_run", lambda _: None)
    monkeypatch.setattr(service.os, "write", lambda descriptor, sign: len(sign))
    registry, stop = new_registry(tmp_path), threading.Event()
    here = configuration_from({"node": {"storage": str(tmp_path)}}, tmp_path)
    service._scheduler(here, registry, Heartbeat(registry, "scheduler", stop), stop)
    assert calls == ["withdraw", "send"]


def test_a_node_that_starts_is_not_called_well_by_what_its_former_processes_said(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = configuration_from({"node": {"storage": "node"}, "model": {"bundle": str(random_bundle)}}, tmp_path)
    found: list[list[str]] = []

    def supervised(*_: object) -> None:
        registry, now = Registry(here.node.database_url), time.time()
        found.append(health_problems(registry, now))
        for role in EXPECTED:
            registry.beat(role, os.getpid(), "ready", now)
        found.append(health_problems(registry, now))
        registry.close()  # as if all were killed

    monkeypatch.setattr(service, "supervise", supervised)
    service.serve(here)
    service.serve(here)
    none_yet = [f"the {role} has not started" for role in EXPECTED]
    assert found == [none_yet, [], none_yet, []]
