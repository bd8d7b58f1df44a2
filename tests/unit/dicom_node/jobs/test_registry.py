"""The registry's promises: guarded states, one owner, the queue's order, and what late or repeated objects do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from dicom_node.base.errors import LostClaim, PermanentError
from dicom_node.base.types import StudyState, Verdict, study_id
from dicom_node.jobs.claims import IMAGES_ELSEWHERE, IMAGES_QUARANTINED
from dicom_node.jobs.database import migrate, open_engine
from dicom_node.jobs.queue import CLOSED_BY_CAP
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.retries import Retried
from dicom_node.jobs.tables import metadata, studies
from dicom_node.jobs.transitions import ALLOWED, move
from support.studies import MODEL, SR, arrival, handover, report

STUDY = study_id("1.2.3")


def state(registry: Registry, uid: str = "1.2.3") -> str:
    found = registry.study(uid)
    assert found is not None
    return found.state


def complete(registry: Registry, uid: str = "1.2.3", at: float = 100.0, **changes: object) -> None:
    registry.record_arrivals([arrival(1, study=uid, at=at, **changes)])
    registry.close_quiet(quiet_since=at, opened_before=0, at=at + 30)


def run_and_report(registry: Registry, uid: str = "1.2.3", *destinations: str) -> None:
    claim = registry.claim("w", 1e9, 300)
    assert claim is not None
    registry.finish_reported(claim, report(uid, claim.revision), handover(*destinations), 400)


def test_migrations_build_exactly_the_declared_tables(database_url: str) -> None:
    migrate(database_url)
    migrate(database_url)  # a second time changes nothing
    engine = open_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_study_closes_when_quiet_and_not_before(registry: Registry) -> None:
    registry.record_arrivals([arrival(1, at=100), arrival(2, at=110)])
    assert registry.close_quiet(quiet_since=105, opened_before=0, at=135) == []
    assert registry.close_quiet(quiet_since=110, opened_before=0, at=140) == [(STUDY, None)]
    assert state(registry) == "complete"


def test_an_open_association_that_fed_the_study_keeps_it_open(registry: Registry) -> None:
    registry.open_association("a", "boot", "PACS", "127.0.0.1", 99)
    registry.open_association("other", "boot", "PACS", "127.0.0.1", 99)
    registry.record_arrivals([arrival(1, association_id="a")])
    assert registry.close_quiet(200, 0, 200) == []
    registry.close_association("a", 210)
    assert registry.close_quiet(200, 0, 220) == [(STUDY, None)]


def test_a_dead_receivers_associations_do_not_keep_studies_open(registry: Registry) -> None:
    registry.open_association("a", "old boot", "PACS", "127.0.0.1", 99)
    registry.record_arrivals([arrival(1, association_id="a")])
    registry.close_other_boots("new boot", 150)
    assert registry.close_quiet(200, 0, 200) == [(STUDY, None)]


def test_a_dead_receivers_senders_have_time_to_come_back_before_their_studies_close(registry: Registry) -> None:
    registry.open_association("cut", "old boot", "PACS", "127.0.0.1", 99)
    registry.open_association("ended", "old boot", "PACS", "127.0.0.1", 99)
    registry.record_arrivals([arrival(1, association_id="cut"), arrival(1, study="1.2.4", association_id="ended")])
    registry.close_association("ended", 110)
    registry.close_other_boots("new boot", 500)
    assert registry.close_quiet(quiet_since=499, opened_before=0, at=529) == [(study_id("1.2.4"), None)]
    assert registry.close_quiet(quiet_since=500, opened_before=0, at=530) == [(STUDY, None)]


def test_the_cap_closes_a_study_that_never_falls_quiet_and_says_so(registry: Registry) -> None:
    registry.open_association("a", "boot", "PACS", "127.0.0.1", 99)
    registry.record_arrivals([arrival(1, at=100, association_id="a"), arrival(2, at=1900, association_id="a")])
    [(closed, reason)] = registry.close_quiet(quiet_since=1870, opened_before=100, at=1900)
    assert closed == STUDY
    assert reason is not None
    claim = registry.claim("w", 1e9, 1900)
    assert claim is not None
    assert claim.partial_reason == reason


def test_an_object_in_dispute_holds_a_study_open_until_the_cap(registry: Registry) -> None:
    registry.record_arrivals([arrival(1), arrival(1, content="other")])
    assert registry.close_quiet(quiet_since=1e6, opened_before=99, at=1e6) == []
    [(closed, reason)] = registry.close_quiet(quiet_since=1e6, opened_before=100, at=1e6)
    assert (closed, reason) == (STUDY, CLOSED_BY_CAP)


def test_a_clock_that_was_set_back_holds_no_study_open(registry: Registry) -> None:
    registry.record_arrivals([arrival(1, at=5000)])
    assert registry.close_quiet(quiet_since=1000 - 30, opened_before=0, at=1000) == []
    assert registry.close_quiet(quiet_since=1030 - 30, opened_before=0, at=1030) == [(STUDY, None)]


def test_the_queue_is_ordered_by_urgency_then_age(registry: Registry) -> None:
    complete(registry, "1.1", at=100)
    complete(registry, "1.2", at=200)
    complete(registry, "1.3", at=300, urgent=True)
    taken = [registry.claim("w", 1e9, 400) for _ in range(4)]
    assert [claim.study_instance_uid if claim else None for claim in taken] == ["1.3", "1.1", "1.2", None]


def test_a_claim_names_all_current_images_and_who_sent_them(registry: Registry) -> None:
    first, second = arrival(1), arrival(2, calling_ae="MR2")
    registry.record_arrivals([first, second, arrival(3, sop_class_uid=SR, image=False)])
    registry.close_quiet(100, 0, 130)
    claim = registry.claim("w", 1e9, 130)
    assert claim is not None
    assert dict(claim.images) == {
        first.sop_instance_uid: first.path,
        second.sop_instance_uid: second.path,
    }
    assert claim.calling_aes == ("MR2", "PACS")


def test_only_the_owner_may_finish(registry: Registry) -> None:
    complete(registry)
    claim = registry.claim("first", 150, 140)
    assert claim is not None
    assert registry.reclaim_expired(at=181, max_attempts=3) == [STUDY]
    assert registry.claim("second", 1e9, 182) is not None
    with pytest.raises(LostClaim):
        registry.finish_reported(claim, report(), handover(), 160)
    assert state(registry) == "running"


def test_a_late_image_makes_a_new_revision_and_the_old_run_is_void(registry: Registry) -> None:
    complete(registry)
    claim = registry.claim("w", 1e9, 140)
    assert claim is not None
    registry.record_arrivals([arrival(2, at=145)])
    assert state(registry) == "receiving"
    with pytest.raises(LostClaim):
        registry.finish_reported(claim, report(), handover(), 160)
    registry.close_quiet(150, 0, 180)
    again = registry.claim("w", 1e9, 181)
    assert again is not None
    assert again.revision == 2
    assert len(again.images) == 2


def test_a_revision_knows_its_predecessor(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a")
    assert registry.predecessors(STUDY, 1) == ()
    registry.record_arrivals([arrival(2, at=500)])
    assert registry.predecessors(STUDY, 2) == ((report().sop_instance_uid, report().series_instance_uid, SR),)


def test_an_image_for_a_waiting_study_needs_no_new_revision(registry: Registry) -> None:
    complete(registry)
    registry.record_arrivals([arrival(2, at=140)])
    found = registry.study("1.2.3")
    assert found is not None
    assert (found.state, found.revision) == ("receiving", 1)


def test_the_same_bytes_again_change_nothing(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry)
    registry.record_arrivals([arrival(1, at=500)])
    assert state(registry) == "reported"
    assert registry.standings(STUDY) == {"current": 1}


def test_non_images_never_reopen_a_study(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry)
    registry.record_arrivals([arrival(7, at=500, sop_class_uid=SR, image=False)])
    assert state(registry) == "reported"


def test_other_bytes_under_a_known_uid_are_disputed_until_settled(registry: Registry) -> None:
    first, second = arrival(1), arrival(1, content="other")
    registry.record_arrivals([first, second])
    assert registry.disputed() == [(second.path, first.path)]
    assert registry.close_quiet(200, 0, 200) == []
    registry.settle(second.path, Verdict.QUARANTINED)
    assert registry.disputed() == []
    assert registry.close_quiet(200, 0, 200) == [(STUDY, None)]
    assert registry.standings(STUDY) == {"current": 1, "quarantined": 1}


def test_a_disputed_object_takes_the_place_of_a_lost_one(registry: Registry) -> None:
    first, second = arrival(1), arrival(1, content="other")
    registry.record_arrivals([first, second])
    registry.mark_lost([first.path], 150)
    assert registry.standings(STUDY) == {"lost": 1, "current": 1}
    assert registry.close_quiet(200, 0, 200) == [(STUDY, None)]


def test_another_image_of_the_same_uid_in_another_file_heals_no_loss_twice(registry: Registry) -> None:
    first, second = arrival(1), arrival(1, content="other")
    registry.record_arrivals([first, second])
    registry.mark_lost([first.path], 150)
    registry.record_arrivals([first])
    assert registry.standings(STUDY) == {"disputed": 1, "current": 1}
    assert registry.disputed() == [(first.path, second.path)]


def test_a_promoted_object_reopens_its_finished_study(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry)
    registry.record_arrivals([arrival(1, content="other", at=500)])
    registry.mark_lost([arrival(1).path], 600)
    found = registry.study("1.2.3")
    assert found is not None
    assert (found.state, found.revision) == ("receiving", 2)


def test_a_lost_object_that_is_no_evidence_makes_nothing_partial(registry: Registry) -> None:
    document, copy = arrival(2, image=False, sop_class_uid=SR), arrival(1, digest=arrival(1).digest, path="copy.dcm")
    registry.record_arrivals([arrival(1), copy, document])
    registry.mark_lost([document.path, copy.path], 150)
    registry.close_quiet(200, 0, 200)
    claim = registry.claim("w", 1e9, 201)
    assert claim is not None
    assert claim.partial_reason is None


def test_a_copy_takes_the_place_of_a_lost_file(registry: Registry) -> None:
    copy = arrival(1, content="other")
    registry.record_arrivals([arrival(1), copy])
    registry.settle(copy.path, Verdict.DUPLICATE)
    registry.mark_lost([arrival(1).path], 150)
    assert registry.standings(STUDY) == {"lost": 1, "current": 1}
    registry.close_quiet(200, 0, 200)
    claim = registry.claim("w", 1e9, 201)
    assert claim is not None
    assert ([path for _, path in claim.images], claim.partial_reason) == ([copy.path], None)


def test_images_that_are_on_record_under_another_study_make_the_result_partial(registry: Registry) -> None:
    again = arrival(1, study="1.9", sop_instance_uid=arrival(1).sop_instance_uid, content="other")
    registry.record_arrivals([arrival(1)])
    registry.record_arrivals([again, arrival(2, study="1.9")])
    registry.settle(again.path, Verdict.CORRECTION)
    registry.close_quiet(200, 0, 200)
    claims = [registry.claim("w", 1e9, 201) for _ in range(2)]
    reasons = {claim.study_instance_uid: claim.partial_reason for claim in claims if claim}
    assert reasons == {"1.2.3": None, "1.9": IMAGES_ELSEWHERE}


def test_a_clock_that_was_set_back_postpones_nothing_for_long(registry: Registry) -> None:
    complete(registry, at=1e8)
    claim = registry.claim("w", 1e8 + 60, 1e8)
    assert claim is not None
    assert registry.reclaim_expired(at=1000, max_attempts=3) == [STUDY]
    run_and_report(registry, "1.2.3", "a")
    delivery = registry.claim_delivery("o", "a", 1.00006e06, 1e6)
    assert delivery is not None
    registry.postpone(delivery, "down", 1e8)
    assert registry.claim_delivery("o", "a", 1060, 1000) is not None


def test_a_report_that_may_not_leave_does_not_hold_up_its_successor(registry: Registry) -> None:
    complete(registry)
    claim = registry.claim("w", 1e9, 300)
    assert claim is not None
    registry.finish_reported(
        claim, replace(report(), model=replace(MODEL, training_state="phantom")), handover("a"), 400
    )
    registry.record_arrivals([arrival(2, at=500)])
    registry.close_quiet(500, 0, 530)
    assert registry.predecessors(STUDY, 2) == ()
    assert registry.predecessors(STUDY, 2, clinical_only=False) != ()
    run_and_report(registry, "1.2.3", "a")
    delivery = registry.claim_delivery("o", "a", 660, 600)
    assert delivery is not None
    assert registry.delivered(delivery, 610)


def test_a_study_that_ended_for_another_reason_keeps_its_earlier_report_on_its_way(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a")
    registry.record_arrivals([arrival(2, at=500)])
    registry.close_quiet(500, 0, 530)
    claim = registry.claim("w", 1e9, 540)
    assert claim is not None
    registry.finish_dead(claim, "AccessionNumber is unusable", 550)
    assert registry.claim_delivery("o", "a", 660, 600) is not None


def test_a_quarantined_image_makes_the_result_partial(registry: Registry) -> None:
    registry.record_arrivals([arrival(1), arrival(1, content="other")])
    registry.settle(arrival(1, content="other").path, Verdict.QUARANTINED)
    registry.close_quiet(200, 0, 200)
    claim = registry.claim("w", 1e9, 201)
    assert claim is not None
    assert claim.partial_reason == IMAGES_QUARANTINED


def test_why_series_were_set_aside_is_kept_and_counted(registry: Registry) -> None:
    complete(registry)
    claim = registry.claim("w", 1e9, 140)
    assert claim is not None
    registry.finish_out_of_scope(claim, "too few series", 150, ["localiser", "localiser", "projection"])
    found = registry.study("1.2.3")
    assert found is not None
    assert found.set_aside == ({"reason": "localiser", "series": 2}, {"reason": "projection", "series": 1})


def test_company_for_a_held_study_is_untried(registry: Registry) -> None:
    complete(registry)
    registry.claim("w-1", 150, 140)
    registry.reclaim_dead("w-", 141, max_attempts=3)
    assert registry.claim("w-2", 1e9, 142, untried=True) is None
    assert registry.claim("w-2", 1e9, 142) is not None


def test_two_patients_under_one_study_end_it_without_a_report(registry: Registry) -> None:
    registry.record_arrivals([arrival(1, patient_key="p:n:"), arrival(2, patient_key="q:n:")])
    assert state(registry) == "dead"
    registry.record_arrivals([arrival(3, patient_key="p:n:", at=200)])
    assert state(registry) == "dead"
    assert registry.claim("w", 1e9, 300) is None


def test_a_study_of_two_patients_cannot_be_retried(registry: Registry) -> None:
    registry.record_arrivals([arrival(1, patient_key="p:n:"), arrival(2, patient_key="q:n:")])
    with pytest.raises(PermanentError, match="two patients"):
        registry.retry(STUDY, 300)
    registry.mark_lost([arrival(2).path], 310)
    assert registry.retry(STUDY, 320) == Retried(queued=True)


def test_a_held_result_is_made_anew_as_a_revision_when_a_person_asks(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry)
    assert registry.retry(STUDY, 500) == Retried(queued=True)
    found = registry.study("1.2.3")
    assert found is not None
    assert (found.state, found.revision) == ("complete", 2)
    run_and_report(registry, "1.2.3", "a")
    assert registry.predecessors(STUDY, 2) == (), "the held report never left the node"


def test_what_is_delivered_or_waits_is_not_retried(registry: Registry) -> None:
    complete(registry)
    assert registry.retry(STUDY, 200) == Retried()
    run_and_report(registry, "1.2.3", "a")
    delivery = registry.claim_delivery("o", "a", 560, 500)
    assert delivery is not None
    registry.delivered(delivery, 510)
    assert registry.retry(STUDY, 600) == Retried()


def test_a_superseded_report_is_not_sent_after_its_successor(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a")
    old = registry.claim_delivery("o", "a", 560, 500)
    assert old is not None
    registry.set_aside(old, "refused")
    registry.record_arrivals([arrival(2, at=600)])
    registry.close_quiet(600, 0, 630)
    run_and_report(registry, "1.2.3", "a")
    assert registry.predecessors(STUDY, 2) != (), "the refused report may be there"
    new = registry.claim_delivery("o", "a", 760, 700)
    assert new is not None
    registry.set_aside(new, "refused")
    assert registry.retry(STUDY, 800) == Retried(deliveries=1)
    again = registry.claim_delivery("o", "a", 860, 800)
    assert again is not None
    assert again.id == new.id


def test_a_missing_part_of_the_identity_contradicts_nothing(registry: Registry) -> None:
    registry.record_arrivals([arrival(1, patient_key="p::"), arrival(2, patient_key="p:n:b"), arrival(3)])
    assert state(registry) == "receiving"
    registry.record_arrivals([arrival(4, patient_key="p:other:b")])
    assert state(registry) == "dead"


def test_attempts_end_in_dead_and_a_person_can_start_over(registry: Registry) -> None:
    complete(registry)
    for _ in range(2):
        assert registry.claim("w-1", 150, 140) is not None
        registry.reclaim_dead("w-", 141, max_attempts=2)
    assert state(registry) == "dead"
    assert registry.retry(STUDY, 500) == Retried(queued=True)
    claim = registry.claim("w-2", 1e9, 501)
    assert claim is not None
    assert claim.attempts == 1


def test_what_is_not_the_studys_fault_does_not_count_as_an_attempt(registry: Registry) -> None:
    complete(registry)
    claim = registry.claim("w", 1e9, 140)
    assert claim is not None
    registry.finish_failed(claim, "disk full", retry_at=200, at=150, counts=False)
    claim = registry.claim("w", 1e9, 200)
    assert claim is not None
    assert claim.attempts == 1


def test_some_of_what_is_held_can_be_given_back(registry: Registry) -> None:
    complete(registry, "1.1", at=100)
    complete(registry, "1.2", at=200)
    claims = [registry.claim("w", 1e9, 300) for _ in range(2)]
    assert [registry.give_back("w", 310, [claim.study_id]) for claim in claims[1:] if claim] == [[study_id("1.2")]]
    assert (state(registry, "1.1"), state(registry, "1.2")) == ("running", "complete")


def test_giving_back_does_not_count_as_an_attempt(registry: Registry) -> None:
    complete(registry)
    registry.claim("w", 1e9, 140)
    assert registry.give_back("w", 150) == [STUDY]
    claim = registry.claim("w", 1e9, 160)
    assert claim is not None
    assert claim.attempts == 1


def test_a_failed_study_is_tried_again_when_its_time_has_come(registry: Registry) -> None:
    complete(registry)
    claim = registry.claim("w", 1e9, 140)
    assert claim is not None
    registry.finish_failed(claim, "disk full", retry_at=200, at=150)
    assert registry.claim("w", 1e9, 199) is None
    assert registry.claim("w", 1e9, 200) is not None


def test_a_lost_file_makes_the_result_partial_and_its_return_heals_it(registry: Registry) -> None:
    registry.record_arrivals([arrival(1), arrival(2)])
    registry.mark_lost([arrival(2).path], 150)
    assert list(registry.known_paths()) == [arrival(1).path]
    registry.close_quiet(200, 0, 200)
    claim = registry.claim("w", 1e9, 201)
    assert claim is not None
    assert claim.partial_reason is not None
    registry.give_back("w", 202)
    registry.record_arrivals([arrival(2)])
    assert registry.standings(STUDY) == {"current": 2}


def test_a_study_is_delivered_when_every_destination_has_it(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a", "b")
    first = registry.claim_delivery("o", "a", 560, 500)
    second = registry.claim_delivery("o", "b", 560, 500)
    assert first is not None
    assert second is not None
    assert registry.claim_delivery("o", "a", 560, 500) is None
    assert not registry.delivered(first, 510)
    assert registry.delivered(second, 511)
    assert state(registry) == "delivered"


def test_a_postponed_delivery_waits_and_a_refused_one_needs_a_person(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a")
    delivery = registry.claim_delivery("o", "a", 560, 500)
    assert delivery is not None
    registry.postpone(delivery, "down", 600)
    assert registry.claim_delivery("o", "a", 659, 599) is None
    delivery = registry.claim_delivery("o", "a", 660, 600)
    assert delivery is not None
    assert delivery.attempts == 2
    registry.set_aside(delivery, "refused")
    assert registry.claim_delivery("o", "a", 1.00006e06, 1e6) is None
    assert registry.retry(STUDY, 700) == Retried(deliveries=1)
    assert registry.claim_delivery("o", "a", 760, 700) is not None


def test_reports_of_one_study_reach_a_destination_in_order(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a")
    first = registry.claim_delivery("o", "a", 560, 500)
    assert first is not None
    registry.postpone(first, "down", 1000)
    complete_again = arrival(2, at=500)
    registry.record_arrivals([complete_again])
    registry.close_quiet(500, 0, 530)
    run_and_report(registry, "1.2.3", "a")
    assert registry.claim_delivery("o", "a", 660, 600) is None
    first = registry.claim_delivery("o", "a", 1060, 1000)
    assert first is not None
    assert not registry.delivered(first, 1001)
    second = registry.claim_delivery("o", "a", 1062, 1002)
    assert second is not None
    assert registry.delivered(second, 1003)


def test_a_report_of_a_study_that_became_dead_is_not_sent(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a")
    registry.record_arrivals([arrival(2, at=500, patient_key="someone else::")])
    assert state(registry) == "dead"
    assert registry.claim_delivery("o", "a", 660, 600) is None


def test_what_a_model_made_that_is_not_clinical_waits_for_permission(registry: Registry) -> None:
    complete(registry)
    claim = registry.claim("w", 1e9, 300)
    assert claim is not None
    made = replace(report(), model=replace(MODEL, training_state="phantom"))
    registry.finish_reported(claim, made, handover("a"), 400)
    assert registry.claim_delivery("o", "a", 560, 500) is None
    registry.note_held("held: its model is not clinical")
    found = registry.study("1.2.3")
    assert found is not None
    assert found.deliveries[0].last_error == "held: its model is not clinical"
    assert registry.claim_delivery("o", "a", 560, 500, clinical_only=False) is not None


def test_a_database_describes_one_storage_folder(registry: Registry) -> None:
    assert registry.describes("first") == "first"
    assert registry.describes("second") == "first"


def test_the_longest_wait_is_that_of_a_study_that_waits(registry: Registry) -> None:
    assert registry.waiting_since() is None
    complete(registry, "1.1", at=100)
    complete(registry, "1.2", at=200)
    registry.claim("w", 1e9, 300)
    assert registry.waiting_since() == 230


def test_a_pause_holds_one_destination_or_all(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a", "b")
    registry.pause("a", 1)
    assert registry.claim_delivery("o", "a", 560, 500) is None
    assert registry.claim_delivery("o", "b", 560, 500) is not None
    registry.resume("a")
    registry.pause(None, 2)
    assert registry.paused() == ["*"]
    assert registry.claim_delivery("o", "a", 560, 500) is None
    registry.resume(None)
    assert registry.claim_delivery("o", "a", 560, 500) is not None


def test_a_sender_that_died_leaves_nothing_behind(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry, "1.2.3", "a")
    assert registry.claim_delivery("node-outbox-1", "a", 560, 500) is not None
    registry.return_deliveries("node-outbox-")
    assert registry.claim_delivery("node-outbox-2", "a", 560, 500) is not None


def test_every_change_of_state_leaves_an_event(registry: Registry) -> None:
    complete(registry)
    run_and_report(registry)
    assert [event.to_state for event in registry.history(STUDY)] == ["receiving", "complete", "running", "reported"]


def test_an_unknown_transition_is_an_error_in_the_program(registry: Registry) -> None:
    complete(registry)
    with registry._write() as connection, pytest.raises(ValueError, match="no transition"):
        move(connection, STUDY, [StudyState.COMPLETE], StudyState.DELIVERED, 1.0)
    assert set(ALLOWED) == set(StudyState)


def test_writes_are_atomic(registry: Registry) -> None:
    broken = arrival(2, digest=None)
    with pytest.raises(sa.exc.IntegrityError):
        registry.record_arrivals([arrival(1), broken])
    with registry._read() as connection:
        assert connection.execute(sa.select(studies)).all() == []
