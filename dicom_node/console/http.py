"""The HTTP server: the console's application on uvicorn, in a thread, bounded against slow and many clients."""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dicom_node.base.addresses import AllowList
from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.tls import Renewing, server_context
from dicom_node.console.admission import Admission
from dicom_node.console.application import application
from dicom_node.console.https import TlsFirst
from dicom_node.jobs.registry import Registry

CONNECTIONS = 64  # at a time, so that this port never takes the process's last file
CONNECTION_SECONDS = 30.0  # a connection's whole life
SILENT_SECONDS = 5.0  # until its first request is whole
IDLE_SECONDS = 5  # between two requests of one connection
STOP_SECONDS = 2  # for requests under way when the node stops


class Console:
    """Serves while started; `port` is the port it listens on.

    Raises ConfigurationError on construction when the address or a certificate cannot be used.
    """

    def __init__(self, configuration: Configuration, registry: Registry) -> None:
        node = configuration.node
        family = socket.AF_INET6 if ":" in node.http_bind else socket.AF_INET
        try:
            self._socket = socket.create_server((node.http_bind, node.http_port), family=family)
        except OSError as error:
            words = f"node.http_bind, node.http_port: cannot listen there ({error.strerror})"
            raise ConfigurationError(words) from error
        self.port: int = self._socket.getsockname()[1]
        self._admitted = AllowList(node.http_peers)
        self._tls = TlsFirst(Renewing(partial(server_context, node.http_tls))) if node.http_tls else None
        self._server = uvicorn.Server(
            uvicorn.Config(
                application(configuration, registry),
                http=self._connection,  # type: ignore[arg-type]
                ws="none",
                loop="asyncio",
                log_config=None,
                log_level="critical",  # what it says of a failed request may quote what came in
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="console", daemon=True
        )

    def _connection(self, **state: Any) -> asyncio.Protocol:
        make = partial(_BoundedConnection, **state)
        return Admission(self._admitted, partial(self._tls, make) if self._tls else make)

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. A question that the database leaves open is left to a thread that ends with the process."""
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS + 1)


class _BoundedConnection(H11Protocol):
    """HTTP/1.1 for one client, for a while: uvicorn itself waits for ever for a request that does not come.

    Where too many are open, the one that has been idle for longest makes room: `/healthz` is never shut out by silence.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._was_answered = False
        self._ends = [
            self.loop.call_later(CONNECTION_SECONDS, transport.abort),
            self.loop.call_later(SILENT_SECONDS, self._end_if_silent),
        ]
        present = [one for one in self.connections if isinstance(one, _BoundedConnection) and one._is_open]
        if len(present) > CONNECTIONS:
            idle = [one for one in present if one is not self and not one._is_asked]
            min(idle, key=lambda one: one._idle_since, default=self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._ends:
            timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        self._was_answered = True
        super().on_response_complete()

    @property
    def _is_open(self) -> bool:
        return not self.transport.is_closing()

    @property
    def _is_asked(self) -> bool:
        """Whether a request waits for its answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _end_if_silent(self) -> None:
        if not (self._is_asked or self._was_answered):
            self.transport.abort()
