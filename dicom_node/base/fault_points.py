"""Moments between fsync, rename, commit and acknowledge at which a test lets this process die or its disk be full.

A node that was started without the environment variable `PRIMA_FAULT_POINTS` passes them all at the price of one
comparison. The variable names a folder. A file there that has a point's name says what happens at that point, and at
which passage of it: `die 3`, or the name of an error of the operating system, `ENOSPC 1`. It is obeyed once and then
gone. Each point that a process passes leaves an empty file of its name in the folder `passed`.
"""

from __future__ import annotations

import enum
import errno
import os
import signal
import threading
from pathlib import Path

VARIABLE = "PRIMA_FAULT_POINTS"
PASSED = "passed"


class FaultPoint(enum.StrEnum):
    """Each is passed at one place in the code, but for FILE_*: at whatever `durable.replace_file` writes."""

    # What intake makes durable before it answers Success.
    SPOOL_WRITTEN = "spool-written"  # not yet on the disk
    SPOOL_SYNCED = "spool-synced"  # not yet under its name
    SPOOL_RENAMED = "spool-renamed"  # its folder not yet on the disk
    SPOOL_DURABLE = "spool-durable"  # not yet answered
    ARRIVALS_WRITTEN = "arrivals-written"  # "written" below: in a transaction that is not yet committed
    ARRIVALS_COMMITTED = "arrivals-committed"
    # From the queue to the report.
    CLOSING_WRITTEN = "closing-written"
    STUDY_CLAIMED = "study-claimed"
    REPORT_WRITTEN = "report-written"
    REPORT_SYNCED = "report-synced"
    REPORT_RENAMED = "report-renamed"
    REPORT_DURABLE = "report-durable"  # no row knows of it
    RESULT_WRITTEN = "result-written"
    RESULT_COMMITTED = "result-committed"
    # From the outbox to the peer.
    DELIVERY_CLAIMED = "delivery-claimed"
    DELIVERY_TAKEN = "delivery-taken"  # the peer has it, or was asked to commit; not yet noted
    DELIVERY_WRITTEN = "delivery-written"
    COMMITMENT_NOTED = "commitment-noted"  # the request for storage commitment, not yet sent
    COMMITMENT_ASKED = "commitment-asked"  # sent and taken, which is not yet noted
    COMMITMENT_SETTLED = "commitment-settled"  # the archive's answer, noted and not yet acknowledged
    HL7_SENT = "hl7-sent"  # its acknowledgement not yet read
    # Orders that other systems send.
    MESSAGE_STORED = "message-stored"  # not yet applied
    MESSAGE_WRITTEN = "message-written"
    MESSAGE_APPLIED = "message-applied"  # not yet acknowledged
    # Files that are replaced whole, at the node's start among others.
    FILE_SYNCED = "file-synced"
    FILE_RENAMED = "file-renamed"


_FOLDER = os.environ.get(VARIABLE)
_lock = threading.Lock()


def passed(point: FaultPoint) -> None:
    """Do here what a test asks for; nothing outside of tests. Raises OSError where that is what it asks for."""
    if _FOLDER is not None:
        _obey(Path(_FOLDER), point)


def _obey(folder: Path, point: FaultPoint) -> None:
    with _lock:
        (folder / PASSED / point).touch()
        order = folder / point
        try:
            what, passage = order.read_text("ascii").split()
        except FileNotFoundError:
            return
        if int(passage) > 1:
            order.write_text(f"{what} {int(passage) - 1}", "ascii")
            return
        order.unlink()
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    number = getattr(errno, what)
    raise OSError(number, os.strerror(number))
