"""Composition root: builds each process of the node from its stages, starts it, stops it."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from apscheduler.schedulers.base import BaseScheduler

from dicom_node.audit.collector import Collector
from dicom_node.audit.recorder import recording, trail_of
from dicom_node.audit.syslog import Forwarder
from dicom_node.base.config import Configuration, StowDestination, UpsDestination, load_configuration
from dicom_node.base.durable import replace_file
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.events import Event, log
from dicom_node.base.hl7_settings import Hl7Destination
from dicom_node.bundles import check_fits
from dicom_node.certificates import check_certificates
from dicom_node.cleaning import Cleaning
from dicom_node.console.health import EXPECTED
from dicom_node.console.http import Console
from dicom_node.corrections import Corrections
from dicom_node.intake.apart import compare_apart
from dicom_node.jobs.database import migrate
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import DATABASE_AWAY, Registry
from dicom_node.jobs.scheduler import Housekeeping
from dicom_node.night_training import NightTraining
from dicom_node.process_edge import PRIVATE, process_edge
from dicom_node.receiving import receive
from dicom_node.reporting.fallback import simpler
from dicom_node.reporting.write import discard_unfinished
from dicom_node.sending.commitment import CommitmentScu
from dicom_node.sending.commitment_answers import CommitmentAnswers
from dicom_node.sending.outbox import Outbox, Send
from dicom_node.sending.routes import HOW_TO_RELEASE
from dicom_node.sending.storescu import StoreScu
from dicom_node.sending.stow import StowUser
from dicom_node.storage import check_belongs_together, discard_half_received, join_others, only_one
from dicom_node.supervisor import stop_on_signals, stop_with_supervisor, supervise
from dicom_node.takeover import Takeover
from dicom_node.withdrawn import withdraw_again
from dicom_node.worklist.dicom.event_outbox import EventOutbox
from dicom_node.worklist.dicom.reading_steps import ReadingSteps
from dicom_node.worklist.dicom.services import provider_of
from dicom_node.worklist.listeners import Hl7Adapter, UpsAdapter
from dicom_node.worklist.orders_over_hl7 import orders_over_hl7
from prima_core.base.errors import BundleError
from prima_core.bundle import BundleManifest, read_manifest

AUDIT_SECONDS = 2.0
WORKER_NICE = 5  # nice(1)
BEAT_SECONDS = 5.0
WORKITEM_SECONDS = 15.0
DROP_SECONDS = 60.0
SIGN_OF_LIFE = b"."


def serve(configuration: Configuration) -> None:
    """Run the whole node until it is told to stop.

    Raises ConfigurationError when it cannot start: no bundle or an altered one, a port in use, another node on the same
    storage. Weights and ports are checked by the processes that use them, so that no start pays for that twice.
    """
    os.umask(PRIVATE)
    if os.geteuid() == 0:  # no refusal: in a container root may be all there is
        log(Event.RUNS_AS_ROOT, "warning")
    check_certificates(configuration)
    if configuration.model.bundle is None:
        raise ConfigurationError("model.bundle: name a model bundle; `dicom-node model import-prima` makes one")
    node = configuration.node
    with only_one(node.storage, node.name) as locks:
        migrate(node.database_url)
        registry = Registry(node.database_url)
        check_belongs_together(configuration, registry)
        if registry.chosen_models().active is None:
            configured_bundle(configuration)
        if node.name is not None:
            join_others(configuration, registry, locks)
        discard_half_received(configuration)
        registry.forget_processes([node.process(role) for role in EXPECTED])
        registry.close()
        # A process that is started again later must not run under a file that was edited meanwhile.
        before = changed_since(node.frozen, configuration)
        replace_file(node.frozen, configuration.to_json().encode())
        with recording(configuration):
            if before:
                log(Event.CONFIGURATION_CHANGED, "warning", reason=", ".join(before))
            supervise(configuration, node.frozen, locks.held)
        if node.name is not None:
            _leave(registry, node.name)


def _leave(registry: Registry, node: str) -> None:
    """Let the others know that this node needs not agree with them any more; they learn it anyway, after a while."""
    try:
        registry.leave(node, time.time())
    except DATABASE_AWAY as error:
        log(Event.JOB_FAILED, "warning", job="leave", error=type(error).__name__)
    finally:
        registry.close()


def changed_since(frozen: Path, configuration: Configuration) -> list[str]:
    """Which sections differ from those that the node ran on before; none the first time."""
    if not frozen.exists():
        return []
    try:
        before = load_configuration(frozen).shown()
    except ConfigurationError:  # another version's
        return ["all: the earlier configuration cannot be read"]
    now = configuration.shown()
    return [name for name in now if now[name] != before.get(name)]


def configured_bundle(configuration: Configuration) -> BundleManifest | None:
    """The manifest of the bundle that the file names, if it names one.

    Raises ConfigurationError, also when a priority output of the bundle has no level (studies would end `dead`) or a
    rule names a finding that the bundle does not know.
    """
    if configuration.model.bundle is None:
        return None
    try:
        manifest = read_manifest(configuration.model.bundle)
    except BundleError as error:
        raise ConfigurationError(f"model.bundle: {error}") from error
    check_fits(configuration, manifest)
    return manifest


def run_process(role: str, configuration: Configuration) -> None:
    """Run one process of the node until its supervisor stops it or is gone."""
    stop = threading.Event()
    stop_with_supervisor()
    roles: dict[str, Role] = {
        "receiver": _receiver,
        "scheduler": _scheduler,
        "worker": _worker,
    }
    with process_edge(role, configuration) as registry:
        beat = Heartbeat(registry, configuration.node.process(role), stop)
        roles[role](configuration, registry, beat, stop)


class Heartbeat:
    """Says to the supervisor and in the registry that this process lives, every few seconds, and what it does.

    Once `pulse` is given, only while the work moves on.
    """

    def __init__(self, registry: Registry, process: str, stop: threading.Event) -> None:
        self.pulse: Pulse | None = None
        self._registry = registry
        self._process = process
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
        if self.pulse is not None and not self.pulse.alive():
            return
        with suppress(BrokenPipeError):  # the supervisor is gone; the end of standard input stops this process
            os.write(1, SIGN_OF_LIFE)
        try:
            self._registry.beat(self._process, os.getpid(), self._status, time.time())
        except DATABASE_AWAY as error:
            log(Event.JOB_FAILED, "warning", job="heartbeat", error=type(error).__name__)


Role = Callable[[Configuration, Registry, Heartbeat, threading.Event], None]


def _receiver(configuration: Configuration, registry: Registry, beat: Heartbeat, stop: threading.Event) -> None:
    stop_on_signals(stop)
    with orders_over_hl7(configuration, registry):
        receive(configuration, registry, stop, on_listening=lambda: beat.say("ready"))


def _scheduler(configuration: Configuration, registry: Registry, beat: Heartbeat, stop: threading.Event) -> None:
    stop_on_signals(stop)
    kind = f"{_node_key(configuration)}-outbox-"
    registry.return_deliveries(kind)
    withdraw_again(configuration.node.storage, registry, time.time())
    discard_unfinished(configuration.node.outgoing)
    names = [destination.name for destination in configuration.destinations]
    registry.set_aside_unknown(names, "the destination is not in the configuration; add it, then `dicom-node retry`")
    if not configuration.model.allow_nonclinical:
        registry.note_held(f"held: its model is not clinical; {HOW_TO_RELEASE}")
    reached = senders(configuration, registry)
    pulse = Pulse()
    console = Console(configuration, registry)
    scheduler = Housekeeping(configuration, registry, compare_apart, pulse).scheduler()
    Corrections(configuration, registry).schedule(scheduler)
    Cleaning(configuration, registry).schedule(scheduler)
    if configuration.node.name is not None:
        Takeover(configuration, registry, kind + uuid.uuid4().hex[:8], stop).schedule(scheduler)
    console.start()
    events = _workitems(configuration, registry, scheduler, stop)
    if configuration.retrain.enabled:
        NightTraining(configuration, registry, stop).schedule(scheduler)
    if configuration.audit.enabled:
        _audit(configuration, registry, scheduler, stop)
    scheduler.start()
    beat.pulse = pulse
    beat.say("ready")
    try:
        Outbox(configuration, registry, reached, kind + uuid.uuid4().hex[:8], simpler).run(stop)
        stop.wait()
    finally:
        stop.set()  # whatever ended this: a job that runs all night must see it
        scheduler.shutdown()
        events.join()
        console.stop()


def _audit(configuration: Configuration, registry: Registry, scheduler: BaseScheduler, stop: threading.Event) -> None:
    """What the registry knows goes into the audit trail, and the trail to the syslog server if there is one."""
    collector = Collector(configuration, registry)
    scheduler.add_job(collector.collect, "interval", seconds=AUDIT_SECONDS, id="audit trail")
    if configuration.audit.syslog is not None:
        Forwarder(configuration.audit.syslog, trail_of(configuration)).start(stop)


def _workitems(
    configuration: Configuration, registry: Registry, scheduler: BaseScheduler, stop: threading.Event
) -> EventOutbox:
    """What keeps the node's own work items and sends UPS events; both rest where `worklist.procedure_steps` is off."""
    kind = f"{_node_key(configuration)}-events-"
    events = EventOutbox(configuration, registry, kind + uuid.uuid4().hex[:8])
    if configuration.worklist.procedure_steps:
        registry.return_events(kind)
        steps = ReadingSteps(configuration, registry, provider_of(configuration, registry))
        scheduler.add_job(steps.update, "interval", seconds=WORKITEM_SECONDS, id="work items")
        scheduler.add_job(events.drop_useless, "interval", seconds=DROP_SECONDS, id="ups events")
        events.start(stop)
    return events


