"""Storage commitment (PS3.4 annex J) between the registry and what asks for it and takes the answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dicom_node.base.types import DeliveryState


@dataclass(frozen=True)
class Commitment:
    """One request for commitment. failures: how often the destination did not commit to this object so far."""

    transaction_uid: str
    study_id: str
    destination: str
    sop_instance_uid: str
    answered: bool
    failures: int


class Settled(enum.Enum):
    """What an answer changed. study: the delivery is done, and with it the whole study."""

    NOTHING = "nothing"
    DELIVERY = "delivery"
    STUDY = "study"


class Remedy(enum.StrEnum):
    """What is done about an object that a destination did not commit to, by the state its delivery gets."""

    SEND_AGAIN = DeliveryState.PENDING.value
    ASK_AGAIN = DeliveryState.COMMITTING.value
    SET_ASIDE = DeliveryState.SET_ASIDE.value
