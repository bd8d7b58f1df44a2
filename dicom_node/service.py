"""Composition root: builds each process of the node from its stages, starts it, stops it."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import OperationalError

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError, NodeError
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.console.http import Console
from dicom_node.intake.content import compare
from dicom_node.intake.receiver import run_receiver
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.scheduler import Housekeeping
from dicom_node.sending.outbox import Outbox
from dicom_node.sending.storescu import store
from dicom_node.supervisor import stop_on_signals, stop_with_supervisor, supervise
from prima_core.bundle import read_manifest

BEAT_SECONDS = 5.0


def serve(configuration: Configuration, config_file: Path) -> None:
    """Run the whole node until it is told to stop.

    Raises ConfigurationError when it cannot start: no bundle, a port in use, another node on the same storage.
    """
    if configuration.model.bundle is None:
        raise ConfigurationError("model.bundle: name a model bundle; `dicom-node model import-prima` makes one")
    read_manifest(configuration.model.bundle)
    configuration.node.storage.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrate(configuration.node.database_url)
    supervise(configuration, config_file)


def run_process(role: str, configuration: Configuration) -> None:
    """Run one process of the node until its supervisor stops it or is gone."""
    stop = stop_on_signals()
    stop_with_supervisor(stop)
    registry = Registry(configuration.node.database_url)
    beat = Heartbeat(registry, role, stop)
    roles: dict[str, Callable[[Configuration, Registry, Heartbeat, threading.Event], None]] = {
        "receiver": _receiver,
        "scheduler": _scheduler,
        "worker": _worker,
    }
    try:
        roles[role](configuration, registry, beat, stop)
    except NodeError:
        raise
    except Exception as error:  # noqa: BLE001 - the process's edge: a traceback's message may quote what came in
        log(Event.PROCESS_CRASHED, "error", process=role, error=type_and_place(error))
        raise SystemExit(1) from None
    finally:
        registry.close()


class Heartbeat:
    """Says in the registry that this process lives, every few seconds, and what it does."""

    def __init__(self, registry: Registry, role: str, stop: threading.Event) -> None:
        self._registry = registry
        self._role = role
        self._stop = stop
        self._status = "starting"
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def say(self, status: str) -> None:
        """Change what the process does, and say so now."""
        self._status = status
        self._beat()

    def _run(self) -> None:
        self._beat()
        while not self._stop.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        try:
            self._registry.beat(self._role, os.getpid(), self._status, time.time())
        except OperationalError as error:
            log(Event.JOB_FAILED, "warning", job="heartbeat", error=type(error).__name__)


def _receiver(configuration: Configuration, registry: Registry, beat: Heartbeat, stop: threading.Event) -> None:
    beat.say("ready")
    run_receiver(configuration, registry, stop)


def _scheduler(configuration: Configuration, registry: Registry, beat: Heartbeat, stop: threading.Event) -> None:
    kind = f"{_node_key(configuration)}-outbox-"
    registry.return_deliveries(kind)
    names = [destination.name for destination in configuration.destinations]
    registry.set_aside_unknown(names, "the destination is not in the configuration; add it, then `dicom-node retry`")
    console = Console(configuration, registry)
    scheduler = Housekeeping(configuration, registry, compare).scheduler()
    console.start()
    scheduler.start()
    beat.say("ready")
    try:
        Outbox(configuration, registry, store, kind + uuid.uuid4().hex[:8]).run(stop)
        stop.wait()
    finally:
        scheduler.shutdown()
        console.stop()


def _worker(configuration: Configuration, registry: Registry, beat: Heartbeat, stop: threading.Event) -> None:
    from dicom_node.stages import run_worker

    run_worker(configuration, registry, stop, owner_kind=f"{_node_key(configuration)}-worker-", say=beat.say)


def _node_key(configuration: Configuration) -> str:
    """Tells this node's work from another's on the same database."""
    name = f"{socket.gethostname()}:{configuration.node.storage.absolute()}"
    return hashlib.sha256(name.encode()).hexdigest()[:12]
