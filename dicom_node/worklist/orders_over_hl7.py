"""The node's HL7 receiver on the registry: orders, corrections, final reports; durable before acknowledged."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.base.events import Event, log
from dicom_node.base.orders import WorklistEvent
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.hl7.listener import Handlers, Hl7Receiver, Stored
from dicom_node.worklist.hl7.refusal import Refused


@contextmanager
def orders_over_hl7(configuration: Configuration, registry: Registry) -> Iterator[None]:
    """Receive while the block runs, if the site gave the receiver a port. Raises ConfigurationError."""
    if configuration.hl7.port is None:
        yield
        return
    try:
        receiver = Hl7Receiver(configuration.hl7, handlers(configuration, registry))
    except OSError as error:
        raise ConfigurationError(f"hl7.bind, hl7.port: cannot listen there ({error.strerror})") from error
    receiver.start()
    try:
        yield
    finally:
        receiver.stop()


def handlers(configuration: Configuration, registry: Registry) -> Handlers:
    """What the receiver does with messages."""
    nonclinical = configuration.moves_nonclinical

    def store(content: bytes, address: str) -> Stored:
        kept = registry.keep_message(content, hashlib.sha256(content).hexdigest(), address, time.time())
        return Stored(kept.id, kept.applied)

    def apply(message: int, events: tuple[WorklistEvent, ...]) -> None:
        try:
            registry.apply_message(message, events, time.time(), nonclinical=nonclinical)
        except DataError as error:  # said once, it will be said for ever: the sender must not wait for another answer
            raise PermanentError("a value is too long or of a kind that cannot be kept") from error
        log(Event.MESSAGE_APPLIED, count=len(events))

    def refused(message: int, refusal: Refused) -> None:
        registry.note_refusal(message, str(refusal))
        log(Event.MESSAGE_REFUSED, "warning", reason=str(refusal))

    def trouble(address: str, reason: str) -> None:
        log(Event.MESSAGE_TROUBLE, "warning", address=address, reason=reason)

    return Handlers(store, apply, refused, trouble)
