"""The receiving process: listens, stores, records, until told to stop. Never imports torch or MONAI."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError, RetriableError
from dicom_node.intake.association import FurtherServices
from dicom_node.intake.entrance import Entrance
from dicom_node.intake.helpers import Helper, HelperProgram
from dicom_node.intake.listener import Listener
from dicom_node.intake.places import CountedPlaces
from dicom_node.intake.reconcile import reconcile
from dicom_node.intake.registrar import patiently
from dicom_node.intake.serving import STOP_PATIENCE_SECONDS, SWEEP_SECONDS, Serving, silence_libraries
from dicom_node.intake.spool import Spool
from dicom_node.jobs.registry import DATABASE_AWAY, Registry


class ListenerEnded(RetriableError):
    """The thread that accepts connections ended."""


def run_receiver(
    configuration: Configuration,
    registry: Registry,
    stop: threading.Event,
    on_listening: Callable[[], None] = lambda: None,
    services: FurtherServices | None = None,
    program: HelperProgram | None = None,
) -> None:
    """Receive until `stop` is set, then finish what is being stored, write the rows and return.

    Before it listens it brings spool and registry into agreement, waiting for the database where necessary.
    on_listening: called once peers are served. services: what is answered beside Verification and Storage. program:
    starts what serves associations beside this process, up to `intake.processes` in all; without it this one is alone.
    Raises ConfigurationError when the port or a peer's address cannot be used, OSError when the spool cannot, or no
    helper started, RegistrarEnded when rows can no longer be written, ListenerEnded when no connection is accepted
    any more, HelperEnded when a helper is gone.
    """
    silence_libraries()
    spool = Spool(configuration.node.spool, configuration.node.name)
    spool.prepare()
    boot_id = configuration.node.boot(uuid.uuid4().hex[:24])
    try:
        reconcile(spool, registry, configuration.intake.max_object_bytes, stop)
        # Only now: until their rows are rebuilt, studies that the last receiver was fed must stay open.
        patiently(partial(registry.close_other_boots, boot_id, time.time()), stop)
    except DATABASE_AWAY:
        return  # told to stop while waiting for the database
    intake = configuration.intake
    places = CountedPlaces(intake.max_associations, intake.max_associations_of_one)
    serving = Serving(configuration, registry, boot_id, places, services)
    helpers: list[Helper] = []
    listener = open_listener(configuration, Sharing(serving, helpers).serve)
    serving.start()
    try:
        if program is not None:
            for _ in range(1, intake.processes):
                helpers.append(Helper(program, configuration, boot_id, places))
        listener.start()
        on_listening()
        while not stop.wait(SWEEP_SECONDS):
            serving.sweep()
            for helper in helpers:
                helper.check()
            if not listener.running:
                raise ListenerEnded("nobody is let in any more; the receiver must be started again")
    finally:
        listener.stop()
        places.close()
        for helper in helpers:
            helper.ask_to_stop()
        deadline = time.monotonic() + 2 * STOP_PATIENCE_SECONDS
        serving.stop()
        for helper in helpers:
            helper.wait(deadline)


def open_listener(configuration: Configuration, serve: Callable[[socket.socket, Any], None]) -> Listener:
    """A bound socket, not yet accepting. Raises ConfigurationError when the address cannot be bound."""
    node, intake = configuration.node, configuration.intake
    # Under TLS the handshake comes first.
    entrance = Entrance(intake.acse_timeout_seconds, whole=intake.tls is None)
    try:
        return Listener((node.bind, node.port), entrance, serve)
    except OSError as error:
        raise ConfigurationError(f"node.bind, node.port: cannot listen there ({error.strerror})") from error


class Sharing:
    """Gives each connection to whoever serves the fewest associations. helpers: may still grow."""

    def __init__(self, serving: Serving, helpers: Sequence[Helper]) -> None:
        self._serving = serving
        self._helpers = helpers

    def serve(self, connection: socket.socket, address: Any) -> None:
        """Have it served; never blocks."""
        hands: list[Serving | Helper] = [self._serving, *(helper for helper in self._helpers if helper.ready)]
        least = min(hands, key=lambda hand: (hand.load, hand.given))
        if isinstance(least, Helper) and least.serve(connection, address):
            connection.close()  # the helper has a descriptor of its own
        else:
            self._serving.serve(connection, address)
