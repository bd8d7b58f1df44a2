"""Corrected, rejected and expired images in the registry: what stops, what is taken back, and what is told whom."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from dicom_node.base.errors import LostClaim, PermanentError
from dicom_node.base.orders import Handover, Outcome, Patient, PriorityChange
from dicom_node.base.sent import NotedObject
from dicom_node.base.types import Arrival, KeyObjects, Level, Rejection, ToSend, Verdict, Withdrawal, study_id
from dicom_node.jobs.claims import IMAGES_EXPIRED, IMAGES_UNCORRECTED
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.rejections import KEY_OBJECT_SELECTION, OTHER_PATIENT, OTHER_STUDY, UNREADABLE, Applied
from dicom_node.jobs.tables import deliveries, instances, results
from dicom_node.jobs.transitions import TWO_PATIENTS
from prima_core.base.patient import patient_key_of
from support.orders import ACCESSION, KEY, MANAGER, PATIENT, RIS, finish, order, placed, tell
from support.studies import arrival, handover, report

STUDY = study_id("1.2.3")
OTHER = Patient("P2", name="Roe^Joan", birth_date="19800202", sex="F")
RIGHT = {"patient_key": patient_key_of("P2", "Roe^Joan", "19800202"), "accession_number": "A2"}
WRONG = {"patient_key": KEY, "accession_number": ACCESSION}
LATE = 1e6


def image(number: int, at: float = 100.0, content: str = "", **identity: Any) -> Arrival:
    return arrival(number, at=at, content=content, **(WRONG | identity))


def right(number: int, at: float = 500.0) -> Arrival:
    return image(number, at, "corrected", **RIGHT)


def reported(registry: Registry, *images: Arrival, to: tuple[str, ...] = ("pacs",)) -> None:
    """A study with these images and a result for these destinations, not yet sent."""
    registry.record_arrivals(images)
    assert registry.close_quiet(LATE, 0, 200)
    claim = registry.claim("w", 1e9, 210)
    assert claim is not None
    registry.finish_reported(claim, report("1.2.3", claim.revision), handover(*to), 220)


def sent(registry: Registry, destination: str = "pacs") -> list[tuple[str, str | None]]:
    """Everything that is due to be sent there, in order, as kind and path."""
    found = []
    while delivery := registry.claim_delivery("o", destination, 1.00006e06, LATE, clinical_only=False):
        found.append((delivery.kind, delivery.path))
        registry.delivered(delivery, 300)
    return found


def settle(registry: Registry, verdict: Verdict = Verdict.CORRECTION) -> None:
    while disputed := registry.disputed():
        for path, first in disputed:
            registry.settle(path, verdict, first)


def note(registry: Registry, what: Rejection | None, *numbers: int, at: float = 600.0, **changes: Any) -> Applied:
    """A Key Object Selection of these images arrives and is examined."""
    study = changes.pop("of", "1.2.3")
    values = WRONG | {"sop_class_uid": KEY_OBJECT_SELECTION, "image": False} | changes
    came = arrival(int(at), at=at, **values)
    registry.record_arrivals([came])
    assert registry.unexamined_notes() == [came.path]
    places = tuple((study, f"{study}.1", f"{study}.1.{number}") for number in numbers)
    applied = registry.apply_note(came.path, KeyObjects(what, places), at)
    assert applied is not None
    assert registry.apply_note(came.path, KeyObjects(what, places), at) is None, "each is examined once"
    return applied


def run_again(registry: Registry) -> Any:
    assert registry.close_quiet(LATE, 0, 700)
    claim = registry.claim("w", 1e9, 710)
    assert claim is not None
    return claim


def state(registry: Registry) -> tuple[str, int]:
    found = registry.study(STUDY)
    assert found is not None
    return found.state, found.revision


def withdrawn(registry: Registry) -> list[tuple[int, str]]:
    with registry._read() as connection:
        rows = connection.execute(sa.select(results).order_by(results.c.revision)).all()
    return [(row.revision, row.withdrawn_as) for row in rows if row.withdrawn_at is not None]


def test_a_corrected_patient_withdraws_what_was_sent_and_only_corrected_images_count(registry: Registry) -> None:
    reported(registry, image(1), image(2), image(3))
    assert sent(registry) == [("sr", "report.dcm")]
    registry.record_arrivals([right(1), right(2)])
    settle(registry)
    assert withdrawn(registry) == [(1, Rejection.WORKLIST)]
    assert state(registry) == ("receiving", 2)
    claim = run_again(registry)
    assert [path for _, path in claim.images] == sorted([right(1).path, right(2).path])
    assert sorted(claim.corrected) == sorted([right(1).path, right(2).path])
    assert claim.partial_reason == IMAGES_UNCORRECTED
    registry.finish_reported(claim, report("1.2.3", 2), handover("pacs"), 720)
    assert [uid for uid, _, _ in registry.predecessors(STUDY, 2)] == [report("1.2.3", 1).sop_instance_uid]
    registry.record_arrivals([right(3, 800)])
    settle(registry)
    assert withdrawn(registry) == [(1, Rejection.WORKLIST)], "the second result was true, only not whole"
    claim = run_again(registry)
    assert (len(claim.images), claim.partial_reason, claim.revision) == (3, None, 3)


def test_corrected_labels_run_the_study_again_and_withdraw_nothing(registry: Registry) -> None:
    reported(registry, image(1), image(2))
    registry.record_arrivals([image(1, 500, "relabelled")])
    settle(registry)
    assert withdrawn(registry) == []
    claim = run_again(registry)
    assert (claim.revision, len(claim.images), claim.partial_reason) == (2, 2, None)
    assert claim.corrected == (image(1, 500, "relabelled").path,)


def test_a_number_that_was_missing_makes_nothing_wrong(registry: Registry) -> None:
    reported(registry, image(1, accession_number=""))
    registry.record_arrivals([image(1, 500, "numbered")])
    settle(registry)
    assert withdrawn(registry) == []
    assert state(registry) == ("receiving", 2)


def test_new_images_of_the_corrected_patient_may_come_before_the_corrections(registry: Registry) -> None:
    reported(registry, image(1))
    registry.record_arrivals([right(2)])
    assert state(registry) == ("dead", 1)
    assert withdrawn(registry) == [(1, Rejection.SAFETY)], "until more is known, two people's images are in one study"
    registry.record_arrivals([right(1)])
    settle(registry)
    assert state(registry) == ("receiving", 2)
    assert len(run_again(registry).images) == 2


def test_a_late_image_under_the_old_identity_does_not_count_and_ends_nothing(registry: Registry) -> None:
    reported(registry, image(1))
    registry.record_arrivals([right(1)])
    settle(registry)
    registry.finish_reported(run_again(registry), report("1.2.3", 2), handover("pacs"), 720)
    registry.record_arrivals([image(9, 900)])
    assert state(registry) == ("reported", 2)
    assert registry.standings(STUDY) == {"superseded": 1, "current": 1, "uncorrected": 1}


def test_the_old_version_again_changes_nothing(registry: Registry) -> None:
    reported(registry, image(1))
    registry.record_arrivals([right(1)])
    settle(registry)
    registry.record_arrivals([image(1, 2000)])
    settle(registry)
    assert registry.standings(STUDY) == {"superseded": 1, "current": 1}
    assert [path for _, path in run_again(registry).images] == [right(1).path]


def test_copies_of_a_superseded_version_never_take_its_place(registry: Registry) -> None:
    registry.record_arrivals([image(1), image(1, 150, "compressed")])
    settle(registry, Verdict.DUPLICATE)
    registry.record_arrivals([right(1)])
    settle(registry)
    registry.mark_lost([right(1).path], 900)
    assert registry.standings(STUDY) == {"superseded": 2, "lost": 1}


def test_a_verdict_about_another_first_object_is_asked_for_again(registry: Registry) -> None:
    registry.record_arrivals([image(1), right(1), image(1, 510, "compressed")])
    settle_first = registry.disputed()
    registry.settle(settle_first[0][0], Verdict.CORRECTION, settle_first[0][1])
    registry.settle(settle_first[1][0], Verdict.DUPLICATE, settle_first[1][1])
    assert [path for path, _ in registry.disputed()] == [image(1, 510, "compressed").path]


def test_a_correction_under_another_study_is_noted_as_before(registry: Registry) -> None:
    reported(registry, image(1))
    moved = arrival(1, study="9.9", at=500, content="moved", sop_instance_uid="1.2.3.1.1", **RIGHT)
    registry.record_arrivals([moved])
    settle(registry)
    assert registry.standings(study_id("9.9")) == {"correction": 1}
    assert withdrawn(registry) == []


def test_a_second_patient_stops_and_withdraws_the_result(registry: Registry) -> None:
    reported(registry, image(1), to=("pacs", "away"))
    assert sent(registry) == [("sr", "report.dcm")]
    registry.record_arrivals([image(2, 500, patient_key=RIGHT["patient_key"])])
    found = registry.study(STUDY)
    assert found is not None
    assert (found.state, found.reason) == ("dead", TWO_PATIENTS)
    [due] = registry.withdrawals_due()
    assert (due.rejection, due.objects) == (Rejection.SAFETY, (("pacs", ("report.dcm",)),))
    assert registry.complete_withdrawal(due, {"pacs": "note.dcm"}, {}, 550)
    assert sent(registry) == [("reject", "note.dcm")], "what takes it back leaves even then"
    assert sent(registry, "away") == [], "it never got there"


@pytest.mark.parametrize("first", ["note", "images"])
def test_rejected_images_do_not_count_whenever_the_note_comes(registry: Registry, first: str) -> None:
    if first == "images":
        reported(registry, image(1), image(2))
        applied = note(registry, Rejection.QUALITY, 1)
        assert (applied.images, applied.ignored) == (1, "")
        assert withdrawn(registry) == [(1, Rejection.QUALITY)]
    else:
        note(registry, Rejection.QUALITY, 1, at=50.0)
        registry.record_arrivals([image(1), image(2)])
    registry.record_arrivals([image(1, 650)])
    claim = run_again(registry)
    assert ([path for _, path in claim.images], claim.partial_reason) == ([image(2).path], None)
    assert registry.standings(STUDY) == {"rejected": 1, "current": 1, "other": 1}


def test_nothing_left_ends_without_a_result(registry: Registry) -> None:
    reported(registry, image(1))
    note(registry, Rejection.SAFETY, 1)
    claim = run_again(registry)
    assert (claim.images, claim.revision) == ((), 2)
    registry.finish_out_of_scope(claim, "nothing is left", 720)
    assert state(registry) == ("out_of_scope", 2)
    assert withdrawn(registry) == [(1, Rejection.SAFETY)]


@pytest.mark.parametrize("what", list(Rejection))
def test_a_note_that_names_nobody_rejects_nothing(registry: Registry, what: Rejection) -> None:
    reported(registry, image(1))
    assert note(registry, what, 1, patient_key="", accession_number="").ignored == OTHER_PATIENT
    assert (state(registry), withdrawn(registry), registry.expired_files()[:0]) == (("reported", 1), [], [])
    registry.record_arrivals([image(1, at=700.0, content="again")])
    assert registry.study(STUDY) is not None
    assert registry.standings(STUDY)["current"] == 1


def test_another_patients_note_says_nothing_of_the_nodes_own_report(registry: Registry) -> None:
    reported(registry, image(1))
    study = registry.study(STUDY)
    assert study is not None
    own = (("1.2.3", "2.25.9", study.report_uid or ""),)
    for number, (key, noted) in enumerate(((RIGHT["patient_key"], 0), (KEY, 1))):
        came = arrival(
            600 + number, at=600.0 + number, patient_key=key, sop_class_uid=KEY_OBJECT_SELECTION, image=False
        )
        registry.record_arrivals([came])
        applied = registry.apply_note(came.path, KeyObjects(Rejection.SAFETY, own), 600.0)
        assert applied is not None
        assert applied.reports == noted


def test_a_note_counts_for_its_own_patient_and_study_alone(registry: Registry) -> None:
    reported(registry, image(1))
    assert note(registry, Rejection.QUALITY, 1, **RIGHT).ignored == OTHER_PATIENT
    elsewhere = note(registry, Rejection.QUALITY, 1, at=601.0, of="9.9")
    assert (elsewhere.ignored, elsewhere.images) == (OTHER_STUDY, 0)
    assert note(registry, None, 1, at=602.0).rejection is None
    assert (state(registry), withdrawn(registry)) == (("reported", 1), [])


def test_a_rejection_under_the_wrong_patient_leaves_the_corrected_images_alone(registry: Registry) -> None:
    reported(registry, image(1))
    note(registry, Rejection.WORKLIST, 1)
    registry.record_arrivals([right(1, 700)])
    settle(registry)
    assert registry.standings(STUDY) == {"superseded": 1, "current": 1, "other": 1}


def test_a_rejection_that_leaves_one_patient_brings_a_study_back(registry: Registry) -> None:
    registry.record_arrivals([image(1), image(2, 110, **RIGHT)])
    assert state(registry)[0] == "dead"
    note(registry, Rejection.WORKLIST, 2, **RIGHT)
    assert state(registry)[0] == "receiving"
    assert [path for _, path in run_again(registry).images] == [image(1).path]


def test_a_study_waits_for_a_note_that_nobody_has_read(registry: Registry) -> None:
    registry.record_arrivals([image(1), arrival(7, sop_class_uid=KEY_OBJECT_SELECTION, image=False, **WRONG)])
    assert registry.close_quiet(LATE, 0, LATE) == []
    [path] = registry.unexamined_notes()
    applied = registry.apply_note(path, None, 300)
    assert applied == Applied(STUDY, None, ignored=UNREADABLE)
    assert registry.close_quiet(LATE, 0, LATE) == [(STUDY, None)]


@pytest.mark.parametrize("cause", ["correction", "rejection", "second patient"])
def test_a_worker_that_finishes_meanwhile_has_lost_its_claim(registry: Registry, cause: str) -> None:
    registry.record_arrivals([image(1)])
    registry.close_quiet(LATE, 0, 200)
    claim = registry.claim("w", 1e9, 210)
    assert claim is not None
    if cause == "correction":
        registry.record_arrivals([right(1)])
        settle(registry)
    elif cause == "rejection":
        note(registry, Rejection.QUALITY, 1)
    else:
        registry.record_arrivals([image(2, 500, **RIGHT)])
    with pytest.raises(LostClaim):
        registry.finish_reported(claim, report(), handover("pacs"), 700)
    assert sent(registry) == []


def test_what_is_being_sent_at_that_moment_is_followed_by_its_rejection_and_never_repeated(registry: Registry) -> None:
    reported(registry, image(1))
    delivery = registry.claim_delivery("o", "pacs", 1.00006e06, 230)
    assert delivery is not None
    note(registry, Rejection.QUALITY, 1)
    [due] = registry.withdrawals_due()
    assert registry.complete_withdrawal(due, {"pacs": "note.dcm"}, {}, 610)
    assert sent(registry) == [], "the note waits for what it names"
    registry.postpone(delivery, "no answer", 620)
    assert sent(registry) == [("reject", "note.dcm")]


def test_a_result_that_never_left_needs_no_note(registry: Registry) -> None:
    reported(registry, image(1))
    assert registry.withdraw(STUDY, Rejection.SAFETY, "tester", 300) == "withdrawn"
    assert registry.withdrawals_due() == []
    assert sent(registry) == []
    registry.record_arrivals([image(2, 400)])
    assert registry.predecessors(STUDY, 2) == (), "nobody has it"


def test_notes_are_queued_once_however_often_the_work_is_repeated(registry: Registry) -> None:
    reported(registry, image(1), to=("one", "two", "three"))
    for destination in ("one", "two", "three"):
        sent(registry, destination)
    registry.withdraw(STUDY, Rejection.QUALITY, "tester", 300)
    [due] = registry.withdrawals_due()
    assert not registry.complete_withdrawal(due, {"one": "note.dcm"}, {}, 310), "two and three have none yet"
    [rest] = registry.withdrawals_due()
    assert [name for name, _ in rest.objects] == ["two", "three"]
    assert registry.complete_withdrawal(due, {"one": "note.dcm", "two": "note.dcm"}, {"three": "unreadable"}, 320)
    with registry._read() as connection:
        notes = sa.select(deliveries).where(deliveries.c.kind == "reject").order_by(deliveries.c.id)
        rows = connection.execute(notes).all()
    assert [(row.destination, row.path, row.state) for row in rows] == [
        ("one", "note.dcm", "pending"),
        ("two", "note.dcm", "pending"),
        ("three", None, "set_aside"),
    ]
    assert registry.withdrawals_due() == []


def test_every_kind_of_object_that_was_sent_is_named(registry: Registry) -> None:
    registry.record_arrivals([image(1)])
    registry.close_quiet(LATE, 0, 200)
    claim = registry.claim("w", 1e9, 210)
    assert claim is not None
    objects = (ToSend("pacs", "sr", "a.dcm"), ToSend("pacs", "sc", "b.dcm"), ToSend("pacs", "sc", "c.dcm"))
    registry.finish_reported(claim, report(), Handover(objects), 220)
    assert len(sent(registry)) == 3
    note(registry, Rejection.QUALITY, 1)
    [due] = registry.withdrawals_due()
    assert due.objects == (("pacs", ("a.dcm", "b.dcm", "c.dcm")),)


def test_a_person_withdraws_and_may_have_the_study_run_again(registry: Registry) -> None:
    reported(registry, image(1))
    sent(registry)
    assert registry.withdraw(STUDY, Rejection.SAFETY, "tester", 300) == "withdrawn"
    found = registry.study(STUDY)
    assert found is not None
    assert (found.state, found.level, found.findings, found.report_uid) == ("withdrawn", None, (), None)
    assert [(former.revision, former.as_what) for former in found.former] == [(1, Rejection.SAFETY.meaning)]
    assert "tester" in (registry.history(STUDY)[-1].reason or "")
    with pytest.raises(PermanentError):
        registry.withdraw(STUDY, Rejection.SAFETY, "tester", 310)
    assert registry.retry(STUDY, 400).queued
    claim = registry.claim("w", 1e9, 410)
    assert claim is not None
    assert claim.revision == 2
    assert len(registry.predecessors(STUDY, 2)) == 1


def test_a_note_that_was_refused_is_sent_again_when_a_person_asks(registry: Registry) -> None:
    reported(registry, image(1))
    sent(registry)
    registry.withdraw(STUDY, Rejection.SAFETY, "tester", 300)
    [due] = registry.withdrawals_due()
    registry.complete_withdrawal(due, {"pacs": "note.dcm"}, {}, 310)
    delivery = registry.claim_delivery("o", "pacs", 1e9, 320)
    assert delivery is not None
    registry.set_aside(delivery, "the peer does not take it")
    assert registry.retry(STUDY, 400).deliveries == 1
    assert sent(registry) == [("reject", "note.dcm")]


@pytest.mark.parametrize("named", ["the object", "its series"])
def test_the_archives_rejection_of_pages_is_noted_too(registry: Registry, named: str) -> None:
    reported(registry, image(1))
    delivery = registry.claim_delivery("o", "pacs", 1e9, 300)
    assert delivery is not None
    pages = NotedObject("report.dcm", "1.2.840.10008.5.1.4.1.1.7.4", "2.25.50", "2.25.51", b"")
    registry.note_sent(delivery, pages, 300)
    registry.delivered(delivery, 310)
    came = arrival(8, sop_class_uid=KEY_OBJECT_SELECTION, image=False, **WRONG)
    registry.record_arrivals([came])
    reference = ("1.2.3", "2.25.51", "2.25.999") if named == "its series" else ("1.2.3", "2.25.998", "2.25.50")
    applied = registry.apply_note(came.path, KeyObjects(Rejection.QUALITY, (reference,)), 400)
    assert applied is not None
    assert applied.reports == 1
    found = registry.study(STUDY)
    assert found is not None
    assert [former.rejected_at for former in found.former] == [400]


def test_the_archives_rejection_of_the_report_is_noted_and_nothing_is_sent(registry: Registry) -> None:
    reported(registry, image(1))
    sent(registry)
    came = arrival(8, sop_class_uid=KEY_OBJECT_SELECTION, image=False, **WRONG)
    registry.record_arrivals([came])
    of_report = ("1.2.3", report().series_instance_uid, report().sop_instance_uid)
    applied = registry.apply_note(came.path, KeyObjects(Rejection.QUALITY, (of_report,)), 400)
    assert applied is not None
    assert applied.reports == 1
    found = registry.study(STUDY)
    assert found is not None
    [former] = found.former
    assert (former.withdrawn_at, former.rejected_at, former.as_what) == (None, 400, Rejection.QUALITY.meaning)
    assert found.level is not None
    assert (found.state, sent(registry), registry.withdrawals_due()) == ("delivered", [], [])


def test_expired_images_go_and_results_stay(registry: Registry) -> None:
    reported(registry, image(1), image(2))
    sent(registry)
    note(registry, Rejection.RETENTION, 1)
    assert (state(registry), withdrawn(registry)) == (("delivered", 1), [])
    [expired] = registry.expired_files()
    assert expired.paths == (image(1).path,)
    assert image(1).path not in registry.expected_paths()
    registry.files_deleted(expired.note, STUDY, 1, 610)
    assert registry.expired_files() == []
    registry.mark_lost([image(1).path], 620)
    registry.record_arrivals([image(1, 650)])
    assert [one.paths for one in registry.expired_files()] == [(image(1).path,)], "what comes again goes again"
    assert registry.standings(STUDY) == {"expired": 1, "current": 1, "other": 1}
    registry.record_arrivals([image(3, 700)])
    claim = run_again(registry)
    assert (len(claim.images), claim.partial_reason) == (2, IMAGES_EXPIRED)


def test_a_study_of_which_every_image_expired_leaves_no_file(registry: Registry) -> None:
    reported(registry, image(1))
    registry.record_arrivals([image(1, 500, "other image")])
    settle(registry, Verdict.QUARANTINED)
    note(registry, Rejection.RETENTION, 1)
    with registry._read() as connection:
        everything = set(connection.scalars(sa.select(instances.c.path)))
    [expired] = registry.expired_files()
    assert set(expired.paths) == everything
    assert list(registry.expected_paths()) == []


def told(registry: Registry, destination: str = "ris") -> list[PriorityChange]:
    found = []
    while delivery := registry.claim_delivery("o", destination, 1.00006e06, LATE, clinical_only=False):
        assert delivery.change is not None
        found.append(delivery.change)
        registry.delivered(delivery, 250.0, Outcome())
    return found


def raised(registry: Registry) -> None:
    """An urgent result, told to the RIS."""
    tell(registry, placed())
    registry.record_arrivals([image(1)])
    registry.close_quiet(100, 0, 100)
    finish(registry)
    assert [change.level for change in told(registry)] == [Level.URGENT]


def test_the_priority_goes_back_to_the_order_that_was_told_and_the_new_order_is_raised(registry: Registry) -> None:
    raised(registry)
    second = order(patient=OTHER, accession_number="A2", placer_order_number="PL2", filler_order_number="FI2")
    tell(registry, placed(second), at=60)
    registry.record_arrivals([right(1)])
    settle(registry)
    [undo] = told(registry)
    assert (undo.undo, undo.level) == (True, Level.ROUTINE)
    assert undo.order is not None
    assert (undo.order.placer_order_number, undo.order.patient) == ("PL1", PATIENT)
    assert [entry.level for entry in registry.worklist(0, nonclinical=False)] == [Level.ROUTINE]
    registry.close_quiet(LATE, 0, 700)
    finish(registry, at=800)
    [again] = told(registry)
    assert again.order is not None
    assert (again.level, again.order.placer_order_number, again.order.patient) == (Level.URGENT, "PL2", OTHER)


def test_a_withdrawn_result_has_no_findings_on_the_list_and_may_be_raised_again(registry: Registry) -> None:
    raised(registry)
    note(registry, Rejection.QUALITY, 1)
    assert [change.level for change in told(registry)] == [Level.ROUTINE]
    [entry] = registry.worklist(0, nonclinical=False)
    assert (entry.level, entry.findings) == (Level.ROUTINE, ())
    registry.record_arrivals([image(2, 700)])
    registry.close_quiet(LATE, 0, 750)
    finish(registry, at=800)
    assert [change.level for change in told(registry)] == [Level.URGENT]


def test_a_persons_wish_outlives_the_withdrawal(registry: Registry) -> None:
    raised(registry)
    registry.raise_priority(STUDY, Level.CRITICAL, (RIS,), 300)
    assert [change.level for change in told(registry)] == [Level.CRITICAL]
    registry.withdraw(STUDY, Rejection.QUALITY, "tester", 400)
    assert told(registry) == []
    assert [entry.level for entry in registry.worklist(0, nonclinical=False)] == [Level.CRITICAL]


def test_a_flag_that_waits_is_never_sent_and_nothing_needs_undoing(registry: Registry) -> None:
    tell(registry, placed())
    registry.record_arrivals([image(1)])
    registry.close_quiet(100, 0, 100)
    finish(registry)
    registry.withdraw(STUDY, Rejection.QUALITY, "tester", 400)
    assert told(registry) == []
    assert registry.withdrawals_due() == []


def test_a_flag_on_its_way_to_a_manager_is_undone_once_it_is_known_what_it_changed(registry: Registry) -> None:
    registry.record_arrivals([image(1)])
    registry.close_quiet(100, 0, 100)
    finish(registry, told=(MANAGER,))
    delivery = registry.claim_delivery("o", "manager", 1e9, 300)
    assert delivery is not None
    registry.withdraw(STUDY, Rejection.QUALITY, "tester", 400)
    [due] = registry.withdrawals_due()
    assert not registry.complete_withdrawal(due, {}, {}, 410)
    registry.delivered(delivery, 420, Outcome(previous=Level.ELEVATED))
    assert registry.complete_withdrawal(due, {}, {}, 430)
    assert [change.level for change in told(registry, "manager")] == [Level.ELEVATED]


def test_a_withdrawal_names_what_the_registry_says(registry: Registry) -> None:
    reported(registry, image(1))
    sent(registry)
    registry.withdraw(STUDY, Rejection.WORKLIST, "tester", 300)
    reason = f"withdrawn by tester: {Rejection.WORKLIST.meaning}"
    [due] = registry.withdrawals_due()
    made = report()
    known = (made.path, made.sop_class_uid, made.series_instance_uid, made.sop_instance_uid)
    paths = (("pacs", ("report.dcm",)),)
    assert due == Withdrawal(due.result_id, STUDY, Rejection.WORKLIST, reason, 300, paths, known)


@pytest.mark.parametrize("doubt", ["version", "note"])
def test_what_may_correct_or_reject_a_waiting_study_is_judged_before_it_runs(registry: Registry, doubt: str) -> None:
    registry.record_arrivals([image(1)])
    registry.close_quiet(LATE, 0, 600)
    a_note = arrival(7, sop_class_uid=KEY_OBJECT_SELECTION, image=False, **WRONG)
    registry.record_arrivals([right(1) if doubt == "version" else a_note])
    assert registry.claim("w", 1e9, 610) is None
    assert registry.claim("w", 1e9, 1300) is not None, "not for ever"


def test_a_study_in_doubt_runs_once_that_is_settled(registry: Registry) -> None:
    registry.record_arrivals([image(1)])
    registry.close_quiet(LATE, 0, 600)
    registry.record_arrivals([image(1, 605, "compressed")])
    assert registry.claim("w", 1e9, 610) is None
    settle(registry, Verdict.DUPLICATE)
    claim = registry.claim("w", 1e9, 620)
    assert claim is not None
    assert (claim.revision, len(claim.images)) == (1, 1)
