"""The receiving process: listens, stores, records, until told to stop. Never imports torch or MONAI."""

from __future__ import annotations

import logging
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from functools import partial

from pynetdicom import AE, _config

from dicom_node.base.config import Configuration
from dicom_node.base.disk import reserve_of
from dicom_node.base.errors import ConfigurationError, RetriableError
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.intake import inline
from dicom_node.intake.access import AccessRule
from dicom_node.intake.association import FurtherServices, StorageProvider
from dicom_node.intake.guarded import GuardedHandler
from dicom_node.intake.listener import Listener
from dicom_node.intake.presentation import Contexts, supported_contexts
from dicom_node.intake.reconcile import reconcile
from dicom_node.intake.registrar import Registrar, patiently
from dicom_node.intake.secured import Secured
from dicom_node.intake.spool import Spool
from dicom_node.intake.storage import Storage
from dicom_node.intake.transit import Transit
from dicom_node.jobs.registry import DATABASE_AWAY, Registry

SWEEP_SECONDS = 0.2
STOP_PATIENCE_SECONDS = 10.0
CONNECTIONS_PER_ASSOCIATION = 4  # that have threads: associations, and others that are refused or on their way out


class RegistrarEnded(RetriableError):
    """The thread that writes rows ended; a fresh process rebuilds what it left from the spool."""


class ListenerEnded(RetriableError):
    """The thread that accepts connections ended."""


def run_receiver(
    configuration: Configuration,
    registry: Registry,
    stop: threading.Event,
    on_listening: Callable[[], None] = lambda: None,
    services: FurtherServices | None = None,
) -> None:
    """Receive until `stop` is set, then finish what is being stored, write the rows and return.

    Before it listens it brings spool and registry into agreement, waiting for the database where necessary.
    on_listening: called once peers are served. services: what is answered beside Verification and Storage. Raises
    ConfigurationError when the port or a peer's address cannot be used, OSError when the spool cannot, RegistrarEnded
    when rows can no longer be written, ListenerEnded when no connection is accepted any more.
    """
    silence_libraries()
    access = AccessRule(configuration)
    spool = Spool(configuration.node.spool, configuration.node.name)
    spool.prepare()
    boot_id = configuration.node.boot(uuid.uuid4().hex[:24])
    try:
        reconcile(spool, registry, configuration.intake.max_object_bytes, stop)
        # Only now: until their rows are rebuilt, studies that the last receiver was fed must stay open.
        patiently(partial(registry.close_other_boots, boot_id, time.time()), stop)
    except DATABASE_AWAY:
        return  # told to stop while waiting for the database
    registrar = Registrar(registry, boot_id)
    intake = configuration.intake
    transit = Transit(intake.incoming_bytes)
    storage = Storage(spool, registrar, intake.max_object_bytes, transit, reserve_of(configuration))
    provider = StorageProvider(access, storage, registrar, intake, services)
    listener = open_listener(configuration, provider, services)
    registrar.start()
    listener.start()
    try:
        on_listening()
        while not stop.wait(SWEEP_SECONDS):
            provider.sweep()
            if not registrar.running:
                raise RegistrarEnded("rows can no longer be written; the receiver must be started again")
            if not listener.running:
                raise ListenerEnded("nobody is let in any more; the receiver must be started again")
    finally:
        listener.stop()
        provider.abort_all(STOP_PATIENCE_SECONDS)
        provider.sweep()
        registrar.stop(STOP_PATIENCE_SECONDS)


def open_listener(
    configuration: Configuration, provider: StorageProvider, services: FurtherServices | None = None
) -> Listener:
    """A bound server, not yet serving.

    Raises ConfigurationError when the address cannot be bound, or a certificate cannot be used.
    """
    intake, node = configuration.intake, configuration.node
    ae = AE(ae_title=node.ae_title)
    secured = Secured(intake.tls, intake.acse_timeout_seconds) if intake.tls else None
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = intake.max_pdu_bytes
    ae.acse_timeout = intake.acse_timeout_seconds
    ae.dimse_timeout = intake.dimse_timeout_seconds
    ae.network_timeout = intake.idle_timeout_seconds
    max_connections = CONNECTIONS_PER_ASSOCIATION * intake.max_associations
    # The provider counts associations; pynetdicom would also count probes and refused peers against them.
    ae.maximum_associations = max_connections
    for context in [*supported_contexts(), *(services.contexts() if services else [])]:
        # One by one: as a list pynetdicom takes them without their roles.
        roles = (context.scu_role, context.scp_role)
        ae.add_supported_context(str(context.abstract_syntax), context.transfer_syntax, *roles)
    handler: type[GuardedHandler] = GuardedHandler
    if intake.inline and inline.usable():
        handler = inline.inline_handler(provider.inline_service(), intake.dimse_timeout_seconds)
    try:
        listener = Listener(
            ae,
            (node.bind, node.port),
            node.ae_title,
            Contexts(ae.supported_contexts),
            evt_handlers=provider.handlers(),
            request_handler=handler,
        )
    except OSError as error:
        raise ConfigurationError(f"node.bind, node.port: cannot listen there ({error.strerror})") from error
    listener.max_connections = max_connections
    listener.pdu_seconds, listener.request_seconds = intake.dimse_timeout_seconds, intake.acse_timeout_seconds
    listener.secured = secured
    return listener


def silence_libraries() -> None:
    """Keep pydicom's and pynetdicom's logs and warnings off every stream: they quote what a sender sent."""
    _config.LOG_HANDLER_LEVEL = "none"
    for name in ("pydicom", "pynetdicom"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    warnings.filterwarnings("ignore", module=r"pydicom|pynetdicom")
    warnings.filterwarnings("ignore", category=UserWarning)
