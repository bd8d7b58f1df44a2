"""What is to be explained: taken once, given back, never of an old result, and never tried for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.base.errors import LostClaim
from dicom_node.base.types import Level, Prediction, Rejection, Report, ToSend, study_id
from dicom_node.jobs.explanations import GAVE_UP, MOST_ATTEMPTS, OVERTAKEN, ExplanationView, OwedExplanation
from dicom_node.jobs.registry import Registry
from support.studies import arrival, handover, report

STUDY = study_id("1.2.3")
LOGITS = {"diagnosis": {"x": 1.0}, "referral": {}, "priority": {"high": 1.0}}
SAID = Prediction("a-1", "e1", LOGITS, Level.URGENT, "fp32", 0.5, bytes(8))
PAGES = [ToSend("pacs", "sr", "explained.dcm"), ToSend("pacs", "sc", "1.dcm"), ToSend("pacs", "sc", "2.dcm")]


def made(revision: int = 1) -> Report:
    plain = report(revision=revision)
    return replace(plain, prediction=SAID, model=replace(plain.model, bundle_id="a-1"))


def reported(registry: Registry, revision: int = 1, at: float = 300.0) -> None:
    """A result that is to be explained."""
    registry.record_arrivals([arrival(revision, at=at - 20)])
    registry.close_quiet(at - 10, 0, at - 10)
    claim = registry.claim("w", at + 60, at - 5)
    assert claim is not None
    registry.finish_reported(claim, made(revision), handover("pacs", explain=True), at)


def taken(registry: Registry, at: float = 400.0, owner: str = "one") -> OwedExplanation:
    owed = registry.claim_explanation(owner, at + 60, at)
    assert owed is not None
    return owed


def state(registry: Registry) -> ExplanationView:
    found = registry.explanation(STUDY)
    assert found is not None
    return found


def test_it_is_taken_by_one_with_all_that_it_needs(registry: Registry) -> None:
    assert not registry.explanation_waits()
    reported(registry)
    assert registry.explanation_waits()
    owed = taken(registry)
    assert (owed.claim.study_id, owed.bundle_id, owed.precision) == (STUDY, "a-1", report().precision)
    assert owed.logits == LOGITS
    assert len(owed.claim.images) == 1
    assert registry.claim_explanation("two", 1e9, 410) is None


def test_what_was_found_and_what_is_sent_are_recorded_together(registry: Registry) -> None:
    reported(registry)
    owed = taken(registry)
    registry.finish_explanation(owed, PAGES, [{"finding": "x"}], 420, report_uid="2.25.5")
    assert (state(registry).state, state(registry).document) == ("done", ({"finding": "x"},))
    sent = []
    while (delivery := registry.claim_delivery("s", "pacs", 1e9, 500)) is not None:
        sent.append((delivery.kind, delivery.path))
        registry.delivered(delivery, 500)
    assert sent == [("sr", "report.dcm"), *((one.kind, one.path) for one in PAGES)]
    assert registry.claim_explanation("two", 1e9, 600) is None


def test_the_next_report_replaces_both(registry: Registry) -> None:
    reported(registry)
    registry.finish_explanation(taken(registry), PAGES, [], 420, report_uid="2.25.5")
    first = report()
    assert [uid for uid, *_ in registry.predecessors(STUDY, 2)] == [first.sop_instance_uid, "2.25.5"]


def test_a_study_is_delivered_with_its_report_whatever_follows(registry: Registry) -> None:
    reported(registry)
    registry.finish_explanation(taken(registry), PAGES[1:], [], 420, report_uid=None)
    delivery = registry.claim_delivery("s", "pacs", 1e9, 500)
    assert delivery is not None
    assert registry.delivered(delivery, 500)
    study = registry.study(STUDY)
    assert study is not None
    assert study.state == "delivered"


def test_a_result_that_was_overtaken_is_not_explained(registry: Registry) -> None:
    reported(registry)
    registry.record_arrivals([arrival(2, at=350)])
    assert registry.claim_explanation("one", 1e9, 400) is None
    assert (state(registry).state, state(registry).note) == ("overtaken", OVERTAKEN)


def test_nothing_is_sent_of_a_study_that_changed_meanwhile(registry: Registry) -> None:
    reported(registry)
    owed = taken(registry)
    registry.record_arrivals([arrival(2, at=410)])
    with pytest.raises(LostClaim):
        registry.finish_explanation(owed, PAGES, [], 420, report_uid="2.25.5")
    study = registry.study(STUDY)
    assert study is not None
    assert [one.kind for one in study.deliveries] == ["sr"]


def test_given_back_it_is_taken_again_and_the_try_does_not_count(registry: Registry) -> None:
    reported(registry)
    for at in range(400, 400 + 3 * MOST_ATTEMPTS):
        registry.give_back_explanation(taken(registry, at))
    assert (state(registry).state, state(registry).attempts) == ("pending", 0)


def test_one_that_brings_the_worker_down_is_not_tried_for_ever(registry: Registry) -> None:
    reported(registry)
    for number in range(MOST_ATTEMPTS):
        taken(registry, 400 + 100 * number)
    assert registry.claim_explanation("one", 1e9, 1000) is None
    assert (state(registry).state, state(registry).note) == ("failed", GAVE_UP)


def test_while_it_is_worked_on_nobody_else_takes_it(registry: Registry) -> None:
    reported(registry)
    owed = taken(registry, 400)
    registry.renew_explanation(owed, 600)
    assert registry.claim_explanation("two", 1e9, 500) is None
    other = taken(registry, 700, "two")
    with pytest.raises(LostClaim):
        registry.finish_explanation(owed, PAGES, [], 710, report_uid=None)
    registry.finish_explanation(other, [], [], 720, report_uid=None)


@pytest.mark.parametrize(("final", "tries"), [(True, 1), (False, MOST_ATTEMPTS)])
def test_a_failure_says_why(registry: Registry, final: bool, tries: int) -> None:
    reported(registry)
    for number in range(tries):
        at = 400 + 100 * number
        registry.fail_explanation(taken(registry, at), "too little memory", at, final=final)
        assert registry.claim_explanation("two", 1e9, at + 1) is None, "not at once again"
    assert (state(registry).state, state(registry).note) == ("failed", "too little memory")
    assert not registry.explanation_waits()


def test_what_is_not_the_results_fault_counts_as_no_try(registry: Registry) -> None:
    reported(registry)
    for number in range(2 * MOST_ATTEMPTS):
        at = 400 + 100 * number
        registry.fail_explanation(taken(registry, at), "the disk is full", at, final=False, counts=False)
    assert (state(registry).state, state(registry).attempts) == ("pending", 0)


def test_who_lost_it_changes_nothing(registry: Registry) -> None:
    reported(registry)
    late = taken(registry, 400)
    other = taken(registry, 500, "two")
    registry.finish_explanation(other, [], [], 510, report_uid=None)
    registry.fail_explanation(late, "too late", 520, final=True)
    assert state(registry).state == "done"


def test_pages_that_wait_hold_up_no_report(registry: Registry) -> None:
    reported(registry)
    registry.finish_explanation(taken(registry), PAGES, [], 420, report_uid="2.25.5")
    order = []
    for at in (500, 510, 520):
        delivery = registry.claim_delivery("s", "pacs", 1e9, at)
        assert delivery is not None
        order.append((delivery.kind, delivery.path))
        if delivery.kind == "sr":
            registry.delivered(delivery, at)
        else:
            registry.postpone(delivery, "busy", 5000)
    assert order == [("sr", "report.dcm"), ("sr", "explained.dcm"), ("sc", "1.dcm")]
    assert registry.claim_delivery("s", "pacs", 1e9, 530) is None, "the second page keeps its place"
    reported(registry, revision=2, at=1000)
    newer = registry.claim_delivery("s", "pacs", 1e9, 1100)
    assert newer is not None
    assert newer.kind == "sr"


def test_a_destination_of_pages_alone_ends_the_study(registry: Registry) -> None:
    registry.record_arrivals([arrival(1, at=280)])
    registry.close_quiet(290, 0, 290)
    claim = registry.claim("w", 1e9, 295)
    assert claim is not None
    registry.finish_reported(claim, made(), handover(explain=True), 300)
    registry.finish_explanation(taken(registry), PAGES[1:2], [], 420, report_uid=None)
    delivery = registry.claim_delivery("s", "pacs", 1e9, 500)
    assert delivery is not None
    assert registry.delivered(delivery, 500)


def test_it_is_as_partial_as_its_report(registry: Registry) -> None:
    registry.record_arrivals([arrival(1, at=280), arrival(2, at=280)])
    registry.close_quiet(290, 0, 290)
    registry.mark_lost([arrival(2).path], 291)
    claim = registry.claim("w", 1e9, 295)
    assert claim is not None
    assert claim.partial_reason
    registry.finish_reported(claim, made(), handover(explain=True), 300)
    owed = taken(registry)
    assert (owed.claim.partial_reason, owed.claim.corrected) == (claim.partial_reason, claim.corrected)


def test_a_person_has_it_tried_again_after_the_report_was_delivered(registry: Registry) -> None:
    reported(registry)
    delivery = registry.claim_delivery("s", "pacs", 1e9, 350)
    assert delivery is not None
    assert registry.delivered(delivery, 360)
    registry.fail_explanation(taken(registry), "too little memory", 450, final=True)
    assert registry.retry(STUDY, 500).explaining
    owed = taken(registry, 510)
    registry.finish_explanation(owed, PAGES[1:2], [], 520, report_uid=None)
    delivery = registry.claim_delivery("s", "pacs", 1e9, 530)
    assert delivery is not None
    registry.set_aside(delivery, "refused")
    assert registry.retry(STUDY, 600).deliveries == 1
    again = registry.claim_delivery("s", "pacs", 1e9, 610)
    assert again is not None
    assert again.path == PAGES[1].path


def test_a_withdrawn_result_is_not_explained(registry: Registry) -> None:
    reported(registry)
    owed = taken(registry)
    registry.withdraw(STUDY, Rejection.SAFETY, "anna", 410)
    with pytest.raises(LostClaim):
        registry.finish_explanation(owed, PAGES, [], 420, report_uid="2.25.5")
    assert registry.claim_explanation("two", 1e9, 600) is None
