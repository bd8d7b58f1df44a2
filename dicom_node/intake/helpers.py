"""Further processes that serve associations, as the receiver that starts them sees them.

One process can use little more than one processor: Python runs one thread at a time. Who lets connections in hands them
on, and keeps count of all associations; a helper stores and writes rows by itself, with the same code (`Serving`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dicom_node.base.config import Configuration
from dicom_node.base.errors import RetriableError
from dicom_node.base.events import Event, log
from dicom_node.intake import channel as words
from dicom_node.intake.channel import ALIVE_SECONDS, Channel, Message
from dicom_node.intake.places import Places

NAME = "receiver's helper"
SILENCE_SECONDS = 60.0  # without a sign of life a helper is killed
ASKING_SECONDS = 1.0  # within which a connection asks for a place, unless it is refused before
PAUSE_SECONDS = 5.0  # between two looks: this process itself was held still


class HelperEnded(RetriableError):
    """A helper ended, and with it its associations; a fresh receiver rebuilds the rows that it left."""


@dataclass(frozen=True)
class HelperProgram:
    """How to start a helper. command: gets this process's id, the channel's descriptor and the boot id.

    locks: descriptors of locks that a helper is to hold as well.
    """

    command: tuple[str, ...]
    locks: tuple[int, ...] = ()


class Helper:
    """One helper. Starts it at once; it serves as soon as it is `ready`. Raises OSError when it cannot be started."""

    def __init__(self, program: HelperProgram, configuration: Configuration, boot_id: str, places: Places) -> None:
        self._places = places
        self._present: set[str] = set()
        self._handed: deque[float] = deque()
        self._ready = False
        self.given = 0
        self._heard = self._looked = self._said = time.monotonic()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = Channel(mine)
        with its, open(os.memfd_create("configuration"), "w+b") as given:
            given.write(configuration.to_json().encode())
            given.seek(0)
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [*program.command, str(os.getpid()), str(its.fileno()), boot_id],
                stdin=given,
                stdout=subprocess.DEVNULL,  # the receiver's goes to the supervisor
                pass_fds=(its.fileno(), *program.locks),
            )
        log(Event.PROCESS_STARTED, process=NAME, pid=self._process.pid)
        self._thread = threading.Thread(target=self._listen, name="helper", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether it serves, and was heard of."""
        return self._ready and time.monotonic() - self._heard < 2 * ALIVE_SECONDS

    @property
    def load(self) -> int:
        """How many associations it serves, with connections that are about to ask for one."""
        with suppress(IndexError):
            while time.monotonic() - self._handed[0] > ASKING_SECONDS:
                self._handed.popleft()
        return len(self._present) + len(self._handed)

    def serve(self, connection: socket.socket, address: Any) -> bool:
        """Hand on a connection that asks for an association; whether that went well."""
        self.given += 1
        self._handed.append(time.monotonic())
        return self._channel.send(words.CONNECTION, *address, connection=connection)

    def check(self) -> None:
        """Look after it, often. Raises HelperEnded when it ended, or gave no sign of life and was killed."""
        now = time.monotonic()
        if now - self._looked > PAUSE_SECONDS:
            self._heard = now  # what it said meanwhile was not read yet
        self._looked = now
        if now - self._said > ALIVE_SECONDS:
            self._channel.send(words.ALIVE)
            self._said = now
        if now - self._heard > SILENCE_SECONDS:
            log(Event.PROCESS_SILENT, "error", process=NAME, pid=self._process.pid)
            self._process.kill()
            self._process.wait()
        code = self._process.poll()
        if code is not None:
            log(Event.PROCESS_ENDED, "error", process=NAME, status=code)
            raise HelperEnded("a helper of the receiver ended; the receiver must be started again")

    def ask_to_stop(self) -> None:
        """Have it finish what it stores, write its rows and end. One that cannot be told is killed."""
        if not self._ready:  # it has nothing, and may be far from listening
            self._process.kill()
        elif not self._channel.send(words.STOP) and self._process.poll() is None:
            log(Event.PROCESS_ENDED, "error", process=NAME, reason="could not be told to stop and was killed")
            self._process.kill()

    def wait(self, deadline: float) -> None:
        """Until it ended, at most until `deadline` (monotonic); then it is killed: what it held is safe on the disk."""
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log(Event.PROCESS_ENDED, "error", process=NAME, reason="did not stop in time and was killed")
            self._process.kill()
            self._process.wait()
        self._channel.close()
        self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                message = self._channel.receive(None)
            except EOFError:
                return
            if message is not None:
                self._heard = time.monotonic()
                self._take(message)

    def _take(self, message: Message) -> None:
        match message.kind, *message.fields:
            case (words.READY,):
                self._ready = True
                log(Event.HELPER_READY, process=NAME, pid=self._process.pid)
            case words.ASK, association_id, calling_ae:
                with suppress(IndexError):
                    self._handed.popleft()
                rejection = self._places.take(association_id, calling_ae)
                if rejection is None:
                    self._present.add(association_id)
                self._channel.send(words.ANSWER, association_id, rejection.words if rejection else None)
            case words.ENDED, association_id:
                self._places.give_back(association_id)
                self._present.discard(association_id)
