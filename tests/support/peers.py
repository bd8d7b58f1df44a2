"""Real peers for tests: the node's receiver in a thread or a process of its own, DCMTK's tools, raw sockets.

How to use:

    with receiver(tmp_path) as node:                                  # in this process, registry and spool at hand
        assert store(node.port, files).returncode == 0                # DCMTK's storescu
        assert node.standings() == {"current": len(files)}
    with receiver_process(tmp_path) as (process, port): ...           # may be killed

DCMTK is called by its full path: a virtual environment has tools of the same names.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicom_node.base.associations import WITHOUT_DELAY
from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.events import Event, observe
from dicom_node.base.reactor import WITHOUT_LOSS
from dicom_node.intake.association import FurtherServices
from dicom_node.intake.helpers import HelperProgram
from dicom_node.intake.receiver import run_receiver
from dicom_node.intake.spool import Spool
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import associations, instances
from dicom_node.receiving import HELPER

HANG_SECONDS = 120  # only so that a broken test ends
AE_TITLE = "NODE"
#: Event handlers of every association that a test opens: no answer is late or lost by the sender's own fault.
CLIENT = [WITHOUT_DELAY, WITHOUT_LOSS]
#: Which of the two ways receivers store by, unless they are told; see the fixture `storing`.
storing_inline = True
#: Of how many processes receivers are, unless they are told; `make long` asks for two.
PROCESSES = int(os.environ.get("PRIMA_INTAKE_PROCESSES") or 1)
RECEIVER = """
import sys, threading
from pathlib import Path
from dicom_node.base.config import load_configuration
from dicom_node.base.events import configure_logging
from dicom_node.jobs.registry import Registry
from dicom_node.receiving import receive
configuration = load_configuration(Path(sys.argv[1]))
configure_logging(sys.argv[2])
receive(configuration, Registry(configuration.node.database_url), threading.Event())
"""


def free_port() -> int:
    """A free TCP port of loopback, below those that outgoing connections take: it stays free for a while."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait for the condition and give its value."""
    until = time.monotonic() + HANG_SECONDS
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what or condition}")


def listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def dcmtk(tool: str) -> str:
    """Full path of a DCMTK tool; skips the test where DCMTK is not installed."""
    path = shutil.which(tool, path="/usr/local/bin:/usr/bin")
    if path is None:
        pytest.skip(f"DCMTK's {tool} is not installed (apt install dcmtk)")
    return path


