"""`dicom-node serve`: starts the node's processes, restarts the ones that die, stops them in order.

Receiver, worker and scheduler are processes of their own so that inference never slows an association down and any of
them may be killed at any moment. A child stops when it is told to (SIGTERM) or when its supervisor is gone (its
standard input, a pipe that only the supervisor holds open, ends). It writes signs of life to its standard output and is
killed when they stay out. Children hold the storage's lock as well, so that a new node begins only when the last
of them is gone; the receiver's helpers hold one of the receiver's (`storage.only_receiver`).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.events import Event, log

ROLES = ("receiver", "scheduler", "worker")
POLL_SECONDS = 0.2
FIRST_RESTART_SECONDS = 0.5
LONGEST_RESTART_SECONDS = 30.0
STEADY_SECONDS = 60.0
STOP_SECONDS = 60.0
SILENCE_SECONDS = 180.0  # without a sign of life on its standard output a process is killed and started again
WRONG_CONFIGURATION = 2  # exit status of a process whose configuration keeps it from starting


class Child:
    """One role's process and the wait before its next start."""

    def __init__(self, role: str, command: list[str], *locks: int, silence_seconds: float = SILENCE_SECONDS) -> None:
        self.role = role
        self._command = command
        self._locks = locks
        self._silence = silence_seconds
        self._starts = 0
        self._wait = FIRST_RESTART_SECONDS
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._heard = 0.0
        self._start_at = 0.0

    def ensure_running(self) -> None:
        """Start the process, or restart it once its back-off is over.

        Raises ConfigurationError when its configuration kept it from starting at all: another start ends the same way.
        """
        if self._process is not None:
            self._kill_if_silent(self._process)
            code = self._process.poll()
            if code is None:
                return
            self._note_end(code)
        if time.monotonic() >= self._start_at:
            self._start()

    def stop(self) -> None:
        """Ask the process to finish or give back its work and exit."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        """Wait for the end until `deadline` (monotonic), then kill: whatever it held is safe on disk."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=self._locks
        )
        self._starts += 1
        self._started = self._heard = time.monotonic()
        log(Event.PROCESS_STARTED, process=self.role, pid=self._process.pid)

    def _kill_if_silent(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while select.select([process.stdout], [], [], 0)[0] and os.read(process.stdout.fileno(), 4096):
            self._heard = time.monotonic()
        if time.monotonic() - self._heard > self._silence:
            log(Event.PROCESS_SILENT, "error", process=self.role, pid=process.pid)
            process.kill()
            process.wait()

    def _note_end(self, code: int) -> None:
        if self._process is not None and self._process.stdin is not None and self._process.stdout is not None:
            self._process.stdin.close()
            self._process.stdout.close()
        self._process = None
        if time.monotonic() - self._started > STEADY_SECONDS:
            self._wait = FIRST_RESTART_SECONDS
        self._start_at = time.monotonic() + self._wait
        log(Event.PROCESS_ENDED, "error", process=self.role, status=code, seconds=self._wait)
        self._wait = min(self._wait * 2, LONGEST_RESTART_SECONDS)
        if code == WRONG_CONFIGURATION and self._starts == 1:
            raise ConfigurationError(f"the {self.role} cannot start with this configuration; it says why above")


def supervise(configuration: Configuration, config_file: Path, locks: Sequence[int]) -> None:
    """Run the node until SIGTERM or SIGINT. locks: descriptors of the storage's locks, see `storage.only_one`.

    Raises ConfigurationError when a process refuses to start with this configuration; the others are stopped then.
    """
    stop = threading.Event()
    stop_on_signals(stop)
    command = [sys.executable, "-m", "dicom_node", "run"]
    children = [Child(role, [*command, role, "--config", str(config_file)], *locks) for role in ROLES]
    log(Event.NODE_STARTED, pid=os.getpid(), port=configuration.node.port)
    try:
        while not stop.is_set():
            for child in children:
                child.ensure_running()
            stop.wait(POLL_SECONDS)
    finally:
        log(Event.NODE_STOPPING)
        for child in children:
            child.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for child in children:
            child.wait(deadline)


def stop_on_signals(stop: threading.Event) -> None:
    """From now on SIGTERM and SIGINT only set `stop`; before, they end the process at once."""
    # In a thread of its own: the signal may interrupt the main thread inside this very event's lock.
    setter = partial(threading.Thread, target=stop.set, name="stop")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setter().start())


def stop_with_supervisor() -> None:
    """Have SIGTERM sent to this process when standard input ends: the supervisor that held the other end is gone."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
