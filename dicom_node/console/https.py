"""TLS before HTTP: each connection's handshake has a deadline and none is waited for by others.

uvicorn's own TLS would hand a connection over only after its handshake: those that say nothing would not be counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dicom_node.base.events import Event, log
from dicom_node.base.tls import Renewing, tls_words

HANDSHAKE_SECONDS = 5.0
MAX_HANDSHAKES = 64  # under way; for one more the oldest is given up


class TlsFirst:
    """Makes protocols that do the handshake and then go on as the protocol that `make` gives."""

    def __init__(self, context: Renewing) -> None:
        self.context = context
        self.under_way: list[Handshake] = []

    def __call__(self, make: Callable[[], asyncio.Protocol]) -> Handshake:
        """One connection's."""
        return Handshake(self, make)


class Handshake(asyncio.Protocol):
    """A connection until TLS stands."""

    def __init__(self, shared: TlsFirst, make: Callable[[], asyncio.Protocol]) -> None:
        self._shared = shared
        self._make = make
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = b""
        self._lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; nothing may be read before TLS reads it."""
        transport.pause_reading()
        self._transport = transport
        under_way = self._shared.under_way
        under_way.append(self)
        if len(under_way) > MAX_HANDSHAKES and (oldest := under_way.pop(0))._transport is not None:
            oldest._transport.abort()
        self._task = asyncio.get_running_loop().create_task(self._shake(transport))

    async def _shake(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._shared.context(),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=HANDSHAKE_SECONDS,
            )
        except OSError as error:
            transport.abort()
            log(Event.TLS_REFUSED, "warning", address=str(peer[0]) if peer else None, reason=tls_words(error))
            return
        finally:
            if self in self._shared.under_way:
                self._shared.under_way.remove(self)
        if secured is not None and not self._lost:
            self._go_on(secured)

    def _go_on(self, secured: asyncio.Transport) -> None:
        protocol = self._make()
        secured.set_protocol(protocol)
        protocol.connection_made(secured)
        if self._early:
            protocol.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        """A request may come with the last bytes of the handshake, before the next protocol is there."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """The same of its end."""
        self._lost = True
