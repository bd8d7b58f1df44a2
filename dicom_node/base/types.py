"""Frozen value types that cross a border between the node's stages. Times are seconds since the epoch, UTC."""

from __future__ import annotations

import base64
import enum
import hashlib
from dataclasses import dataclass
from functools import lru_cache

from dicom_node.base.provenance import Provenance

CLINICAL = "clinical"  # the training state of a bundle whose results may leave the node without further permission


class StudyState(enum.StrEnum):
    """Where a study is. `failed` is tried again at a known time; `dead` needs a person.

    `withdrawn`: a person took its result back, and nothing stands until a person or a late image asks for another.
    """

    RECEIVING = "receiving"
    COMPLETE = "complete"
    RUNNING = "running"
    REPORTED = "reported"
    DELIVERED = "delivered"
    OUT_OF_SCOPE = "out_of_scope"
    FAILED = "failed"
    DEAD = "dead"
    WITHDRAWN = "withdrawn"


class Standing(enum.StrEnum):
    """What a received object is to its study.

    Current ones are evidence; `other` ones (reports, presentation states, the node's own objects) never reopen a study;
    disputed ones share their SOP Instance UID with an earlier, different file and wait for a comparison. A superseded
    one was sent again with other identifiers or labels, which count instead. The study of an uncorrected one has other
    identifiers by now, with which it was not sent again. Rejected and expired ones are named by a rejection note (IHE
    IOCM); of an expired one the file is deleted.
    """

    CURRENT = "current"
    OTHER = "other"
    DISPUTED = "disputed"
    DUPLICATE = "duplicate"
    CORRECTION = "correction"
    QUARANTINED = "quarantined"
    LOST = "lost"
    SUPERSEDED = "superseded"
    UNCORRECTED = "uncorrected"
    REJECTED = "rejected"
    EXPIRED = "expired"


class DeliveryState(enum.StrEnum):
    """Where one object for one destination is. `set_aside` needs a person (`dicom-node retry`).

    `committing`: the peer stored the object and has yet to commit to keep it. `withdrawn` changed nothing at the peer,
    or was taken back before it was sent.
    """

    PENDING = "pending"
    SENDING = "sending"
    COMMITTING = "committing"
    DELIVERED = "delivered"
    SET_ASIDE = "set_aside"
    WITHDRAWN = "withdrawn"


class Level(enum.StrEnum):
    """Reading priority, lowest first."""

    ROUTINE = "routine"
    ELEVATED = "elevated"
    URGENT = "urgent"
    CRITICAL = "critical"

    @property
    def severity(self) -> int:
        """0 for routine; a higher one is read earlier."""
        return list(Level).index(self)


class Rejection(enum.StrEnum):
    """Why objects are rejected: the code (DCM) of a rejection note's document title (PS3.16 CID 7010, IHE RAD IOCM)."""

    QUALITY = "113001"
    SAFETY = "113037"
    WORKLIST = "113038"
    RETENTION = "113039"

    @property
    def meaning(self) -> str:
        """The code's meaning in PS3.16 annex D."""
        return {
            Rejection.QUALITY: "Rejected for Quality Reasons",
            Rejection.SAFETY: "Rejected for Patient Safety Reasons",
            Rejection.WORKLIST: "Incorrect Modality Worklist Entry",
            Rejection.RETENTION: "Data Retention Policy Expired",
        }[self]


@dataclass(frozen=True)
class KeyObjects:
    """What a Key Object Selection says. rejection: None where its title is no rejection.

    references: (Study, Series, SOP Instance UID) of the objects that it names.
    """

    rejection: Rejection | None
    references: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Withdrawal:
    """A result that was withdrawn after it was, or may have been, sent.

    objects: for each destination the paths, in the outgoing folder, of what it has or may have. report: of the plain
    report path, SOP Class, Series and SOP Instance UID.
    """

    result_id: int
    study_id: str
    rejection: Rejection
    reason: str
    at: float
    objects: tuple[tuple[str, tuple[str, ...]], ...]
    report: tuple[str, str, str, str] = ("", "", "", "")


@lru_cache(maxsize=256)
def study_id(study_instance_uid: str) -> str:
    """The node's own short name of a study: what logs and folders show instead of the UID."""
    digest = hashlib.sha256(study_instance_uid.encode()).digest()
    return base64.b32encode(digest[:10]).decode().lower()


@dataclass(frozen=True)
class Arrival:
    """One object that is durable in the spool.

    path: relative to the spool. digest: SHA-256 of the data set's bytes as received. patient_key: `id:name:birth`, see
    `prima_core.base.patient`; issuer: one-way digest of Issuer of Patient ID, or empty. urgent: C-STORE priority HIGH
    (0000,0700). image: an MR image, able to (re)open a study.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    patient_key: str
    accession_number: str
    digest: str
    path: str
    size: int
    calling_ae: str
    urgent: bool
    image: bool
    received_at: float
    association_id: str | None = None
    issuer: str = ""

    @property
    def study_id(self) -> str:
        """The node's short study id."""
        return study_id(self.study_instance_uid)


