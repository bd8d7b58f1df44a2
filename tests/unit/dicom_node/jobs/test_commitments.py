"""From a stored object to a committed one, on every database: what an answer changes, and what none may."""

from __future__ import annotations

import pytest

from dicom_node.base.commitments import Remedy, Settled
from dicom_node.base.errors import LostClaim
from dicom_node.base.orders import Delivery
from dicom_node.base.types import Rejection
from dicom_node.jobs.registry import Registry
from support.studies import arrival, handover, report

PATH = report().path
OBJECT = "2.25.7"


def reported(registry: Registry, *destinations: str) -> Delivery:
    """A report for these destinations, the first delivery of which is claimed."""
    registry.record_arrivals([arrival(1)])
    registry.close_quiet(100, 0, 130)
    claim = registry.claim("w", 1e12, 140)
    assert claim is not None
    registry.finish_reported(claim, report(), handover(*destinations, path=PATH), 150)
    return claimed(registry, 200, destinations[0])


def claimed(registry: Registry, at: float, destination: str = "a", owner: str = "o") -> Delivery:
    found = registry.claim_delivery(owner, destination, at + 60, at)
    assert found is not None
    return found


def asked(registry: Registry, transaction: str, at: float, *, answer_by: float = 3600) -> Delivery:
    """A request for commitment that the destination took."""
    delivery = claimed(registry, at)
    assert delivery.stored
    registry.ask(delivery, transaction, OBJECT, at)
    registry.taken(transaction)
    registry.asked(delivery, at + answer_by)
    return delivery


def stored(registry: Registry, *destinations: str, at: float = 200) -> None:
    registry.stored(reported(registry, *(destinations or ("a",))), at)


def state(registry: Registry, number: int = 0) -> str:
    found = registry.study("1.2.3")
    assert found is not None
    return found.deliveries[number].state


def study_state(registry: Registry) -> str:
    found = registry.study("1.2.3")
    assert found is not None
    return found.state


