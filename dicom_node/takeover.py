"""What a node that went silent had received is looked after by the others that share its storage and registry.

Its claims and deliveries come back by themselves, as their leases end. What is left are files that it acknowledged and
had not recorded yet, whose rows are rebuilt, and its open associations, which would keep studies open. The rows come
first: a study must not be closed without images that are there.
"""

from __future__ import annotations

import math
import threading
import time

from apscheduler.schedulers.base import BaseScheduler

from dicom_node.base.config import Configuration
from dicom_node.base.events import Event, log
from dicom_node.intake.reconcile import rebuild_rows
from dicom_node.intake.spool import Spool
from dicom_node.jobs.registry import DATABASE_AWAY, Registry

LOOK_SECONDS = 15.0
SETTLE_SECONDS = 30.0  # of a database that answers, several beats long, before anybody's silence counts


class Takeover:
    """The job, which can also be run by hand in a test. May be killed anywhere and run again, by any node.

    After the database was away everybody has been silent, also those to whom images come just now: so nobody is looked
    after until all had the time to be heard of again.
    """

    def __init__(self, configuration: Configuration, registry: Registry, owner: str, stop: threading.Event) -> None:
        assert configuration.node.name is not None
        self._name = configuration.node.name
        self._spool = Spool(configuration.node.spool, self._name)
        self._max_object_bytes = configuration.intake.max_object_bytes
        self._registry = registry
        self._owner = owner
        self._stop = stop
        self._looked = self._steady_since = -math.inf

    def schedule(self, scheduler: BaseScheduler) -> None:
        """Have it done now and then."""
        scheduler.add_job(self.look, "interval", seconds=LOOK_SECONDS, id="look after silent nodes")

    def look(self) -> None:
        """Look after every node that went silent since."""
        now = time.monotonic()
        if now - self._looked > 3 * LOOK_SECONDS:
            self._steady_since = now
        self._looked = -math.inf  # unless the database answers now
        self._registry.processes()
        if now - self._steady_since >= SETTLE_SECONDS:
            self._look()
        self._looked = now

    def _look(self) -> None:
        while not self._stop.is_set():
            node = self._registry.look_after(self._name, self._owner, time.time())
            if node is None:
                return
            try:
                count = rebuild_rows(self._spool, self._registry, self._max_object_bytes, self._stop)
            except DATABASE_AWAY:
                return  # told to stop while waiting for the database
            closed = self._registry.looked_after(node, self._owner, time.time())
            if closed is not None:
                reason = f"{closed} associations closed"
                log(Event.NODE_LOOKED_AFTER, "warning", node=node, count=count, reason=reason)
