"""A node that is killed again and again, whole as a power cut kills it or one process at a time.

with restless(node) as life:      # starts it; nothing is waited for but its processes
    life.kill("scheduler")        # the supervisor starts another
    life.kill(WHOLE)              # SIGKILL to the supervisor and every child at once, then the next start

The worker never gets to work: it is stopped (SIGSTOP) as it begins, before it loads anything, so that a test may put
results into the registry itself and starts cost no more than they must.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dicom_node.receiving import HELPER
from support.node import Node

WHOLE = "node"


class RestlessNode:
    """The present run of a node. `killed`: what was killed so far, in order."""

    def __init__(self, node: Node) -> None:
        self.killed: list[str] = []
        self._node = node
        self._gone: set[int] = set()
        self._supervisor = self._start()

    def kill(self, what: str) -> None:
        """SIGKILL to the process of a role, or to all of them and a new start."""
        if what == WHOLE:
            self.end()
            self._supervisor = self._start()
        else:
            pid = self._pid(what)
            os.kill(pid, signal.SIGKILL)
            self._gone.add(pid)
        self.killed.append(what)

    def end(self) -> None:
        """SIGKILL to all."""
        os.killpg(self._supervisor.pid, signal.SIGKILL)
        self._supervisor.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._supervisor = self._node.launch()
        os.kill(self._pid("worker"), signal.SIGSTOP)
        return self._supervisor

    def _pid(self, role: str) -> int:
        """The process that plays a role, as soon as there is one that was not killed."""
        return self._node.wait(lambda: self._children().get(role), f"the {role} runs")

    def _children(self) -> dict[str, int]:
        return {role: pid for role, pid in roles_of(self._supervisor.pid).items() if pid not in self._gone}


def roles_of(supervisor: int) -> dict[str, int]:
    """Role and process id of a supervisor's children, and of the receiver's helper; a killed one has no command line
    any more.
    """
    found = {}
    for pid in _children(supervisor):
        command = _command(pid)
        if len(command) > 4:  # `python -m dicom_node run ROLE …`
            found[command[4]] = pid
    for pid in _children(found["receiver"]) if "receiver" in found else []:
        if HELPER[-1] in _command(pid):
            found["helper"] = pid
    return found


def _children(parent: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return []


def _command(pid: int) -> list[str]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


@contextmanager
def restless(node: Node) -> Iterator[RestlessNode]:
    """The node's life; at the end nothing of it runs any more."""
    life = RestlessNode(node)
    try:
        yield life
    finally:
        life.end()