def test_what_is_stored_is_not_delivered_until_it_is_committed(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    assert (state(registry), study_state(registry)) == ("committing", "reported")
    assert registry.claim_delivery("o", "a", 1000, 900) is None, "it waits for the answer"
    assert registry.committed("1.1", 950) is Settled.STUDY
    assert (state(registry), study_state(registry)) == ("delivered", "delivered")


def test_a_study_is_delivered_with_the_last_commitment(registry: Registry) -> None:
    stored(registry, "a", "b")
    asked(registry, "1.1", 201)
    assert registry.committed("1.1", 202) is Settled.DELIVERY
    assert study_state(registry) == "reported"
    assert registry.delivered(claimed(registry, 203, "b"), 204)


def test_no_answer_is_asked_for_again_and_the_old_one_still_counts(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    again = asked(registry, "1.2", 4000)
    assert (again.unanswered, again.questions, again.attempts) == (1, 2, 1)
    assert registry.committed("1.1", 4001) is Settled.STUDY
    assert registry.committed("1.2", 4002) is Settled.NOTHING
    assert state(registry) == "delivered"


def test_a_failure_sends_it_again_and_counts(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    assert registry.refused("1.1", Remedy.SEND_AGAIN, "gone", 300, 250) is Settled.DELIVERY
    assert registry.claim_delivery("o", "a", 360, 299) is None
    again = claimed(registry, 300)
    assert (again.stored, again.attempts, again.failures) == (False, 2, 1)
    registry.stored(again, 301)
    asking = asked(registry, "1.2", 302)
    assert (asking.unanswered, asking.questions) == (0, 1)
    assert registry.committed("1.2", 303) is Settled.STUDY


def test_a_failure_of_an_earlier_request_or_store_changes_nothing(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    asked(registry, "1.2", 4000)
    assert registry.refused("1.1", Remedy.SEND_AGAIN, "gone", 300, 4001) is Settled.NOTHING
    assert state(registry) == "committing"
    assert registry.refused("1.2", Remedy.SEND_AGAIN, "gone", 4100, 4002) is Settled.DELIVERY
    registry.stored(claimed(registry, 4100), 4101)
    assert registry.refused("1.2", Remedy.SET_ASIDE, "gone", 4100, 4102) is Settled.NOTHING
    assert state(registry) == "committing"


def test_a_success_does_not_count_against_a_later_failure(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    asked(registry, "1.2", 4000)
    assert registry.refused("1.2", Remedy.SEND_AGAIN, "gone", 4100, 4001) is Settled.DELIVERY
    assert registry.committed("1.1", 4002) is Settled.NOTHING
    assert state(registry) == "pending"


def test_a_failure_after_a_success_changes_nothing(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    registry.committed("1.1", 202)
    assert registry.refused("1.1", Remedy.SET_ASIDE, "gone", 300, 203) is Settled.NOTHING
    assert (state(registry), study_state(registry)) == ("delivered", "delivered")


def test_a_success_counts_while_the_object_is_being_sent_again(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    waiting = claimed(registry, 4000)
    registry.uncommitted(waiting, Remedy.SEND_AGAIN, "no answer", 4000)
    again = claimed(registry, 4001)
    assert registry.committed("1.1", 4002) is Settled.STUDY
    with pytest.raises(LostClaim):
        registry.stored(again, 4003)
    assert state(registry) == "delivered"


def test_an_answer_while_its_asker_still_waits_is_not_undone(registry: Registry) -> None:
    stored(registry)
    delivery = claimed(registry, 201)
    registry.ask(delivery, "1.1", OBJECT, 201)
    assert registry.refused("1.1", Remedy.SEND_AGAIN, "gone", 300, 202) is Settled.DELIVERY
    registry.taken("1.1")
    registry.asked(delivery, 3801)
    assert state(registry) == "pending"
    assert claimed(registry, 300).attempts == 2


def test_nothing_is_asked_for_what_somebody_else_owns_or_is_answered(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    slow = claimed(registry, 4000)
    registry.committed("1.1", 4001)
    with pytest.raises(LostClaim):
        registry.ask(slow, "1.2", OBJECT, 4002)
    assert registry.commitment("1.2") is None


def test_who_died_while_asking_leaves_nothing_stuck(registry: Registry) -> None:
    stored(registry)
    delivery = claimed(registry, 201, owner="node-outbox-1")
    registry.ask(delivery, "1.1", OBJECT, 201)
    assert registry.claim_delivery("o", "a", 300, 202) is None
    registry.return_deliveries("node-outbox-")
    assert claimed(registry, 203, owner="node-outbox-2").stored
    assert claimed(registry, 264, owner="other").stored, "its lease ran out"


def test_later_objects_of_a_study_wait_for_no_commitment(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    registry.refused("1.1", Remedy.SEND_AGAIN, "gone", 9000, 250)
    registry.record_arrivals([arrival(2, at=300)])
    registry.close_quiet(400, 0, 430)
    claim = registry.claim("w", 1e12, 440)
    assert claim is not None
    registry.finish_reported(claim, report(revision=2), handover("a", path="two.dcm"), 450)
    assert claimed(registry, 500).path == "two.dcm"


def test_what_can_be_sent_goes_before_what_can_be_asked(registry: Registry) -> None:
    stored(registry)
    registry.record_arrivals([arrival(1, study="1.2.40", at=300)])
    registry.close_quiet(400, 0, 430)
    claim = registry.claim("w", 1e12, 440)
    assert claim is not None
    registry.finish_reported(claim, report("1.2.40"), handover("a", path="other.dcm"), 450)
    assert claimed(registry, 500).path == "other.dcm"
    assert claimed(registry, 500).stored


def test_a_person_may_ask_again_and_begin_to_count_anew(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    assert registry.retry(arrival(1).study_id, 300).deliveries == 1
    asking = asked(registry, "1.2", 300)
    assert asking.unanswered == 1
    registry.refused("1.2", Remedy.SET_ASIDE, "gone", 300, 310)
    assert state(registry) == "set_aside"
    assert registry.retry(arrival(1).study_id, 400).deliveries == 1
    assert claimed(registry, 400).failures == 0


def test_a_destination_that_is_gone_leaves_nothing_waiting(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    assert registry.set_aside_unknown(["b"], "not there") == 1
    assert state(registry) == "set_aside"
    assert registry.committed("1.1", 300) is Settled.STUDY


def test_a_request_that_may_pass_is_repeated_as_a_request(registry: Registry) -> None:
    stored(registry)
    delivery = claimed(registry, 201)
    registry.postpone(delivery, "busy", 250)
    again = claimed(registry, 250)
    assert (again.stored, again.questions, again.attempts, again.unanswered) == (True, 2, 1, 0)


def test_resources_that_are_short_are_asked_about_again_without_counting(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    assert registry.refused("1.1", Remedy.ASK_AGAIN, "resource limitation", 900, 250) is Settled.DELIVERY
    again = claimed(registry, 900)
    assert (again.stored, again.failures, again.unanswered) == (True, 0, 0)


def test_an_unknown_transaction_is_nobodys(registry: Registry) -> None:
    stored(registry)
    assert registry.commitment("1.9") is None
    assert registry.committed("1.9", 300) is Settled.NOTHING
    assert registry.refused("1.9", Remedy.SET_ASIDE, "gone", 300, 300) is Settled.NOTHING
    assert state(registry) == "committing"


def test_of_a_withdrawn_result_nothing_is_asked_or_sent_again_but_it_is_rejected(registry: Registry) -> None:
    stored(registry)
    asked(registry, "1.1", 201)
    found = registry.study("1.2.3")
    assert found is not None
    registry.withdraw(found.id, Rejection.SAFETY, "anna", 300)
    [due] = registry.withdrawals_due()
    assert due.objects == (("a", (PATH,)),), "the archive has it, committed or not"
    assert registry.claim_delivery("o", "a", 99999, 5000) is None
    assert state(registry) == "withdrawn"
    registry.committed("1.1", 5001)
    assert state(registry) == "withdrawn", "a late answer changes nothing"
