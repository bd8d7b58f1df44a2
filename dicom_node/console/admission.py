"""Which addresses may connect to the HTTP port: decided before anything is read, TLS included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dicom_node.base.addresses import AllowList
from dicom_node.base.events import Event, log


class Admission(asyncio.Protocol):
    """A new connection: handed on to the protocol that `make` gives, or ended."""

    def __init__(self, admitted: AllowList, make: Callable[[], asyncio.Protocol]) -> None:
        self._admitted = admitted
        self._make = make

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Decide by the peer's address."""
        peer = transport.get_extra_info("peername")
        if peer is None or not self._admitted.admits(str(peer[0])):
            transport.abort()
            log(Event.HTTP_REFUSED, "warning", address=str(peer[0]) if peer else None)
            return
        following = self._make()
        transport.set_protocol(following)
        following.connection_made(transport)
