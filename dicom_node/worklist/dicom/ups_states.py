"""The states of a Unified Procedure Step: PS3.4 table CC.1.1-2, and what N-SET may do in each (CC.2.6). Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dicom_node.base.workitems import UpsState

FINAL = frozenset({UpsState.COMPLETED, UpsState.CANCELED})

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111
ALREADY_CANCELED = 0xB304
ALREADY_COMPLETED = 0xB306
NO_LONGER_UPDATED = 0xC300
WRONG_TRANSACTION_UID = 0xC301
ALREADY_IN_PROGRESS = 0xC302
ONLY_CREATED_SCHEDULED = 0xC303
FINAL_STATE_NOT_MET = 0xC304
NO_SUCH_UPS = 0xC307
NOT_CREATED_SCHEDULED = 0xC309
NOT_IN_PROGRESS = 0xC310
CANCEL_OF_COMPLETED = 0xC311
PERFORMER_NOT_REACHED = 0xC312

WORDS = {
    ALREADY_CANCELED: "the UPS is already CANCELED",
    ALREADY_COMPLETED: "the UPS is already COMPLETED",
    NO_LONGER_UPDATED: "the UPS may no longer be updated",
    WRONG_TRANSACTION_UID: "the correct Transaction UID was not provided",
    ALREADY_IN_PROGRESS: "the UPS is already IN PROGRESS",
    ONLY_CREATED_SCHEDULED: "a UPS becomes SCHEDULED by N-CREATE only",
    FINAL_STATE_NOT_MET: "final state requirements are not met",
    NO_SUCH_UPS: "no such UPS here",
    NOT_CREATED_SCHEDULED: "Procedure Step State is not SCHEDULED",
    NOT_IN_PROGRESS: "the UPS is not IN PROGRESS",
    CANCEL_OF_COMPLETED: "the UPS is already COMPLETED",
    PERFORMER_NOT_REACHED: "nobody is subscribed who could be told",
}


class CancelAction(enum.Enum):
    """What a cancel request asks of the provider once it is accepted."""

    CANCEL = "through IN PROGRESS to CANCELED"
    REPORT = "tell the subscribers that somebody requests a cancel"


@dataclass(frozen=True)
class Step:
    """What the table knows of a UPS. transaction_uid: empty until somebody claimed it."""

    state: UpsState
    transaction_uid: str = ""


def create(existing: Step | None) -> int:
    """N-CREATE for a SOP Instance UID."""
    return SUCCESS if existing is None else DUPLICATE_SOP_INSTANCE


def change_state(existing: Step | None, wanted: UpsState, transaction_uid: str, final_state_met: bool) -> int:
    """N-ACTION "Change UPS State": the status; at SUCCESS the step takes the wanted state.

    A transaction UID is correct for a SCHEDULED step if there is one at all, later if it is the one recorded.
    final_state_met: the step has what the wanted final state requires (CC.2.5.1.1).
    """
    if existing is None:
        return NO_SUCH_UPS
    if wanted is UpsState.SCHEDULED:
        return ONLY_CREATED_SCHEDULED
    expected = transaction_uid if existing.state is UpsState.SCHEDULED else existing.transaction_uid
    if not transaction_uid or transaction_uid != expected:
        return WRONG_TRANSACTION_UID
    status = CHANGES[wanted][existing.state]
    if status == SUCCESS and wanted in FINAL and not final_state_met:
        return FINAL_STATE_NOT_MET
    return status


#: Wanted state → present state → status, with the correct transaction UID.
CHANGES: dict[UpsState, dict[UpsState, int]] = {
    UpsState.IN_PROGRESS: {
        UpsState.SCHEDULED: SUCCESS,
        UpsState.IN_PROGRESS: ALREADY_IN_PROGRESS,
        UpsState.COMPLETED: NO_LONGER_UPDATED,
        UpsState.CANCELED: NO_LONGER_UPDATED,
    },
    UpsState.COMPLETED: {
        UpsState.SCHEDULED: NOT_IN_PROGRESS,
        UpsState.IN_PROGRESS: SUCCESS,
        UpsState.COMPLETED: ALREADY_COMPLETED,
        UpsState.CANCELED: NO_LONGER_UPDATED,
    },
    UpsState.CANCELED: {
        UpsState.SCHEDULED: NOT_IN_PROGRESS,
        UpsState.IN_PROGRESS: SUCCESS,
        UpsState.COMPLETED: NO_LONGER_UPDATED,
        UpsState.CANCELED: ALREADY_CANCELED,
    },
}


def request_cancel(existing: Step | None) -> tuple[int, CancelAction | None]:
    """N-ACTION "Request UPS Cancel": the status, and what to do at SUCCESS."""
    if existing is None:
        return NO_SUCH_UPS, None
    return {
        UpsState.SCHEDULED: (SUCCESS, CancelAction.CANCEL),
        UpsState.IN_PROGRESS: (SUCCESS, CancelAction.REPORT),
        UpsState.COMPLETED: (CANCEL_OF_COMPLETED, None),
        UpsState.CANCELED: (ALREADY_CANCELED, None),
    }[existing.state]


def set_attributes(existing: Step | None, transaction_uid: str) -> int:
    """N-SET (CC.2.6.2 to CC.2.6.4): without a transaction UID while SCHEDULED, with the recorded one afterwards."""
    if existing is None:
        return NO_SUCH_UPS
    if existing.state in FINAL:
        return NO_LONGER_UPDATED
    if existing.state is UpsState.SCHEDULED:
        return NOT_IN_PROGRESS if transaction_uid else SUCCESS
    return SUCCESS if transaction_uid and transaction_uid == existing.transaction_uid else WRONG_TRANSACTION_UID
