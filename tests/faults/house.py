"""The node under faults, its peers, and the wires between them."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError

from dicom_node.base.fault_points import PASSED, VARIABLE, FaultPoint
from dicom_node.demo.archive import AE_TITLE as PACS_AE
from faults.clock import Clock
from faults.disk import Disk, small_disk
from faults.peers import Pacs, Ris, Vault
from faults.wire import Wire
from support.committing_archive import ARCHIVE as VAULT_AE
from support.hl7_peers import ScriptedPeer
from support.node import HANG_SECONDS, LOOK_AGAIN_SECONDS, Node, destination
from support.peers import free_port, listening
from support.restless_node import roles_of

DISK_MEBIBYTES = 6144  # 240 rounds bring 2 GiB, and the node leaves 1 GiB alone
PATIENCE_SECONDS = 2.0  # of every peer, so that a round does not wait for what will never be answered
ROLES = ("receiver", "helper", "scheduler", "worker")
WHOLE = "whole group"
SUPERVISOR = "supervisor"
WRONG_CONFIGURATION = 2  # systemd does not start a node again that ended so
# A crash is forgotten after a second instead of a minute: a node that is killed all day would rest ever longer.
SERVE = "from dicom_node import supervisor; supervisor.STEADY_SECONDS = 1.0; import dicom_node.__main__"
URGENT = {"none": "urgent", "low": "urgent", "medium": "urgent", "high": "urgent"}

T = TypeVar("T")


class RestlessNode(Node):
    """A node that is started again when it ends, as systemd does; nobody else helps it."""

    def __init__(self, folder: Path, bundle: Path, clock: Clock, **settings: Any) -> None:
        super().__init__(folder, bundle, **settings)
        self.orders = folder / "faults"
        (self.orders / PASSED).mkdir(parents=True)
        self.persons = 0  # recoveries that needed one
        self._clock = clock
        self._ending = threading.Event()
        self._switch = threading.Lock()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", VARIABLE: str(self.orders)} | self._clock.environment
        with (self._folder / "node.log").open("ab") as log:
            command = [sys.executable, "-c", SERVE, "serve", "--config", str(self.config)]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        return self._process

    def __enter__(self) -> RestlessNode:
        super().__enter__()
        self._init = threading.Thread(target=self._start_again, name="init", daemon=True)
        self._init.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._ending.set()
        self._init.join()
        super().__exit__(*details)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Nothing of it runs while the block lasts: every process is killed, and none started."""
        with self._switch:
            assert self._process is not None
            self.registry.close()
            send_signal(-self._process.pid, KILL)
            self._process.wait()
            yield

    def running(self) -> dict[str, int]:
        """Role and process id of what runs below the present supervisor."""
        assert self._process is not None
        try:
            return roles_of(self._process.pid)
        except FileNotFoundError:
            return {}

    def healthy(self) -> bool:
        """Whether every process is there and says that all is well."""
        try:
            return len(self.running()) == len(ROLES) and super().healthy()
        except (OperationalError, http.client.HTTPException):
            return False

    def strike(self, role: str, number: int) -> int:
        """Send a signal to the process that plays a role now, or to all; the process, or the group, that got it."""
        assert self._process is not None
        supervisor = self._process.pid
        pid = {WHOLE: -supervisor, SUPERVISOR: supervisor}.get(role) or self.pid(role)
        send_signal(pid, number)
        return pid

    def arm(self, point: FaultPoint, what: str, passage: int) -> None:
        """Have something happen at a fault point."""
        (self.orders / point).write_text(f"{what} {passage}", "ascii")

    def disarm(self, point: FaultPoint) -> bool:
        """Whether it has not happened; now it will not."""
        try:
            (self.orders / point).unlink()
        except FileNotFoundError:
            return False
        return True

    def passed(self) -> set[FaultPoint]:
        """The fault points that any process has passed so far."""
        return {FaultPoint(file.name) for file in (self.orders / PASSED).iterdir()}

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait until the condition gives something true, whatever ends meanwhile, and give that."""
        until = time.monotonic() + HANG_SECONDS
        while time.monotonic() < until and not self.persons:
            try:
                if value := condition():
                    return value
            except OperationalError:
                pass  # the database is what is at fault now
            time.sleep(4 * LOOK_AGAIN_SECONDS)
        raise AssertionError(f"never happened: {what}\n{self.log()[-5000:]}")

    def _start_again(self) -> None:
        while not self._ending.wait(0.1):
            with self._switch:
                assert self._process is not None
                status = self._process.poll()
                if status == WRONG_CONFIGURATION:
                    self.persons += 1
                    return
                if status is not None:
                    self.launch()


@dataclass(frozen=True)
class House:
    """A node, two archives, a RIS, and a wire to each; orders and images come to the node over wires as well."""

    node: RestlessNode
    disk: Disk | None
    clock: Clock
    pacs: Pacs
    vault: Vault
    ris: ScriptedPeer
    wires: dict[str, Wire]

    def settle(self) -> None:
        """Wait until the node is well and takes orders and images."""
        self.node.wait(self.node.healthy, "the node is well")
        ports = self.node.port, self.node.configuration.hl7.port or 0
        self.node.wait(lambda: all(map(listening, ports)), "the node listens")


@contextmanager
def house(folder: Path, bundle: Path) -> Iterator[House]:
    """Everything started, in a folder of its own."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder, DISK_MEBIBYTES))
        clock = Clock(folder)
        dicom, hl7 = free_port(), free_port()
        wires = {"images": stack.enter_context(Wire(dicom)), "orders": stack.enter_context(Wire(hl7))}
        pacs = stack.enter_context(Pacs(folder / "pacs"))
        vault = stack.enter_context(Vault(wires["images"].port))
        ris = stack.enter_context(ScriptedPeer(Ris()))
        wires |= {
            name: stack.enter_context(Wire(peer.port))
            for name, peer in (("pacs", pacs), ("vault", vault), ("ris", ris))
        }
        soon = {"timeout_seconds": PATIENCE_SECONDS, "max_retry_seconds": 0.5}
        goals = [
            destination("pacs", PACS_AE, wires["pacs"].port, **soon),
            destination(
                "vault", VAULT_AE, wires["vault"].port, storage_commitment=True, commitment_seconds=1.0, **soon
            ),
            destination("ris", "", wires["ris"].port, kind="hl7", **soon),
        ]
        del goals[-1]["ae_title"]
        node = RestlessNode(
            folder,
            bundle,
            clock,
            destinations=goals,
            stability_seconds=0.5,
            node={"port": dicom, "storage": str(disk.folder / "node") if disk else "node"},
            intake={
                "dimse_timeout_seconds": PATIENCE_SECONDS,
                "idle_timeout_seconds": PATIENCE_SECONDS,
                "processes": 2,
            },
            model={"max_attempts": 50, "retry_seconds": 0.5},
            hl7={"port": hl7, "message_timeout_seconds": PATIENCE_SECONDS},
            worklist={"allow_nonclinical": True, "mapping": URGENT},
        )
        stack.enter_context(node)
        yield House(node, disk, clock, pacs, vault, ris, wires)


def send_signal(pid: int, number: int) -> None:
    """To a process, or to a group where the number is negative; nothing where it is gone."""
    try:
        os.killpg(-pid, number) if pid < 0 else os.kill(pid, number)
    except ProcessLookupError:
        return


KILL, STOP, GO_ON = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
