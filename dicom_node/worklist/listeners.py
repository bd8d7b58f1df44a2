"""Who is told reading priorities, and how: one adapter a kind of destination, all fed from the outbox."""

from __future__ import annotations

from dicom_node.base.config import AnyDestination, Archive, Configuration, UpsDestination
from dicom_node.base.errors import PermanentError
from dicom_node.base.hl7_settings import Hl7Destination
from dicom_node.base.orders import Delivery, Listener, Outcome, PriorityChange
from dicom_node.base.tls import client_context
from dicom_node.base.types import Level
from dicom_node.worklist.dicom import ups_user
from dicom_node.worklist.hl7.encoding import CODECS
from dicom_node.worklist.hl7.messages import build
from dicom_node.worklist.hl7.sender import MllpSender

# Where a peer said its priority in a word that stands for two levels, the lower: an undo must not raise.
ROUTINE = Level.ROUTINE
LEVELS = {"LOW": Level.ROUTINE, "MEDIUM": Level.ELEVATED, "HIGH": Level.URGENT}
CHANGED = (ups_user.Outcome.CREATED, ups_user.Outcome.RAISED, ups_user.Outcome.RESTORED)


def listener_of(destination: Hl7Destination | UpsDestination) -> Listener:
    """What the registry must know of a destination to decide what it is told."""
    return Listener(destination.name, destination.kind, destination.top_level_if_unknown)


def listeners_of(configuration: Configuration) -> tuple[Listener, ...]:
    """All destinations that are told reading priorities."""
    return tuple(listener_of(one) for one in configuration.destinations if not isinstance(one, Archive))


def preview(change: PriorityChange, destination: AnyDestination) -> str:
    """What the destination would be sent, readable. Raises PermanentError where no message can be made."""
    if isinstance(destination, Hl7Destination):
        encoding = CODECS[destination.character_set]
        return build(change, destination).decode(encoding).replace("\r", "\n").rstrip()
    if isinstance(destination, UpsDestination):
        attributes = ups_user.attributes_of(change, destination)
        return f"N-SET of (0074,1200) at the step that is found, else N-CREATE:\n{attributes}"
    raise PermanentError(f"destination '{destination.name}' is not told priorities")


class Hl7Adapter:
    """Tells one destination by HL7 v2."""

    def __init__(self, destination: Hl7Destination) -> None:
        self._destination = destination
        self._sender = MllpSender(destination)

    def __call__(self, delivery: Delivery) -> Outcome:
        """One attempt. Raises what `build` and `MllpSender.send` raise."""
        assert delivery.change is not None
        self._sender.send(build(delivery.change, self._destination))
        return Outcome()

    def close(self) -> None:
        """End the connection."""
        self._sender.close()


class UpsAdapter:
    """Tells one worklist manager by Unified Procedure Step."""

    def __init__(self, destination: UpsDestination, calling_ae: str) -> None:
        self._destination = destination
        self._calling_ae = calling_ae
        if destination.tls is not None:
            client_context(destination.tls)  # what is no use is said at the start

    def __call__(self, delivery: Delivery) -> Outcome:
        """One attempt. Raises what `ups_user.tell` raises."""
        assert delivery.change is not None
        told = ups_user.tell(delivery.change, self._destination, self._calling_ae, delivery.told)
        changed = told.outcome in CHANGED
        return Outcome(
            words="" if changed else told.outcome.value,
            stands=changed or told.outcome is ups_user.Outcome.ALREADY,
            previous=self._level_before(told, delivery.change) if changed else None,
            reading=told.outcome is ups_user.Outcome.IN_PROGRESS,
        )

    def _level_before(self, told: ups_user.Told, change: PriorityChange) -> Level:
        """The lowest level that the site's table gives the peer's word; the order's for a step that we created."""
        if told.outcome is ups_user.Outcome.CREATED:
            return (change.order.priority if change.order is not None else None) or ROUTINE
        word = told.before
        return next(
            (level for level in Level if self._destination.priorities.get(level) == word), LEVELS.get(word, ROUTINE)
        )

    def close(self) -> None:
        """Every attempt has an association of its own."""
