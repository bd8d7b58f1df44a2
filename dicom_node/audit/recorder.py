"""From what a process logs to audit messages, written by a thread of its own: whoever logs never waits for the disk.

Recorded is what the registry does not know: start and stop, who was kept out, queries, another configuration. Who is
kept out again and again from one address is recorded once a minute, with how often: nobody can fill the disk with it.
"""

from __future__ import annotations

import getpass
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dicom_node.audit import message as audit
from dicom_node.audit.message import Happening, Participant, Subject
from dicom_node.audit.trail import Trail, read_key
from dicom_node.base.config import Configuration
from dicom_node.base.events import Event, log, observe

QUIET_SECONDS = 60.0
MAX_ADDRESSES = 1000
MAX_WAITING = 10_000
RETRY_SECONDS = 2.0
CLOSE_SECONDS = 5.0
#: Events that mean that somebody was kept out.
REFUSALS = (Event.ASSOCIATION_REFUSED, Event.TLS_REFUSED, Event.HTTP_REFUSED, Event.MESSAGE_TROUBLE)
RECORDED = {
    *(Event.NODE_STARTED, Event.NODE_STOPPING, Event.CONFIGURATION_CHANGED, Event.QUERY_ANSWERED),
    *REFUSALS,
}
#: Of what ends an HL7 connection, what has to do with who is there.
NOT_ADMITTED = ("not one of the peers", "no TLS connection")


def trail_of(configuration: Configuration) -> Trail:
    """The node's audit trail. Raises ConfigurationError when its key is no use."""
    settings = configuration.audit
    return Trail(configuration.node.audit, read_key(settings.key_file), settings.max_bytes)


@contextmanager
def recording(configuration: Configuration) -> Iterator[None]:
    """Let this process record in the audit trail what it logs, where there is one. Raises ConfigurationError."""
    recorder = Recorder(configuration) if configuration.audit.enabled else None
    try:
        yield
    finally:
        if recorder is not None:
            recorder.close()


class Recorder:
    """Records what this process logs, from construction until `close`. Raises ConfigurationError."""

    def __init__(self, configuration: Configuration, clock: Callable[[], float] = time.time) -> None:
        self._trail = trail_of(configuration)
        self._ae_title = configuration.node.ae_title
        self._site = configuration.audit.site
        self._clock = clock
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._refused: dict[tuple[Event, str], tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        self._end = observe(self)

    def __call__(self, event: Event, fields: Mapping[str, Any]) -> None:
        """Take note of an event that was logged."""
        if event not in RECORDED:  # asked first: this is on the way of every image
            return
        happening = self._happening(event, fields)
        if happening is not None:
            self.record(happening)

    def record(self, happening: Happening) -> None:
        """Have it written soon; what a disk that takes nothing has no room for is left out, and the log says so."""
        if self._queue.qsize() >= MAX_WAITING:
            log(Event.AUDIT_NOT_WRITTEN, "error", reason="too many records wait; this one is left out", count=1)
            return
        self._queue.put(audit.as_xml(happening, self._ae_title, self._site))

    def close(self) -> None:
        """Write what waits; gives up on a disk that does not take it."""
        self._end()
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        self._closing.set()

    def _run(self) -> None:
        ended = False
        while not ended:
            group = [self._queue.get()]
            while not self._queue.empty():
                group.append(self._queue.get())
            ended = None in group
            self._write([one for one in group if one is not None])

    def _write(self, messages: Sequence[str]) -> None:
        while messages:
            try:
                self._trail.append(messages)
            except OSError as error:
                log(Event.AUDIT_NOT_WRITTEN, "error", error=type(error).__name__, count=len(messages))
                if self._closing.wait(RETRY_SECONDS):
                    return
            else:
                return

    def _happening(self, event: Event, fields: Mapping[str, Any]) -> Happening | None:
        now = self._clock()
        if event in (Event.NODE_STARTED, Event.NODE_STOPPING):
            kind = audit.APPLICATION_START if event is Event.NODE_STARTED else audit.APPLICATION_STOP
            return Happening(
                audit.APPLICATION_ACTIVITY, "E", now, [self._own(audit.APPLICATION), _launcher()], type=kind
            )
        if event is Event.CONFIGURATION_CHANGED:
            return self._configured(fields, now)
        if event is Event.QUERY_ANSWERED:
            return self._queried(fields, now)
        if event in REFUSALS:
            return self._kept_out(event, fields, now)
        return None

    def _configured(self, fields: Mapping[str, Any], now: float) -> Happening:
        node = Subject(
            self._ae_title, audit.NODE_ID, audit.SYSTEM_OBJECT, audit.SECURITY_RESOURCE, "configuration",
            details={"Alert Description": str(fields.get("reason", ""))},
        )  # fmt: skip
        parts = [self._own(None), _launcher()]
        return Happening(audit.SECURITY_ALERT, "E", now, parts, [node], audit.SECURITY_CONFIGURATION)

    def _queried(self, fields: Mapping[str, Any], now: float) -> Happening:
        title = str(fields.get("calling_ae", ""))
        asker = Participant(title, True, audit.SOURCE, title, fields.get("address"))
        # Not what was asked: it may hold names.
        queried = Subject(
            str(fields.get("service", "")), audit.SOP_CLASS_UID, audit.SYSTEM_OBJECT, audit.REPORT, "query"
        )
        return Happening(audit.QUERY, "E", now, [asker, self._own(audit.DESTINATION, False)], [queried])

    def _kept_out(self, event: Event, fields: Mapping[str, Any], now: float) -> Happening | None:
        reason, address = str(fields.get("reason", event.words)), str(fields.get("address", ""))
        if event is Event.MESSAGE_TROUBLE and not reason.startswith(NOT_ADMITTED):
            return None
        repeated = self._repeated((event, address), now)
        if repeated is None:
            return None
        calling = fields.get("calling_ae")
        stranger = Participant(str(calling or address), True, None, calling, address or None)
        words = f"{event.words}: {reason}" + (f"; {repeated} more in the minutes before" if repeated else "")
        node = Subject(
            self._ae_title, audit.NODE_ID, audit.SYSTEM_OBJECT, audit.SECURITY_RESOURCE, "node",
            details={"Alert Description": words},
        )  # fmt: skip
        return Happening(
            audit.SECURITY_ALERT, "E", now, [self._own(None, False), stranger], [node],
            audit.NODE_AUTHENTICATION, audit.MINOR_FAILURE, words,
        )  # fmt: skip

    def _repeated(self, what: tuple[Event, str], now: float) -> int | None:
        """How many of the same were left out since the last that was recorded; None where this one is left out too."""
        with self._lock:
            since, left_out = self._refused.get(what, (0.0, 0))
            if since and 0 <= now - since < QUIET_SECONDS:
                self._refused[what] = (since, left_out + 1)
                return None
            if len(self._refused) >= MAX_ADDRESSES and what not in self._refused:
                del self._refused[next(iter(self._refused))]
            self._refused[what] = (now, 0)
            return left_out

    def _own(self, role: audit.Code | None, requestor: bool = False) -> Participant:
        return Participant(f"prima-node:{os.getpid()}", requestor, role, self._ae_title, socket.gethostname())


def _launcher() -> Participant:
    return Participant(user_name(), True, audit.APPLICATION_LAUNCHER)


def user_name() -> str:
    """Who runs this process: a name, or the number of a user without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
