"""MLLP peers for the integration tests: one that answers as told, certificates, and the node's desk in memory."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from dicom_node.base.orders import WorklistEvent
from dicom_node.base.tls import ClientTls
from dicom_node.worklist.hl7.framing import block
from dicom_node.worklist.hl7.listener import Handlers, Stored
from dicom_node.worklist.hl7.refusal import Refused
from support.hl7_messages import lines, msh

# Given the messages that came so far on any connection: what to write back, or None to hang up.
Script = Callable[[list[bytes]], bytes | None]


def ack(code: str, control_id: str = "K0001") -> bytes:
    return block(lines(msh("ACK"), f"MSA|{code}|{control_id}"))


class ScriptedPeer:
    """A server that shares no code with the sender but the framing of its answers. `received` holds whole messages."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.received: list[bytes] = []
        self.connections: list[socket.socket] = []
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> ScriptedPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        for connection in self.connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        try:
            while chunk := connection.recv(65536):
                data += chunk
                while (end := data.find(b"\x1c\r")) >= 0:
                    self.received.append(data[1:end])
                    data = data[end + 2 :]
                    answer = self._script(self.received)
                    if answer is None:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    connection.sendall(answer)
        except OSError:
            return
        finally:
            connection.close()
            self.ended.set()


@dataclass
class Desk:
    """What the node does with messages, kept in memory. `down`: the database is away; `refuse`: apply says no."""

    stored: list[bytes] = field(default_factory=list)
    events: list[WorklistEvent] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    applied: set[bytes] = field(default_factory=set)
    down: Exception | None = None
    refuse: Exception | None = None

    @property
    def handlers(self) -> Handlers:
        return Handlers(self.store, self.apply, self.refused, lambda _address, reason: self.troubles.append(reason))

    def store(self, raw: bytes, address: str) -> Stored:
        assert address.startswith("127.0.0.")
        if self.down is not None:
            raise self.down
        self.stored.append(raw)
        return Stored(len(self.stored) - 1, raw in self.applied)

    def apply(self, stored_id: int, events: tuple[WorklistEvent, ...]) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.events += events
        self.applied.add(self.stored[stored_id])

    def refused(self, stored_id: int, refusal: Refused) -> None:
        assert self.stored[stored_id]
        self.refusals.append(refusal)


def certificate(folder: Path, name: str = "localhost") -> ClientTls:
    """A certificate that signs itself, for a name and 127.0.0.1, made by the openssl command."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", "-x509", *curve, "-keyout", str(key), "-out", str(cert), *subject]
    subprocess.run(command, check=True, capture_output=True)
    return ClientTls(certificate=cert, private_key=key, ca_file=cert)
