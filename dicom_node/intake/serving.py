"""What serves associations in one process: from a connection to the object in the spool, and to its row."""

from __future__ import annotations

import logging
import socket
import warnings
from typing import Any

from pynetdicom import AE, _config

from dicom_node.base.config import Configuration, IntakeSection
from dicom_node.base.disk import reserve_of
from dicom_node.base.errors import RetriableError
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.intake import inline
from dicom_node.intake.access import AccessRule
from dicom_node.intake.association import FurtherServices, StorageProvider
from dicom_node.intake.guarded import GuardedHandler
from dicom_node.intake.places import Places
from dicom_node.intake.presentation import Contexts, supported_contexts
from dicom_node.intake.registrar import MAX_WAITING, Registrar
from dicom_node.intake.secured import MAX_HANDSHAKES, Secured
from dicom_node.intake.server import AssociationServer
from dicom_node.intake.spool import Spool
from dicom_node.intake.storage import PARSED_AT_ONCE, Storage
from dicom_node.intake.transit import IN_MEMORY_BYTES, Transit
from dicom_node.jobs.registry import Registry

SWEEP_SECONDS = 0.2
STOP_PATIENCE_SECONDS = 10.0
LEAST_CONNECTIONS = 4
CONNECTIONS_PER_ASSOCIATION = 4  # that have threads: associations, and others that are refused or on their way out


class RegistrarEnded(RetriableError):
    """The thread that writes rows ended; a fresh process rebuilds what it left from the spool."""


class Serving:
    """Associations with this process. `sweep` is to be called every `SWEEP_SECONDS`.

    Raises ConfigurationError on construction when a peer's
    address or a certificate cannot be used.
    """

    def __init__(
        self,
        configuration: Configuration,
        registry: Registry,
        boot_id: str,
        places: Places,
        services: FurtherServices | None,
    ) -> None:
        intake = configuration.intake
        spool = Spool(configuration.node.spool, configuration.node.name)
        self.given = 0  # connections
        # Each process has its share of what the whole receiver may hold.
        each = intake.processes
        self._registrar = Registrar(registry, boot_id, MAX_WAITING // each)
        transit = Transit(intake.incoming_bytes // each, IN_MEMORY_BYTES // each)
        reserve, parsers = reserve_of(configuration), max(1, PARSED_AT_ONCE // each)
        storage = Storage(spool, self._registrar, intake.max_object_bytes, transit, reserve, parsers)
        self._provider = StorageProvider(AccessRule(configuration), storage, self._registrar, intake, places, services)
        self._server = _server(configuration, self._provider, services)

    @property
    def load(self) -> int:
        """How many associations it serves, with connections that are about to ask for one."""
        return len(self._server.active_associations)

    def start(self) -> None:
        """Be ready to serve."""
        self._registrar.start()

    def serve(self, connection: socket.socket, address: Any) -> None:
        """Serve a connection that asks for an association."""
        self.given += 1
        self._server.serve(connection, address)

    def sweep(self) -> None:
        """See to what ended. Raises RegistrarEnded when rows can no longer be written."""
        self._provider.sweep()
        self._server.tidy()
        if not self._registrar.running:
            raise RegistrarEnded("rows can no longer be written; the receiver must be started again")

    def stop(self) -> None:
        """Finish what is being stored, end the associations and write the rows."""
        self._provider.abort_all(STOP_PATIENCE_SECONDS)
        self._provider.sweep()
        self._registrar.stop(STOP_PATIENCE_SECONDS)
        self._server.server_close()


def _server(
    configuration: Configuration, provider: StorageProvider, services: FurtherServices | None
) -> AssociationServer:
    intake, node = configuration.intake, configuration.node
    ae = AE(ae_title=node.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = intake.max_pdu_bytes
    ae.acse_timeout = intake.acse_timeout_seconds
    ae.dimse_timeout = intake.dimse_timeout_seconds
    ae.network_timeout = intake.idle_timeout_seconds
    max_connections = max(LEAST_CONNECTIONS, CONNECTIONS_PER_ASSOCIATION * intake.max_associations // intake.processes)
    # The provider counts associations; pynetdicom would also count probes and refused peers against them.
    ae.maximum_associations = max_connections
    for context in [*supported_contexts(), *(services.contexts() if services else [])]:
        # One by one: as a list pynetdicom takes them without their roles.
        roles = (context.scu_role, context.scp_role)
        ae.add_supported_context(str(context.abstract_syntax), context.transfer_syntax, *roles)
    handler: type[GuardedHandler] = GuardedHandler
    if intake.inline and inline.usable():
        handler = inline.inline_handler(provider.inline_service(), intake.dimse_timeout_seconds)
    server = AssociationServer(
        ae,
        (node.bind, node.port),
        node.ae_title,
        Contexts(ae.supported_contexts),
        evt_handlers=provider.handlers(),
        request_handler=handler,
    )
    server.ended = provider.on_ended
    server.max_connections = max_connections
    server.pdu_seconds, server.request_seconds = intake.dimse_timeout_seconds, intake.acse_timeout_seconds
    server.secured = _secured(intake)
    return server


def _secured(intake: IntakeSection) -> Secured | None:
    handshakes = MAX_HANDSHAKES // intake.processes
    return Secured(intake.tls, intake.acse_timeout_seconds, handshakes) if intake.tls else None


def silence_libraries() -> None:
    """Keep pydicom's and pynetdicom's logs and warnings off every stream: they quote what a sender sent."""
    _config.LOG_HANDLER_LEVEL = "none"
    for name in ("pydicom", "pynetdicom"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    warnings.filterwarnings("ignore", module=r"pydicom|pynetdicom")
    warnings.filterwarnings("ignore", category=UserWarning)
