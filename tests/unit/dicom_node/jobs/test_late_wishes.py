"""A person's wish for a study is told those who could not be told at first, once they can be.

Does not cover: what the model's flags do then (`test_flags.py`, `test_late_orders.py`).
"""

from __future__ import annotations

import pytest

from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import FinalReport, OrderAction, Outcome, PatientCorrected, PriorityChange
from dicom_node.base.types import Level
from dicom_node.jobs.flags import FINAL
from dicom_node.jobs.orders import NO_ORDER
from dicom_node.jobs.registry import Registry
from support.orders import MANAGER, PATIENT, RIS, STUDY, finish, order, placed, receive, tell

TAKEN = Outcome()
NO_STEP = Outcome(words="no step", stands=False)


def told(registry: Registry, destination: str = "ris", outcome: Outcome = TAKEN) -> list[PriorityChange]:
    """Everything the destination gets now, in order."""
    found = []
    while delivery := registry.claim_delivery("o", destination, 1.00006e06, 1e6):
        assert delivery.change is not None
        found.append(delivery.change)
        registry.delivered(delivery, 250.0, outcome)
    return found


@pytest.fixture
def wished(registry: Registry) -> Registry:
    """A study without a result and an order that a person calls critical."""
    receive(registry)
    plan = registry.raise_priority(STUDY, Level.CRITICAL, [RIS], 150)
    assert (plan.listeners, plan.note) == ((), NO_ORDER)
    assert told(registry) == []
    return registry


def test_an_order_that_comes_later_brings_the_wish(wished: Registry) -> None:
    tell(wished, placed(), at=160)
    [change] = told(wished)
    assert (change.level, change.previous, change.rule) == (
        Level.CRITICAL,
        Level.ROUTINE,
        "raised to critical by a person",
    )
    assert change.order is not None
    assert change.order.placer_order_number == "PL1"
    tell(wished, placed(action=OrderAction.CHANGE), at=170)
    tell(wished, PatientCorrected(PATIENT), at=180)
    assert told(wished) == [], "once"


def test_the_model_does_not_repeat_what_the_wish_says(wished: Registry) -> None:
    finish(wished, level=Level.URGENT)
    tell(wished, placed(), at=300)
    assert [change.level for change in told(wished)] == [Level.CRITICAL]


def test_a_wish_that_came_late_is_taken_back_like_any_other(wished: Registry) -> None:
    tell(wished, placed(), at=160)
    assert len(told(wished)) == 1
    assert wished.undo_priority(STUDY, 300).listeners == (RIS,)
    assert [(change.level, change.undo) for change in told(wished)] == [(Level.ROUTINE, True)]


def test_a_wish_that_was_taken_back_before_the_order_came_is_told_nobody(wished: Registry) -> None:
    wished.undo_priority(STUDY, 155)
    tell(wished, placed(), at=160)
    assert told(wished) == []


def test_an_order_that_says_as_much_needs_no_wish(wished: Registry) -> None:
    tell(wished, placed(order(priority=Level.CRITICAL, priority_text="S")), at=160)
    assert told(wished) == []


def test_a_wish_waits_until_the_order_says_its_priority(wished: Registry) -> None:
    tell(wished, placed(order(priority=None, priority_text="")), at=160)
    assert told(wished) == []
    tell(wished, placed(order(), OrderAction.CHANGE), at=170)
    assert [(change.level, change.previous) for change in told(wished)] == [(Level.CRITICAL, Level.ROUTINE)]


def test_a_manager_without_a_step_is_told_the_wish_again_with_the_order_and_then_no_more(registry: Registry) -> None:
    receive(registry)
    assert registry.raise_priority(STUDY, Level.URGENT, [MANAGER], 150).listeners == (MANAGER,)
    assert len(told(registry, "manager", NO_STEP)) == 1
    tell(registry, PatientCorrected(PATIENT), at=155)
    assert told(registry, "manager") == []
    tell(registry, placed(), at=160)
    [change] = told(registry, "manager", NO_STEP)
    assert change.order is not None
    tell(registry, placed(action=OrderAction.CHANGE), at=170)
    assert told(registry, "manager") == []


def test_to_call_a_study_routine_tells_nobody_now_or_later(registry: Registry) -> None:
    receive(registry)
    registry.raise_priority(STUDY, Level.ROUTINE, [RIS, MANAGER], 150)
    tell(registry, placed(order(priority=None, priority_text="")), at=160)
    assert told(registry) == told(registry, "manager") == []


def test_once_the_report_is_final_there_is_nothing_to_wish(wished: Registry) -> None:
    tell(wished, FinalReport(order(), "normal", 155.0), at=156)
    tell(wished, placed(), at=160)
    assert told(wished) == []
    with pytest.raises(PermanentError, match=FINAL):
        wished.raise_priority(STUDY, Level.CRITICAL, [RIS], 170)


def test_a_study_of_two_patients_cannot_be_raised(registry: Registry) -> None:
    receive(registry)
    receive(registry, at=110, patient_key="x:y:z")
    with pytest.raises(PermanentError, match="of two patients"):
        registry.raise_priority(STUDY, Level.CRITICAL, [RIS], 170)