class Verdict(enum.StrEnum):
    """How a second object with a known SOP Instance UID compares with the first."""

    DUPLICATE = "duplicate"
    CORRECTION = "correction"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Claim:
    """A study that one worker owns. images: (SOP Instance UID, path in the spool) of all its evidence.

    corrected: those of the paths whose image was sent before with other identifiers or labels.
    """

    study_id: str
    study_instance_uid: str
    revision: int
    urgent: bool
    owner: str
    calling_aes: tuple[str, ...]
    images: tuple[tuple[str, str], ...]
    partial_reason: str | None
    attempts: int
    corrected: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyFacts:
    """What routes and exclusions ask about a study."""

    description: str
    age_years: float | None
    calling_aes: tuple[str, ...]


@dataclass(frozen=True)
class ModelIdentity:
    """The bundle that made a result. device_uid changes with the weights (IHE AIR)."""

    bundle_id: str
    name: str
    version: str
    device_uid: str
    training_state: str

    @property
    def clinical(self) -> bool:
        """Whether results may leave the node without further permission."""
        return self.training_state == CLINICAL


class ModelRole(enum.StrEnum):
    """What a bundle is used for: `active` makes the reports, `shadow` runs on the same studies and is only compared."""

    ACTIVE = "active"
    SHADOW = "shadow"


class ModelAction(enum.StrEnum):
    """A change of which bundles are in use, as the audit has it."""

    ACTIVATE = "activate"
    ROLLBACK = "rollback"
    SHADOW = "shadow"
    STOP_SHADOW = "stop-shadow"


@dataclass(frozen=True)
class Prediction:
    """What one bundle said of one revision of a study, as the registry keeps it.

    logits: task → output → logit, thresholds already subtracted. level: what the site's mapping and rules make of it.
    encoder: the part of the bundle that made `embedding`, see `models_in_use.encoder_of`; embedding: float32
    little-endian.
    """

    bundle_id: str
    encoder: str
    logits: dict[str, dict[str, float]]
    level: Level
    precision: str
    seconds: float
    embedding: bytes


@dataclass(frozen=True)
class Score:
    """One head's answer. logit: threshold already subtracted, above 0 is positive; probability: only if calibrated."""

    name: str
    logit: float
    threshold: float
    probability: float | None = None

    @property
    def positive(self) -> bool:
        """Above its threshold."""
        return self.logit > 0


@dataclass(frozen=True)
class Priority:
    """Reading priority and the rule that gave it."""

    level: Level
    rule: str


@dataclass(frozen=True)
class ImageReference:
    """One of the used images. frame_numbers: counted from 1, of a multi-frame image; none means the whole image."""

    sop_instance_uid: str
    frame_numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """The images that speak for one finding, as an explanation of the model's answer found them.

    finding: name of a positive diagnosis. method: how they were found, in words, e.g. "LIME, 256 samples, seed 0".
    note: one sentence on why there are none, or what to know of them.
    """

    finding: str
    images: tuple[ImageReference, ...] = ()
    method: str = ""
    note: str = ""


@dataclass(frozen=True)
class StudyResult:
    """What the model said of one revision of one study, ready to be reported.

    diagnoses, referrals: every head, positive or not, in the bundle's order. sop_instance_uids: all images used.
    predecessors: SOP Instance UID, Series Instance UID and SOP Class UID of earlier reports of this study. evidence: of
    an explained result, what speaks for its findings; it makes the report another one that replaces the plain one.
    corrected: as in `Claim`; what is made of corrected images must not look like what was made of them before.
    """

    study_instance_uid: str
    revision: int
    diagnoses: tuple[Score, ...]
    referrals: tuple[Score, ...]
    priority: Priority
    model: ModelIdentity
    precision: str
    sop_instance_uids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    partial_reason: str | None = None
    predecessors: tuple[tuple[str, str, str], ...] = ()
    evidence: tuple[Evidence, ...] = ()
    corrected: tuple[str, ...] = ()

    @property
    def positive(self) -> tuple[Score, ...]:
        """Diagnoses above their threshold, strongest first."""
        return tuple(sorted((score for score in self.diagnoses if score.positive), key=lambda s: -s.logit))


@dataclass(frozen=True)
class Finding:
    """A positive diagnosis as people and scripts see it. score: probability if calibrated, else the logit."""

    name: str
    code: str
    scheme: str
    meaning: str
    score: float
    calibrated: bool


@dataclass(frozen=True)
class Report:
    """A finished document in the outgoing folder: what the registry records and the outbox sends.

    priority_output: the priority head's strongest output, from which rules can be tried again. prediction: all that the
    model said, kept for comparison and training. provenance: what it was made of.
    """

    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    path: str
    findings: tuple[Finding, ...]
    priority: Priority
    priority_output: str
    model: ModelIdentity
    precision: str
    created_at: float
    prediction: Prediction | None = None
    provenance: Provenance | None = None


@dataclass(frozen=True)
class ToSend:
    """One object for one destination. kind: sr, sc, kos or seg. path: relative to the outgoing folder."""

    destination: str
    kind: str
    path: str


@dataclass(frozen=True)
class DeliveryView:
    """One object or message on its way to one destination, as people see it."""

    destination: str
    kind: str
    state: str
    attempts: int
    last_error: str | None
