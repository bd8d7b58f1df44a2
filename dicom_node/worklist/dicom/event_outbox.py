"""Sends queued UPS events: one thread a subscriber, so that one that is down holds up nobody else.

An event is sent at least once and in its receiver's order: it leaves the queue once the receiver has it, refuses it, is
not configured any more, could not be reached for a day, or too many others wait behind it. Whoever sends one has
claimed it, so that of several nodes on one database one sends it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from dicom_node.base.config import Configuration
from dicom_node.base.deadline import TIMEOUTS_PER_EXCHANGE
from dicom_node.base.errors import NodeError
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.base.ups_settings import Subscriber
from dicom_node.base.workitems import QueuedEvent, UpsEvent
from dicom_node.jobs.registry import DATABASE_AWAY, Registry
from dicom_node.worklist.dicom.ups_events import EventRefused, provider_status, send_event

Send = Callable[[UpsEvent, Subscriber, str], None]
POLL_SECONDS = 0.5
FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 300.0
MAX_AGE_SECONDS = 24 * 3600.0
MAX_WAITING = 20000  # for one receiver: all that may be subscribed to at once, with a lock, and what follows
LEASE_SECONDS = 60.0
STOP_SECONDS = 10.0


class EventOutbox:
    """Works off the registry's queue of UPS events. owner: no other sender has this name."""

    def __init__(self, configuration: Configuration, registry: Registry, owner: str, send: Send = send_event) -> None:
        self._subscribers = configuration.worklist.subscribers
        self._calling_ae = configuration.node.ae_title
        self._registry = registry
        self._owner = owner
        self._send = send
        self._threads: list[threading.Thread] = []

    def start(self, stop: threading.Event) -> None:
        """Tell everybody that the node is back, and send until `stop` is set; then, that it goes down (CC.2.4.3).

        Everybody: all of `worklist.subscribers`, the standard's fallback list, whether subscribed now or not. An error
        of a subscriber's thread that nobody thought of sets `stop` and ends the process.
        """
        back = provider_status(going_down=False)
        self._registry.queue_events([back.to(subscriber.ae_title) for subscriber in self._subscribers])
        for subscriber in self._subscribers:
            thread = threading.Thread(target=self._serve, args=(subscriber, stop), name="ups events", daemon=True)
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Let what is being sent be finished, unless that takes long; it is then sent again at the next start."""
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def drop_useless(self) -> None:
        """Drop events for nobody who is configured, and those too old or too many to be worth anything."""
        known = [subscriber.ae_title for subscriber in self._subscribers]
        dropped = self._registry.drop_events(known, time.time() - MAX_AGE_SECONDS, MAX_WAITING)
        for receiver, count in dropped.items():
            late = f"not sent for a day, or more than {MAX_WAITING} behind them"
            reason = late if receiver in known else "not one of worklist.subscribers"
            log(Event.UPS_EVENT_DROPPED, "warning", called_ae=receiver, count=count, reason=reason)

    def send_next(self, subscriber: Subscriber) -> bool:
        """Try the subscriber's next event; False when none is due."""
        now = time.time()
        lease = TIMEOUTS_PER_EXCHANGE * subscriber.timeout_seconds + LEASE_SECONDS
        queued = self._registry.claim_event(subscriber.ae_title, self._owner, now + lease, now)
        if queued is None:
            return False
        try:
            self._send(queued.event, subscriber, self._calling_ae)
        except EventRefused as error:
            self._registry.remove_event(queued)
            log(Event.UPS_EVENT_DROPPED, "warning", called_ae=subscriber.ae_title, count=1, reason=str(error))
        except NodeError as error:
            self._postpone(queued, subscriber, str(error))
        except Exception as error:  # noqa: BLE001 - the peer's edge: a fault must not end this subscriber's thread
            self._postpone(queued, subscriber, f"unexpected {type_and_place(error)}")
        else:
            self._registry.remove_event(queued)
            log(Event.UPS_EVENT_SENT, called_ae=subscriber.ae_title, attempts=queued.attempts + 1)
        return True

    def _postpone(self, queued: QueuedEvent, subscriber: Subscriber, reason: str) -> None:
        wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(queued.attempts, 30), LONGEST_RETRY_SECONDS)
        wait *= random.uniform(1.0, 1.1)
        self._registry.postpone_event(queued, time.time() + wait)
        log(
            Event.UPS_EVENT_POSTPONED,
            "warning",
            called_ae=subscriber.ae_title,
            attempts=queued.attempts + 1,
            seconds=round(wait, 1),
            reason=reason,
        )

    def _serve(self, subscriber: Subscriber, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                if not self._send_if_reachable(subscriber):
                    stop.wait(POLL_SECONDS)
            self._say_goodbye(subscriber)
        except BaseException:
            stop.set()
            raise

    def _say_goodbye(self, subscriber: Subscriber) -> None:
        """Once, and not queued: after the stop nobody needs it any more."""
        going = provider_status(going_down=True).to(subscriber.ae_title)
        try:
            self._send(going, subscriber, self._calling_ae)
        except NodeError as error:
            log(Event.UPS_EVENT_DROPPED, "warning", called_ae=subscriber.ae_title, count=1, reason=str(error))
        else:
            log(Event.UPS_EVENT_SENT, called_ae=subscriber.ae_title, attempts=1)

    def _send_if_reachable(self, subscriber: Subscriber) -> bool:
        try:
            return self.send_next(subscriber)
        except DATABASE_AWAY as error:
            log(Event.JOB_FAILED, "warning", job="ups events", error=type(error).__name__)
            return False
