"""Associations whose threads end with one line in the log, whatever a peer's bytes make pynetdicom raise in them.

Out of those threads an error would go to the process's own hook, which reports a crash of the process: it is none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler

from dicom_node.base.events import Event, log


class GuardedHandler(RequestHandler):
    """pynetdicom's handler of new connections, for associations that end alone."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        self._prepare(association)

        def end() -> None:
            # Each thread waits for the other, and the peer for both.
            association.dul.kill_dul()
            self.server.shutdown_request(self.request)

        guard(association, end, lambda: self.server.ended(association))  # type: ignore[attr-defined] # our own server
        guard(association.dul, end)
        return association

    def _prepare(self, association: Association) -> None:
        """What is to be changed in an association before its threads start."""


def guard(thread: threading.Thread, end: Callable[[], None], after: Callable[[], None] = lambda: None) -> None:
    """Have an error that ends a thread, which did not start yet, logged and `end` called.

    after: called in the thread however it ends.
    """
    run = thread.run

    def guarded() -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001 - what a peer sends makes pynetdicom raise anything
            log(Event.ASSOCIATION_ABORTED, "warning", error=type(error).__name__, reason="not to be understood")
            end()
        finally:
            after()

    thread.run = guarded  # type: ignore[method-assign]
