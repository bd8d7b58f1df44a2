"""What happens when somebody takes a priority back, or an order comes, at the very moment in which a peer is told.

Does not cover: undo and orders one after another (`test_flags.py`, `test_late_orders.py`).
"""

from __future__ import annotations

import pytest

from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import Delivery, Outcome
from dicom_node.base.types import Level
from dicom_node.jobs.registry import Registry
from support.orders import MANAGER, RIS, STUDY, finish, placed, receive, tell
from support.statements import meanwhile

NO_STEP = Outcome(words="no step", stands=False)


def claimed(registry: Registry, destination: str = "ris") -> Delivery | None:
    return registry.claim_delivery("o", destination, 1.00006e06, 1e6)


def told(registry: Registry, destination: str = "ris", **outcome: object) -> list[tuple[Level, bool]]:
    """Level of everything the destination gets now, and whether it is an undo."""
    found = []
    while delivery := claimed(registry, destination):
        assert delivery.change is not None
        found.append((delivery.change.level, delivery.change.undo))
        registry.delivered(delivery, 250.0, Outcome(**outcome))  # type: ignore[arg-type]
    return found


@pytest.fixture
def flagged(registry: Registry) -> Registry:
    """An urgent study whose RIS and worklist manager are to be told."""
    tell(registry, placed())
    receive(registry)
    finish(registry, level=Level.URGENT, told=(RIS, MANAGER))
    return registry


def test_what_was_taken_back_while_it_was_sent_in_vain_is_not_sent_again(flagged: Registry) -> None:
    assert len(told(flagged, "manager", previous=Level.ROUTINE)) == 1
    sending = claimed(flagged)
    assert sending is not None
    flagged.undo_priority(STUDY, 300)
    flagged.postpone(sending, "no answer", 300)
    assert told(flagged) == [(Level.ROUTINE, True)], "it may have had it all the same"
    assert told(flagged, "manager") == [(Level.ROUTINE, True)]


def test_what_a_manager_had_before_is_waited_for(flagged: Registry) -> None:
    assert told(flagged) == [(Level.URGENT, False)]
    sending = claimed(flagged, "manager")
    assert sending is not None
    with pytest.raises(PermanentError, match="being told just now"):
        flagged.undo_priority(STUDY, 300)
    assert told(flagged) == [], "nothing was done"
    flagged.delivered(sending, 310, Outcome(previous=Level.ELEVATED))
    flagged.undo_priority(STUDY, 320)
    assert told(flagged) == [(Level.ROUTINE, True)]
    assert told(flagged, "manager") == [(Level.ELEVATED, True)]


def test_what_is_claimed_while_it_is_taken_back_is_either_stopped_or_undone(flagged: Registry) -> None:
    taken: list[Delivery | None] = []
    with meanwhile(flagged, "WHERE deliveries.change_id =", lambda: taken.append(claimed(flagged))):
        plan = flagged.undo_priority(STUDY, 300)
    [sending] = taken
    assert [one.name for one in plan.listeners] == ([] if sending is None else ["ris"])
    if sending is not None:
        flagged.delivered(sending, 310)
    assert told(flagged) == ([] if sending is None else [(Level.ROUTINE, True)])


def test_an_order_that_comes_while_a_manager_says_that_it_has_no_step_brings_another_attempt(
    registry: Registry,
) -> None:
    receive(registry)
    finish(registry, level=Level.URGENT, told=(MANAGER,))
    sending = claimed(registry, "manager")
    assert sending is not None
    with meanwhile(registry, "orders.accession_number IN", lambda: tell(registry, placed(), at=300)):
        registry.delivered(sending, 310, NO_STEP)
    again = claimed(registry, "manager")
    assert again is not None
    assert again.change is not None
    assert again.change.order is not None
