"""Orders, and what the worklist is told of them: value types between the HL7, UPS and MWL adapters and the registry.

Identifiers are kept as they came: an entity identifier of HL7 (`number^namespace^id^type`) is echoed unchanged.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dicom_node.base.types import DeliveryView, Finding, Level, Rejection, ToSend


class OrderStatus(enum.StrEnum):
    """Where an order is, as far as its messages say."""

    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Patient:
    """Whose order it is; empty text means not known.

    issuer: assigning authority of the ID. name: DICOM form (`Family^Given^Middle^Prefix^Suffix`). birth_date: YYYYMMDD.
    sex: M, F or O.
    """

    patient_id: str
    issuer: str = ""
    name: str = ""
    birth_date: str = ""
    sex: str = ""


@dataclass(frozen=True)
class Order:
    """One requested procedure. At least one of accession number, placer and filler number, Study Instance UID is known.

    priority: what the order said, in the node's levels; None when it said nothing the tables know. priority_text: the
    value as it came. scheduled_at: DICOM DT, local time. code_*: the universal service, OBR-4.
    """

    patient: Patient
    accession_number: str = ""
    placer_order_number: str = ""
    filler_order_number: str = ""
    study_instance_uid: str = ""
    requested_procedure_id: str = ""
    scheduled_step_id: str = ""
    code_value: str = ""
    code_meaning: str = ""
    code_scheme: str = ""
    modality: str = ""
    station_ae: str = ""
    scheduled_at: str = ""
    patient_class: str = ""
    referring_physician: str = ""
    requesting_physician: str = ""
    priority: Level | None = None
    priority_text: str = ""
    status: OrderStatus = OrderStatus.SCHEDULED


@dataclass(frozen=True)
class RankedOrder:
    """An order and its reading priority as it is now.

    level: the higher of the order's own and that of its study on the node's list; None where neither is known. marking:
    what must stand beside a level that a model that is not clinical raised, else empty.
    """

    order: Order
    level: Level | None
    marking: str = ""


@dataclass(frozen=True)
class Listener:
    """A destination that is told reading priorities. kind: hl7 or ups.

    top_level_if_unknown: tell it the top level even where nobody said what the priority was before.
    """

    name: str
    kind: str
    top_level_if_unknown: bool = False


@dataclass(frozen=True)
class PriorityChange:
    """A reading priority as a destination is told it.

    key: unique for this change, at most 20 characters; a repeated attempt carries the same (MSH-10). previous: the
    level before, None when nobody said. undo: this restores `level` because a person took the change back. marking:
    what must stand beside a result of a model that is not clinical, else empty. rule: why, in words for people. judged:
    whether a model judged the study, so that no finding means that it found none.
    """

    key: str
    study_instance_uid: str
    level: Level
    previous: Level | None
    rule: str
    at: float
    order: Order | None = None
    findings: tuple[Finding, ...] = ()
    undo: bool = False
    marking: str = ""
    judged: bool = True


@dataclass(frozen=True)
class PersonsWithdrawal:
    """That a person took a study's results back. who: as the node knows them, never a patient."""

    rejection: Rejection
    who: str

    @property
    def reason(self) -> str:
        """In words, as the study's history has them."""
        return f"withdrawn by {self.who}: {self.rejection.meaning}"


@dataclass(frozen=True)
class Handover:
    """What becomes of a result: objects to send, and who is told the priority.

    hold: why nothing leaves the node, else None. nonclinical: whether a model that is not clinical may move worklists.
    explain: whether the result is explained on its images once no study waits. withdrawn: that a person took this
    result back before, when another registry knew it.
    """

    objects: tuple[ToSend, ...] = ()
    told: tuple[Listener, ...] = ()
    hold: str | None = None
    nonclinical: bool = False
    explain: bool = False
    withdrawn: PersonsWithdrawal | None = None


class Stage(enum.StrEnum):
    """How far an attempt took a delivery.

    delivered: nobody has to do anything more. stored: the peer has the object, its commitment is asked next. asked: the
    answer comes by itself, or the peer is asked again.
    """

    DELIVERED = "delivered"
    STORED = "stored"
    ASKED = "asked"


@dataclass(frozen=True)
class Outcome:
    """How an attempt that did not fail ended.

    words: what the peer made of it, where that is worth knowing. stands: the peer has at least this priority now.
    previous: what the peer had before, where it said so. reading: somebody reads the study already. stage: whether the
    delivery has ended.
    """

    words: str = ""
    stands: bool = True
    previous: Level | None = None
    reading: bool = False
    stage: Stage = Stage.DELIVERED


@dataclass(frozen=True)
class Delivery:
    """What one sender owns and is to deliver to one destination.

    Either path, an object in the outgoing folder, or change. told: for an undo, the level that is taken back. stored:
    the peer has the object and has yet to commit to keep it. questions: how often it was to be asked, this time
    included. unanswered: how many requests for commitment it took since and never answered. failures: how often it did
    not commit so far.
    """

    id: int
    study_id: str
    destination: str
    kind: str
    attempts: int
    owner: str
    path: str | None = None
    change: PriorityChange | None = None
    told: Level | None = None
    stored: bool = False
    questions: int = 0
    unanswered: int = 0
    failures: int = 0


class OrderAction(enum.StrEnum):
    """What a message does to an order."""

    NEW = "new"
    CHANGE = "change"
    CANCEL = "cancel"


@dataclass(frozen=True)
class OrderReceived:
    """An order as one message tells it. Empty texts say nothing new. control_code: as it came (ORC-1)."""

    order: Order
    action: OrderAction
    control_code: str


@dataclass(frozen=True)
class PatientCorrected:
    """What is right about the patient of this ID from now on. Empty texts say nothing."""

    patient: Patient


@dataclass(frozen=True)
class PatientsMerged:
    """Two records are one person: what was under `retired` (ID and issuer alone) now belongs to `survivor`."""

    survivor: Patient
    retired: Patient


@dataclass(frozen=True)
class FinalReport:
    """A physician's final or corrected report. order: the keys it came with and the patient.

    text: lines joined by newlines, empty when the report came in another form. final_at: seconds since the epoch, UTC.
    corrected: it replaces an earlier final one.
    """

    order: Order
    text: str
    final_at: float
    corrected: bool = False


@dataclass(frozen=True)
class ReadingBegun:
    """A physician has begun to report. order: the keys it came with and the patient. at: seconds, epoch (UTC)."""

    order: Order
    at: float


WorklistEvent = OrderReceived | PatientCorrected | PatientsMerged | FinalReport | ReadingBegun


@dataclass(frozen=True)
class WorklistEntry:
    """One study of the reading list. rank: 1 is read first.

    source: who gave the level: model, order or person. rule: in words. findings: displayed names, strongest first.
    waiting_since: when its last image arrived, seconds since the epoch (UTC). flagged_at: when the first destination
    acknowledged the priority. too_late: reading had begun, or the report was final, before. note: why no priority was
    sent although the level is raised, else empty. marking: what must stand beside a model that is not clinical.
    level_marking: what must stand beside the level alone.
    """

    rank: int
    study_id: str
    study_instance_uid: str
    accession_number: str
    level: Level
    source: str
    rule: str
    findings: tuple[str, ...]
    marking: str
    state: str
    waiting_since: float
    flagged_at: float | None
    too_late: bool
    note: str
    deliveries: tuple[DeliveryView, ...]
    level_marking: str = ""
