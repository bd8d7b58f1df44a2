"""A worklist manager that is told of a study before its order is known, and what the order says by the time it is told.

Does not cover what the manager makes of it (`tests/integration/test_ups_user.py`).
"""

from __future__ import annotations

import pytest

from dicom_node.base.orders import Delivery, OrderAction, Outcome
from dicom_node.base.types import Level
from dicom_node.jobs.registry import Registry
from support.orders import MANAGER, UID, finish, order, placed, receive, tell

NO_STEP = Outcome(words="no step", stands=False)


def claimed(registry: Registry, at: float) -> Delivery | None:
    return registry.claim_delivery("o", "manager", at + 60, at)


def state(registry: Registry) -> str:
    study = registry.study(UID)
    assert study is not None
    return study.deliveries[-1].state


@pytest.fixture
def unordered(registry: Registry) -> Registry:
    """An urgent study without an order, of which the manager is to be told."""
    receive(registry)
    finish(registry, level=Level.URGENT, told=(MANAGER,))
    return registry


def test_what_waited_for_the_manager_is_told_with_the_order_that_came_meanwhile(unordered: Registry) -> None:
    tell(unordered, placed(), at=300)
    delivery = claimed(unordered, 310)
    assert delivery is not None
    assert delivery.change is not None
    assert delivery.change.order is not None
    assert delivery.change.order.placer_order_number == "PL1"


def test_an_order_that_comes_while_the_manager_is_told_brings_another_attempt(unordered: Registry) -> None:
    first = claimed(unordered, 250)
    assert first is not None
    tell(unordered, placed(), at=300)
    unordered.delivered(first, 310, NO_STEP)
    second = claimed(unordered, 320)
    assert second is not None
    assert second.change is not None
    assert second.change.order is not None
    unordered.delivered(second, 330, NO_STEP)
    assert claimed(unordered, 340) is None, "with the order there is nothing more to say"
    assert state(unordered) == "withdrawn"


def test_without_an_order_one_attempt_is_all(unordered: Registry) -> None:
    delivery = claimed(unordered, 250)
    assert delivery is not None
    unordered.delivered(delivery, 260, NO_STEP)
    assert claimed(unordered, 300) is None


@pytest.mark.parametrize("ordered", [Level.URGENT, Level.CRITICAL])
def test_no_step_is_made_below_an_order_that_came_meanwhile(unordered: Registry, ordered: Level) -> None:
    tell(unordered, placed(order(priority=ordered)), at=300)
    assert claimed(unordered, 310) is None
    assert state(unordered) == "withdrawn"


def test_no_step_is_made_below_an_order_that_was_raised_meanwhile(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, level=Level.ELEVATED, told=(MANAGER,))
    tell(registry, placed(order(priority=Level.CRITICAL, priority_text="S"), OrderAction.CHANGE), at=300)
    assert claimed(registry, 310) is None
    assert state(registry) == "withdrawn"
