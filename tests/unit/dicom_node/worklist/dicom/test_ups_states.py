"""Every cell of PS3.4 table CC.1.1-2, and N-SET in every state."""

from __future__ import annotations

import pytest

from dicom_node.base.workitems import UpsState
from dicom_node.worklist.dicom import ups_states
from dicom_node.worklist.dicom.ups_states import CancelAction, Step

S, P, D, X = UpsState.SCHEDULED, UpsState.IN_PROGRESS, UpsState.COMPLETED, UpsState.CANCELED
LOCK = "1.2.3"
STEPS = {
    "null": None,
    S: Step(S),
    P: Step(P, LOCK),
    D: Step(D, LOCK),
    X: Step(X, LOCK),
}
COLUMNS = ("null", S, P, D, X)

#: Event → status in the states null, SCHEDULED, IN PROGRESS, COMPLETED, CANCELED, as printed in the table.
TABLE = {
    ("change", P, LOCK): (0xC307, 0x0000, 0xC302, 0xC300, 0xC300),
    ("change", P, ""): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("change", S, LOCK): (0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    ("change", S, ""): (0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    ("change", D, LOCK): (0xC307, 0xC310, 0x0000, 0xB306, 0xC300),
    ("change", D, ""): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("change", X, LOCK): (0xC307, 0xC310, 0x0000, 0xC300, 0xB304),
    ("change", X, ""): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("cancel",): (0xC307, 0x0000, 0x0000, 0xC311, 0xB304),
    ("create",): (0x0000, 0x0111, 0x0111, 0x0111, 0x0111),
    ("set", ""): (0xC307, 0x0000, 0xC301, 0xC300, 0xC300),
    ("set", LOCK): (0xC307, 0xC310, 0x0000, 0xC300, 0xC300),
    ("set", "9.9"): (0xC307, 0xC310, 0xC301, 0xC300, 0xC300),
}
CELLS = [(event, column, status) for event, row in TABLE.items() for column, status in zip(COLUMNS, row, strict=True)]


def answer(event: tuple[str, ...], step: Step | None) -> int:
    match event:
        case ("change", wanted, transaction_uid):
            return ups_states.change_state(step, UpsState(wanted), transaction_uid, final_state_met=True)
        case ("cancel",):
            return ups_states.request_cancel(step)[0]
        case ("create",):
            return ups_states.create(step)
        case ("set", transaction_uid):
            return ups_states.set_attributes(step, transaction_uid)
    raise AssertionError(event)


@pytest.mark.parametrize(("event", "column", "status"), CELLS)
def test_every_cell(event: tuple[str, ...], column: str, status: int) -> None:
    assert answer(event, STEPS[column]) == status


@pytest.mark.parametrize("wanted", [P, D, X])
@pytest.mark.parametrize("state", [P, D, X])
def test_another_transaction_uid_is_not_the_correct_one(wanted: UpsState, state: UpsState) -> None:
    assert ups_states.change_state(STEPS[state], wanted, "9.9", final_state_met=True) == 0xC301


@pytest.mark.parametrize("wanted", [D, X])
def test_a_final_state_needs_its_requirements(wanted: UpsState) -> None:
    assert ups_states.change_state(STEPS[P], wanted, LOCK, final_state_met=False) == 0xC304


def test_in_progress_has_no_requirements() -> None:
    assert ups_states.change_state(STEPS[S], P, LOCK, final_state_met=False) == 0x0000


@pytest.mark.parametrize(
    ("state", "action"), [(S, CancelAction.CANCEL), (P, CancelAction.REPORT), (D, None), (X, None), ("null", None)]
)
def test_what_an_accepted_cancel_request_brings_about(state: str, action: CancelAction | None) -> None:
    assert ups_states.request_cancel(STEPS[state])[1] is action


def test_every_refusal_has_words_that_fit_an_error_comment() -> None:
    refusals = {status for row in TABLE.values() for status in row if status not in (0x0000, 0x0111)} | {0xC304}
    assert refusals <= ups_states.WORDS.keys()
    assert all(len(words) <= 64 for words in ups_states.WORDS.values())
