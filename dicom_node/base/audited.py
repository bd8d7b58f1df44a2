"""What the registry knows to have happened and nobody has recorded in the audit trail yet. Times: seconds, UTC."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Happened(enum.StrEnum):
    """What happened."""

    RECEIVED = "received"
    RESULT = "result"
    SENDING = "sending"
    SENT = "sent"
    TOLD = "told"
    MODEL = "model"


@dataclass(frozen=True)
class Due:
    """One of them.

    study_instance_uid, patient_key: whose; example: a received object of the study, its path in the spool. peer: AE
    title of who sent, the destination's name, or who changed the model. address: of who sent. sop_classes: UID (empty:
    not known) → instances. words: which model, and what was done with it.
    """

    what: Happened
    at: float
    study_instance_uid: str = ""
    patient_key: str = ""
    example: str = ""
    peer: str = ""
    address: str = ""
    sop_classes: dict[str, int] = field(default_factory=dict)
    words: str = ""
