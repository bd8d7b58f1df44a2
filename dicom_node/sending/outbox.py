"""Works off the registry's deliveries: one thread a destination, so that a dead one holds up nobody else.

How an object or a priority gets to its destination is the business of the function that the destination is given.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dicom_node.base.commitments import Remedy
from dicom_node.base.config import AnyDestination, Archive, Configuration, Destination
from dicom_node.base.deadline import TIMEOUTS_PER_EXCHANGE
from dicom_node.base.errors import LostClaim, NodeError, NotCommitted, RetriableError
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.orders import Delivery, Outcome, Stage
from dicom_node.base.requestor import NotAccepted
from dicom_node.base.sent import sent_object
from dicom_node.jobs.registry import DATABASE_AWAY, Registry
from dicom_node.sending.remedies import remedy_for

Fallback = Callable[[Path], Sequence[Path]]
Send = Callable[[Delivery], Outcome]  # one attempt; raises NodeError
POLL_SECONDS = 0.5
LEASE_MARGIN_SECONDS = 60.0
JITTER = 1.1  # the longest wait, as a multiple of the one that is meant


class Outbox:
    """Delivers what the registry holds, with exponential back-off; permanent refusals are set aside for a person."""

    def __init__(
        self,
        configuration: Configuration,
        registry: Registry,
        senders: Mapping[str, Send],
        owner: str,
        fallback: Fallback = lambda path: [],
    ) -> None:
        """senders: one for the name of each destination. fallback: an object's simpler form, for who refuses it."""
        self._configuration = configuration
        self._registry = registry
        self._senders = senders
        self._owner = owner
        self._fallback = fallback

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; what is being sent then is finished first.

        An error of a destination's thread that nobody thought of sets `stop` and is raised: a process that went on
        without this destination would look healthy.
        """
        destinations = self._configuration.destinations
        with ThreadPoolExecutor(max(1, len(destinations)), thread_name_prefix="outbox") as pool:
            threads = [pool.submit(self._serve, destination, stop) for destination in destinations]
        for thread in threads:
            thread.result()

    def _serve(self, destination: AnyDestination, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                if not self._deliver_if_reachable(destination):
                    stop.wait(POLL_SECONDS)
        except BaseException:
            stop.set()
            raise

    def _deliver_if_reachable(self, destination: AnyDestination) -> bool:
        try:
            return self.deliver_next(destination)
        except DATABASE_AWAY as error:
            log(Event.JOB_FAILED, "warning", job="outbox", error=type(error).__name__)
            return False

    def deliver_next(self, destination: AnyDestination) -> bool:
        """Try the next due delivery; False when none is due."""
        lease = time.time() + destination.timeout_seconds * TIMEOUTS_PER_EXCHANGE + LEASE_MARGIN_SECONDS
        allowed = self._configuration.moves_nonclinical
        if isinstance(destination, Archive):
            allowed = self._configuration.model.allow_nonclinical
        wait = answer = destination.max_retry_seconds
        if isinstance(destination, Destination):
            answer = max(wait, destination.commitment_seconds)
        delivery = self._registry.claim_delivery(
            self._owner,
            destination.name,
            lease,
            time.time(),
            clinical_only=not allowed,
            longest_wait=JITTER * wait,
            longest_answer=JITTER * answer,
        )
        if delivery is None:
            return False
        try:
            self._attempt(delivery, destination)
        except LostClaim as error:
            log(Event.CLAIM_LOST, "warning", study=delivery.study_id, reason=str(error))
        return True

    def _attempt(self, delivery: Delivery, destination: AnyDestination) -> None:
        passed(FaultPoint.DELIVERY_CLAIMED)
        self._note(delivery)
        try:
            outcome = self._senders[destination.name](delivery)
        except NodeError as error:
            self._note_failure(delivery, destination, error)
        except Exception as error:  # noqa: BLE001 - the peer's edge: a fault must not end this destination's thread
            log(Event.JOB_FAILED, "error", job="outbox", error=type_and_place(error))
            self._note_failure(delivery, destination, RetriableError(f"unexpected {type(error).__name__}"))
        else:
            passed(FaultPoint.DELIVERY_TAKEN)
            self._note_success(delivery, destination, outcome)

    def _note(self, delivery: Delivery) -> None:
        """Before an object leaves, have durable what a rejection note of it will need, once its bytes are gone."""
        if delivery.path is None or self._registry.is_sent(delivery.path):
            return
        sent = sent_object(self._configuration.node.outgoing, delivery.path)
        if sent is not None:  # else its sender says what is wrong with it
            self._registry.note_sent(delivery, sent, time.time())

    def _note_success(self, delivery: Delivery, destination: AnyDestination, outcome: Outcome) -> None:
        if outcome.stage is Stage.STORED:
            self._registry.stored(delivery, time.time())
            return
        if outcome.stage is Stage.ASKED:
            assert isinstance(destination, Destination)
            self._registry.asked(delivery, time.time() + destination.commitment_seconds)
            return
        complete = self._registry.delivered(delivery, time.time(), outcome)
        log(
            Event.DELIVERY_DONE,
            study=delivery.study_id,
            destination=destination.name,
            attempts=delivery.attempts,
            reason=outcome.words or None,
        )
        if complete:
            log(Event.STUDY_DELIVERED, study=delivery.study_id)

    def _note_failure(self, delivery: Delivery, destination: AnyDestination, error: NodeError) -> None:
        fields = {"study": delivery.study_id, "destination": destination.name, "reason": str(error)}
        if isinstance(error, NotCommitted):
            remedy = remedy_for(None, delivery.failures)
            self._registry.uncommitted(delivery, remedy, str(error), time.time())
            if remedy is Remedy.SET_ASIDE:
                log(Event.DELIVERY_SET_ASIDE, "error", **fields)
            else:
                log(Event.DELIVERY_POSTPONED, "warning", attempts=delivery.attempts, seconds=0.0, **fields)
        elif isinstance(error, NotAccepted) and (paths := self._simpler(delivery)):
            self._registry.fall_back(delivery, paths, str(error), time.time())
            log(Event.DELIVERY_FELL_BACK, "warning", count=len(paths), **fields)
        elif error.retriable:
            wait = back_off(delivery.questions or delivery.attempts, destination)
            self._registry.postpone(delivery, str(error), time.time() + wait)
            log(Event.DELIVERY_POSTPONED, "warning", attempts=delivery.attempts, seconds=round(wait, 1), **fields)
        else:
            self._registry.set_aside(delivery, str(error))
            log(Event.DELIVERY_SET_ASIDE, "error", **fields)

    def _simpler(self, delivery: Delivery) -> list[str]:
        """The delivery's object in a simpler form, durable; nothing where there is none, or it cannot be made."""
        if delivery.path is None:
            return []
        try:
            return [path.name for path in self._fallback(self._configuration.node.outgoing / delivery.path)]
        except Exception as error:  # noqa: BLE001 - then it is set aside for what the peer said
            log(Event.JOB_FAILED, "error", job="fallback", error=type_and_place(error))
            return []


def back_off(attempts: int, destination: AnyDestination) -> float:
    """Seconds until the next attempt: doubling from the first, capped, with up to a tenth of jitter."""
    doubled = destination.first_retry_seconds * 2.0 ** min(attempts - 1, 30)
    return min(doubled, destination.max_retry_seconds) * random.uniform(1.0, JITTER)