def senders(configuration: Configuration, registry: Registry) -> dict[str, Send]:
    """How each destination is reached, by its name. Raises ConfigurationError on unusable certificates."""
    title, outgoing = configuration.node.ae_title, configuration.node.outgoing
    answers = CommitmentAnswers(configuration, registry)
    found: dict[str, Send] = {}
    for destination in configuration.destinations:
        if isinstance(destination, Hl7Destination):
            found[destination.name] = Hl7Adapter(destination)
        elif isinstance(destination, UpsDestination):
            found[destination.name] = UpsAdapter(destination, title)
        elif isinstance(destination, StowDestination):
            found[destination.name] = StowUser(destination, outgoing)
        elif destination.storage_commitment:
            found[destination.name] = CommitmentScu(destination, outgoing, title, registry, answers)
        else:
            found[destination.name] = StoreScu(destination, outgoing, title)
    return found


def _worker(configuration: Configuration, registry: Registry, beat: Heartbeat, stop: threading.Event) -> None:
    from dicom_node.stages import load_worker

    yield_to_receiver()
    beat.say("loading the model")
    pulse = Pulse()
    worker = load_worker(configuration, registry, stop, pulse, owner_kind=f"{_node_key(configuration)}-worker-")
    stop_on_signals(stop)  # only now: while it loads there is nothing to finish, and it may take long
    pulse.beat()
    beat.pulse = pulse
    beat.say("ready")
    worker.run(stop)


def yield_to_receiver() -> None:
    """Have this process wait for the node's others: a sender waits for milliseconds, a result takes seconds."""
    os.nice(WORKER_NICE)


def _node_key(configuration: Configuration) -> str:
    """Tells this node's work from another's on the same database."""
    node = configuration.node
    name = f"{socket.gethostname()}:{node.storage.absolute()}"
    if node.name is not None:
        name = f"node {node.name}"  # wherever it runs: no other has the name
    return hashlib.sha256(name.encode()).hexdigest()[:12]