def run_dcmtk(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK tool to its end; output and errors in `stdout`."""
    environment = {"PATH": "/usr/bin", "TCP_NODELAY": "1", "DCMDICTPATH": "/usr/share/libdcmtk17/dicom.dic"}
    command = [dcmtk(tool), *[str(argument) for argument in arguments]]
    return subprocess.run(
        command,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=HANG_SECONDS,
        check=False,
    )


def store(port: int, files: Sequence[Path], *options: str, called: str = AE_TITLE) -> subprocess.CompletedProcess[str]:
    """C-STORE files with DCMTK's storescu."""
    return run_dcmtk("storescu", "-v", "-aec", called, *options, "127.0.0.1", port, *files)


def configuration_for(folder: Path, port: int, **intake: Any) -> Configuration:
    """A node's configuration on loopback with its state in `folder`, its database ready."""
    # As few as its bytes on their way are enough for, where a test is about these.
    processes = 1 if "max_incoming_bytes" in intake else PROCESSES
    intake = {"inline": storing_inline, "processes": processes} | intake
    configuration = configuration_from(
        {"node": {"ae_title": AE_TITLE, "port": port, "storage": "node"}, "intake": intake}, folder
    )
    migrate(configuration.node.database_url)
    return configuration


@dataclass(frozen=True)
class RunningReceiver:
    """A receiver in this process and what it wrote."""

    configuration: Configuration
    registry: Registry
    spool: Spool

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.configuration.node.port

    def rows(self, table: sa.Table = instances) -> list[Any]:
        """All rows of a table of the registry."""
        return read_rows(self.configuration, table)

    def standings(self, after: int = 1) -> dict[str, int]:
        """How many objects have which standing, once this many associations are on record and all have ended."""

        def ended() -> bool:
            rows = self.rows(associations)
            return len(rows) >= after and all(row.closed_at is not None for row in rows)

        wait_until(ended, f"{after} associations on record as ended")
        return dict(Counter(str(row.standing) for row in self.rows()))


def read_rows(configuration: Configuration, table: sa.Table = instances) -> list[Any]:
    """All rows of a table of a node's registry."""
    engine = sa.create_engine(configuration.node.database_url)
    with engine.connect() as connection:
        found = list(connection.execute(sa.select(table)).all())
    engine.dispose()
    return found


@contextmanager
def receiver(
    where: Path | Configuration,
    registry: Registry | None = None,
    services: FurtherServices | None = None,
    program: HelperProgram | None = None,
    **intake: Any,
) -> Iterator[RunningReceiver]:
    """A receiver, stopped gracefully at the end; where: its configuration, or a folder for one on a free port.

    program: of its helpers, which it has none of without; where all tests ask for several processes, the node's own.
    """
    helpers, all_serve = PROCESSES - 1 if program is None else 0, threading.Semaphore(0)
    told = observe(lambda event, _: all_serve.release() if event is Event.HELPER_READY else None)
    program = program or (HelperProgram(HELPER) if helpers else None)
    configuration = where if isinstance(where, Configuration) else configuration_for(where, free_port(), **intake)
    registry = registry or Registry(configuration.node.database_url)
    stop = threading.Event()
    thread = threading.Thread(
        target=run_receiver,
        args=(configuration, registry, stop),
        kwargs={"services": services, "program": program},
        name="receiver",
    )
    thread.start()
    try:
        wait_until(lambda: listening(configuration.node.port) or not thread.is_alive(), "receiver listens")
        for _ in range(min(helpers, configuration.intake.processes - 1)):
            assert all_serve.acquire(timeout=HANG_SECONDS)
        yield RunningReceiver(configuration, registry, Spool(configuration.node.spool))
    finally:
        told()
        stop.set()
        thread.join(HANG_SECONDS)
        registry.close()
    assert not thread.is_alive()


@contextmanager
def receiver_process(
    folder: Path, configuration: Configuration, log_level: str = "warning", **intake: Any
) -> Iterator[subprocess.Popen[str]]:
    """The same receiver in a process of its own, killed at the end if it still runs; its log is `receiver.log`."""
    toml = folder / "node.toml"
    node, given = configuration.node, configuration.intake
    intake = {"inline": given.inline, "processes": given.processes} | intake
    lines = ["[node]", f'ae_title = "{AE_TITLE}"', f"port = {node.port}", f'storage = "{node.storage}"', "[intake]"]
    toml.write_text("\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in intake.items())]))
    with (folder / "receiver.log").open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RECEIVER, str(toml), log_level], stdout=output, stderr=output, text=True
        )
    try:
        wait_until(lambda: listening(node.port) or process.poll() is not None, "receiver listens")
        yield process
    finally:
        process.kill()
        process.wait()


def associate_request(calling: str = "RAW", called: str = AE_TITLE, contexts: Sequence[tuple[str, str]] = ()) -> bytes:
    """An encoded A-ASSOCIATE-RQ (PS3.8 9.3.2); contexts are pairs of abstract and transfer syntax, ids 1, 3, 5 …"""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for index, (abstract, transfer) in enumerate(contexts or [("1.2.840.10008.1.1", "1.2.840.10008.1.2")]):
        syntaxes = _item(0x30, abstract.encode()) + _item(0x40, transfer.encode())
        items += _item(0x20, bytes([2 * index + 1, 0, 0, 0]) + syntaxes)
    items += _item(0x50, _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3"))
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    return pdu(0x01, struct.pack(">HH", 1, 0) + titles + bytes(32) + items)


def pdu(kind: int, body: bytes) -> bytes:
    """An encoded PDU (PS3.8 9.3.1)."""
    return struct.pack(">BBL", kind, 0, len(body)) + body


def data_pdu(control: int, fragment: bytes, context_id: int = 1) -> bytes:
    """A P-DATA-TF with one fragment; control: 1 command, 2 last (PS3.8 E.2)."""
    return pdu(0x04, pdv(control, fragment, context_id))


def pdv(control: int, fragment: bytes, context_id: int = 1) -> bytes:
    """A presentation data value item (PS3.8 9.3.5.1)."""
    return struct.pack(">LBB", len(fragment) + 2, context_id, control) + fragment


def read_pdu(connection: socket.socket) -> tuple[int, bytes] | None:
    """Type and body of the next PDU; None when the peer closed the connection."""
    header = _read(connection, 6)
    if header is None:
        return None
    kind, length = struct.unpack(">BxL", header)
    body = _read(connection, length)
    return None if body is None else (kind, body)


def _read(connection: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        try:
            part = connection.recv(count - len(data))
        except ConnectionError:
            return None
        if not part:
            return None
        data += part
    return data


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body
