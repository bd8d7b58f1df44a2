"""Unified Procedure Steps as they are kept: value types between the worklist and the registry (PS3.4 annex CC)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from dicom_node.base.errors import PermanentError, RetriableError
from dicom_node.base.orders import Order


class DuplicateWorkitem(PermanentError):
    """There is a work item with this SOP Instance UID, or one of the node's own for this study."""


class StaleWorkitem(RetriableError):
    """Somebody else updated the work item since it was read."""


class UpsState(enum.StrEnum):
    """Procedure Step State (0074,1000), table CC.1.1-1."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


class EventType(enum.IntEnum):
    """Event Type ID, table CC.2.4-1."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    SCP_STATUS_CHANGE = 4
    ASSIGNED = 5


@dataclass(frozen=True)
class UpsLimits:
    """What other AEs may have the node keep.

    step_bytes: of one work item, encoded, and of one request. open_steps, open_steps_of_one: work items that are not
    final, of all AEs and of one. Subscriptions need no limit: an AE that may subscribe has one a work item at most.
    """

    step_bytes: int = 1 << 20
    open_steps: int = 5000
    open_steps_of_one: int = 1000


@dataclass(frozen=True)
class Workitem:
    """One UPS as it is stored.

    state, priority: also in the data set; here for a store to look for. encoded: the data set, Explicit VR Little
    Endian, UTF-8, without the Transaction UID. version: counts the updates, for optimistic locking. study_instance_uid,
    written: of the node's own alone: the study of its reading list that it stands for, and what it wrote last, encoded
    alike. created_by: the AE title that had it made; empty for the node's own.
    """

    sop_instance_uid: str
    state: UpsState
    priority: str
    encoded: bytes
    transaction_uid: str = ""
    version: int = 1
    study_instance_uid: str | None = None
    written: bytes | None = None
    created_by: str = ""


@dataclass(frozen=True)
class UpsEvent:
    """One N-EVENT-REPORT to be sent. information: encoded like a work item. receiver: an AE title, or everybody
    subscribed to the work item at the moment the event is queued.
    """

    sop_instance_uid: str
    type: EventType
    information: bytes
    receiver: str | None = None

    def to(self, receiver: str) -> UpsEvent:
        """The same event for one AE."""
        return replace(self, receiver=receiver)


@dataclass(frozen=True)
class QueuedEvent:
    """An event that `owner` is to send to its receiver. attempts: that failed so far. created_at: seconds, epoch."""

    id: int
    event: UpsEvent
    attempts: int
    created_at: float
    owner: str


@dataclass(frozen=True)
class Subscription:
    """One AE subscribed to one work item (PS3.4 table CC.2.3-2). A final work item with a lock must not be deleted."""

    sop_instance_uid: str
    ae_title: str
    deletion_lock: bool


@dataclass(frozen=True)
class GlobalSubscription:
    """One AE subscribed to every work item to come. filter: an encoded C-FIND identifier, only what it matches."""

    ae_title: str
    deletion_lock: bool
    filter: bytes | None = None


@dataclass(frozen=True)
class Background:
    """What the registry knows of a study for its work item.

    order: where one is certain. report: path of the newest report that stands in the outgoing folder. withdrawn: all
    reports of it were withdrawn, so that whom they named may be somebody else.
    """

    order: Order | None = None
    report: str | None = None
    withdrawn: bool = False


@dataclass(frozen=True)
class WorklistQuery:
    """A coarse filter over orders: each field that is not empty must hold, and every match satisfies it.

    Values are exact and case-sensitive. scheduled_from, scheduled_to: YYYYMMDD, both inclusive, against the day of
    `Order.scheduled_at`. A store may ignore any field: it then costs time, not answers.
    """

    accession_number: str = ""
    patient_id: str = ""
    study_instance_uid: str = ""
    requested_procedure_id: str = ""
    modality: str = ""
    station_ae: str = ""
    scheduled_from: str = ""
    scheduled_to: str = ""


@dataclass(frozen=True)
class UpsQuery:
    """The same over work items. state and priority: of (0074,1000) and (0074,1200)."""

    sop_instance_uid: str = ""
    state: str = ""
    priority: str = ""
