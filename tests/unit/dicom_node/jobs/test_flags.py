"""Who is told which reading priority: never lower than what is known, once, undoable, never of the wrong study."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import (
    Delivery,
    FinalReport,
    Listener,
    Order,
    OrderAction,
    Outcome,
    Patient,
    PatientCorrected,
    PriorityChange,
)
from dicom_node.base.types import Level
from dicom_node.jobs import flags
from dicom_node.jobs.flags import needing
from dicom_node.jobs.orders import NO_ORDER, OTHER_PATIENT, TWO_ORDERS, TWO_STUDIES
from dicom_node.jobs.reading_list import FlagTimes
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.retries import Retried
from support.orders import MANAGER, PATIENT, RIS, STUDY, UID, finish, order, placed, receive, tell

BOUNDS = (79.0, 80.0)
TOP = Listener("ris", "hl7", top_level_if_unknown=True)


def sent(registry: Registry, destination: str = "ris", **outcome: Any) -> list[PriorityChange]:
    """Everything the destination gets now, in order."""
    found = []
    while delivery := registry.claim_delivery("o", destination, 1.00006e06, 1e6, clinical_only=False):
        assert delivery.change is not None
        found.append(delivery.change)
        registry.delivered(delivery, 250.0, Outcome(**outcome))
    return found


def claimed(registry: Registry, destination: str = "ris") -> Delivery:
    delivery = registry.claim_delivery("o", destination, 1.00006e06, 1e6)
    assert delivery is not None
    return delivery


def delivery_state(registry: Registry) -> tuple[str, str | None]:
    found = registry.study(UID)
    assert found is not None
    return found.deliveries[-1].state, found.deliveries[-1].last_error


def note(registry: Registry) -> str:
    return registry.plan_priority(STUDY, 300, nonclinical=False).note


def test_a_result_above_the_orders_priority_is_told_with_what_was_before(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    [change] = sent(registry)
    assert (change.level, change.previous, change.undo) == (Level.URGENT, Level.ROUTINE, False)
    assert change.study_instance_uid == UID
    assert change.order is not None
    assert (change.order.placer_order_number, change.order.filler_order_number) == ("PL1", "FI1")
    assert [finding.meaning for finding in change.findings] == ["Glioma"]
    assert len(change.key) <= 20


@pytest.mark.parametrize("ordered", [Level.URGENT, Level.CRITICAL])
def test_a_priority_that_came_with_the_order_is_never_lowered(registry: Registry, ordered: Level) -> None:
    tell(registry, placed(order(priority=ordered)))
    receive(registry)
    finish(registry, level=Level.URGENT)
    assert sent(registry) == []
    assert note(registry) == flags.NOT_RAISED


def test_without_an_order_nobody_is_told_by_hl7(registry: Registry) -> None:
    receive(registry)
    finish(registry, told=(TOP,), level=Level.CRITICAL)
    assert sent(registry) == []
    assert note(registry) == NO_ORDER


def test_an_order_that_comes_after_the_result_brings_the_flag(registry: Registry) -> None:
    receive(registry)
    finish(registry)
    tell(registry, placed(), at=300)
    assert [change.level for change in sent(registry)] == [Level.URGENT]


@pytest.mark.parametrize(
    ("told", "level", "expected"),
    [(RIS, Level.CRITICAL, 0), (TOP, Level.CRITICAL, 1), (TOP, Level.URGENT, 0)],
)
def test_where_the_present_priority_is_unknown_only_the_top_level_goes_to_who_opted_in(
    registry: Registry, told: Listener, level: Level, expected: int
) -> None:
    tell(registry, placed(order(priority=None, priority_text="ASAP++")))
    receive(registry)
    finish(registry, told=(told,), level=level)
    assert len(sent(registry)) == expected


def test_a_priority_outside_the_tables_makes_the_known_one_unknown(registry: Registry) -> None:
    tell(registry, placed())
    tell(registry, placed(order(priority=None, priority_text="Z9"), OrderAction.CHANGE), at=60)
    receive(registry)
    finish(registry)
    assert sent(registry) == []
    assert note(registry) == flags.UNKNOWN


def test_a_ups_peer_is_told_without_an_order_because_it_says_itself_what_it_has(registry: Registry) -> None:
    receive(registry)
    finish(registry, told=(MANAGER,))
    [change] = sent(registry, "manager", previous=Level.ROUTINE)
    assert (change.order, change.previous) == (None, None)
    plan = registry.undo_priority(STUDY, 400)
    assert plan.change is not None
    assert plan.change.level is Level.ROUTINE, "what the peer said it had before"


def test_a_ups_peer_with_no_step_yet_is_told_again_when_the_order_comes(registry: Registry) -> None:
    receive(registry)
    finish(registry, told=(MANAGER,))
    assert len(sent(registry, "manager", stands=False, words="no step")) == 1
    tell(registry, placed(), at=300)
    assert len(sent(registry, "manager")) == 1


def test_the_same_is_told_once_whatever_comes_again(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    for at in (300, 310):
        tell(registry, placed(order(), OrderAction.CHANGE), at=at)
    assert len(sent(registry)) == 1
    tell(registry, placed(order(priority=Level.URGENT, priority_text="A"), OrderAction.CHANGE), at=320)
    assert sent(registry) == [], "the RIS only repeated what it was told"


def test_a_new_revision_that_asks_for_less_lowers_nothing_and_one_that_asks_for_more_raises(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, level=Level.URGENT)
    receive(registry, at=300)
    finish(registry, level=Level.ELEVATED, at=400)
    receive(registry, at=500)
    finish(registry, level=Level.CRITICAL, at=600)
    changes = sent(registry)
    assert [(change.level, change.previous) for change in changes] == [
        (Level.URGENT, Level.ROUTINE),
        (Level.CRITICAL, Level.URGENT),
    ]


def test_two_studies_of_one_accession_number_move_nothing(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry, "1.2.4", at=90)
    assert registry.claim("other", 1e9, 100) is not None
    receive(registry)
    finish(registry)
    assert sent(registry) == []
    assert note(registry) == TWO_STUDIES


def test_two_orders_of_one_study_move_nothing(registry: Registry) -> None:
    tell(registry, placed(), placed(order(placer_order_number="PL2", filler_order_number="FI2")))
    receive(registry)
    finish(registry)
    assert sent(registry) == []
    assert note(registry) == TWO_ORDERS


def test_an_order_that_names_its_study_is_no_other_studys(registry: Registry) -> None:
    tell(registry, placed(order(study_instance_uid="1.2.99")))
    receive(registry)
    finish(registry)
    assert sent(registry) == []
    assert note(registry) == NO_ORDER


def test_another_patients_order_of_the_same_number_moves_nothing(registry: Registry) -> None:
    tell(registry, placed(order(patient=PATIENT.__class__("P2", name="Roe^Jim", birth_date="19800101"))))
    receive(registry)
    finish(registry)
    assert sent(registry) == []
    assert note(registry) == OTHER_PATIENT


def test_a_cancelled_order_is_no_order(registry: Registry) -> None:
    tell(registry, placed())
    tell(registry, placed(order(), OrderAction.CANCEL), at=60)
    receive(registry)
    finish(registry)
    assert note(registry) == NO_ORDER


def test_a_model_that_is_not_clinical_moves_nothing_unless_the_site_allows_it(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, training_state="phantom")
    assert sent(registry) == []
    assert note(registry) == flags.NOT_CLINICAL
    receive(registry, at=300)
    finish(registry, training_state="phantom", nonclinical=True, at=400)
    assert registry.claim_delivery("o", "ris", 1.00006e06, 1e6) is None, "nor once the permission was withdrawn"
    [change] = sent(registry)
    assert "phantom" in change.marking


def test_undo_restores_what_was_and_the_model_does_not_raise_it_again(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    assert len(sent(registry)) == 1
    registry.undo_priority(STUDY, 300)
    [undo] = sent(registry)
    assert (undo.level, undo.previous, undo.undo) == (Level.ROUTINE, Level.URGENT, True)
    tell(registry, placed(order(), OrderAction.CHANGE), at=400)
    assert sent(registry) == []
    assert note(registry) == flags.UNDONE
    with pytest.raises(PermanentError, match="undone already"):
        registry.undo_priority(STUDY, 500)


def test_undo_of_what_was_not_sent_yet_stops_it(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    assert registry.undo_priority(STUDY, 300).listeners == ()
    assert sent(registry) == []


def test_undo_follows_what_is_being_sent(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    delivery = claimed(registry)
    assert registry.undo_priority(STUDY, 300).listeners == (Listener("ris", "hl7"),)
    assert registry.claim_delivery("o", "ris", 1.00006e06, 1e6) is None, "in order"
    registry.delivered(delivery, 310)
    undo = claimed(registry)
    assert undo.change is not None
    assert (undo.change.undo, undo.told) == (True, Level.URGENT)


def test_undo_leaves_alone_what_somebody_else_changed_since(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    sent(registry)
    tell(registry, placed(order(priority=Level.CRITICAL, priority_text="S"), OrderAction.CHANGE), at=280)
    assert registry.undo_priority(STUDY, 300).listeners == ()
    assert sent(registry) == []


def test_a_person_raises_and_nobody_lowers(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, level=Level.ELEVATED, told=(RIS, MANAGER))
    plan = registry.raise_priority(STUDY, Level.CRITICAL, (), 300)
    assert plan.change is not None
    assert (plan.change.level, plan.change.previous) == (Level.CRITICAL, Level.ELEVATED)
    with pytest.raises(PermanentError, match="never lowered"):
        registry.raise_priority(STUDY, Level.URGENT, (), 310)
    assert [change.level for change in sent(registry)] == [Level.ELEVATED, Level.CRITICAL]
    assert [change.level for change in sent(registry, "manager")] == [Level.ELEVATED, Level.CRITICAL]


def test_what_the_order_says_meanwhile_is_not_lowered_by_what_waited(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    registry.postpone(claimed(registry), "the RIS is down", 300)
    tell(registry, placed(order(priority=Level.CRITICAL, priority_text="S"), OrderAction.CHANGE), at=280)
    assert sent(registry) == []
    assert delivery_state(registry) == ("withdrawn", flags.OVERTAKEN)


@pytest.mark.parametrize("action", [OrderAction.CANCEL, OrderAction.CHANGE])
def test_what_waited_is_not_sent_to_an_order_that_is_gone_or_says_something_unknown(
    registry: Registry, action: OrderAction
) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    tell(registry, placed(order(priority=None, priority_text="ASAP"), action), at=280)
    assert sent(registry) == []


def test_what_waited_is_not_sent_to_an_order_that_became_another_persons(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    tell(registry, PatientCorrected(Patient("P1", name="Roe^Jim", birth_date="19800101")), at=280)
    assert sent(registry) == []


def test_what_waited_names_the_patient_as_corrected_since(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    tell(registry, PatientCorrected(Patient("P1", sex="M")), at=280)
    [change] = sent(registry)
    assert change.order is not None
    assert change.order.patient.sex == "M"


def test_nothing_is_told_once_the_report_is_final(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    tell(registry, FinalReport(Order(PATIENT, filler_order_number="FI1"), "normal", 270.0), at=280)
    assert sent(registry) == []
    assert note(registry) == flags.FINAL


def test_an_undo_that_waited_leaves_alone_what_somebody_changed_meanwhile(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    sent(registry)
    registry.undo_priority(STUDY, 300)
    tell(registry, placed(order(priority=Level.CRITICAL, priority_text="S"), OrderAction.CHANGE), at=310)
    assert sent(registry) == []


def test_an_undo_gives_each_peer_back_what_it_had_and_nothing_to_one_that_was_not_changed(registry: Registry) -> None:
    other = Listener("other", "ups")
    tell(registry, placed())
    receive(registry)
    finish(registry, told=(RIS, MANAGER, other))
    sent(registry)
    assert len(sent(registry, "manager", previous=Level.ELEVATED)) == 1
    assert len(sent(registry, "other")) == 1, "it had that priority already, and said nothing of a change"
    registry.undo_priority(STUDY, 400)
    assert [change.level for change in sent(registry)] == [Level.ROUTINE]
    assert [change.level for change in sent(registry, "manager")] == [Level.ELEVATED]
    assert sent(registry, "other") == []


def test_an_undone_wish_of_a_person_does_not_silence_the_model(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    registry.raise_priority(STUDY, Level.CRITICAL, (RIS,), 150)
    registry.undo_priority(STUDY, 160)
    finish(registry, level=Level.CRITICAL)
    assert [change.level for change in sent(registry)] == [Level.CRITICAL]


def test_an_undo_says_of_findings_and_marking_what_was_said_before(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, training_state="phantom", nonclinical=True)
    sent(registry)
    registry.undo_priority(STUDY, 300)
    [undo] = sent(registry)
    assert [finding.meaning for finding in undo.findings] == ["Glioma"]
    assert "phantom" in undo.marking


def test_what_no_model_judged_says_nothing_of_findings(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    registry.raise_priority(STUDY, Level.CRITICAL, (RIS,), 150)
    assert [change.judged for change in sent(registry)] == [False]


def test_an_echo_of_what_was_sent_is_no_other_persons_change(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, level=Level.ELEVATED)
    sent(registry)
    tell(registry, placed(order(priority=Level.URGENT, priority_text="A"), OrderAction.CHANGE), at=290)
    registry.undo_priority(STUDY, 300)
    assert [change.level for change in sent(registry)] == [Level.ROUTINE], "elevated went out as A and came back as A"


def test_a_priority_that_became_unknown_is_not_undone(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    sent(registry)
    tell(registry, placed(order(priority=None, priority_text="SUPERSTAT"), OrderAction.CHANGE), at=290)
    assert registry.undo_priority(STUDY, 300).listeners == ()


def test_a_late_image_does_not_take_a_flagged_study_down_the_list(registry: Registry) -> None:
    receive(registry)
    finish(registry, level=Level.CRITICAL, told=())
    receive(registry, at=300)
    [entry] = registry.worklist(0, nonclinical=False)
    assert (entry.level, entry.state) == (Level.CRITICAL, "complete")


def test_a_study_of_two_patients_has_no_level_and_tells_nobody(registry: Registry) -> None:
    receive(registry)
    finish(registry, level=Level.CRITICAL)
    receive(registry, at=300, patient_key="x:y:z")
    tell(registry, placed(), at=400)
    assert sent(registry) == []
    assert [entry.level for entry in registry.worklist(0, nonclinical=False)] == [Level.ROUTINE]


def test_images_that_name_no_patient_have_no_order(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry, patient_key="")
    finish(registry)
    assert sent(registry) == []
    assert note(registry) == OTHER_PATIENT


def test_undoing_a_persons_wish_leaves_the_models_flag(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, level=Level.ELEVATED)
    registry.raise_priority(STUDY, Level.CRITICAL, (), 300)
    sent(registry)
    registry.undo_priority(STUDY, 400)
    assert [change.level for change in sent(registry)] == [Level.ELEVATED]


def test_a_persons_wish_goes_out_whatever_the_model_is_and_says_nothing_in_its_name(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, training_state="phantom")
    registry.raise_priority(STUDY, Level.CRITICAL, (), 300)
    change = claimed(registry).change
    assert change is not None
    assert (change.findings, change.marking, change.judged) == ((), "", False)


def test_a_refused_priority_is_told_again_when_a_person_asks(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    registry.set_aside(claimed(registry), "AE: unknown order")
    assert sent(registry) == []
    assert registry.retry(STUDY, 400) == Retried(deliveries=1)
    assert [change.level for change in sent(registry)] == [Level.URGENT]


def test_a_plan_changes_nothing(registry: Registry) -> None:
    receive(registry)
    finish(registry, told=(RIS, MANAGER))
    sent(registry, "manager")
    before = registry.study(UID)
    plan = registry.plan_priority(STUDY, 300, nonclinical=False)
    assert plan.listeners == (MANAGER,), "told or not"
    assert registry.study(UID) == before


def test_the_first_acknowledgement_ends_the_clock_and_what_came_late_is_counted(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry, at=100)
    finish(registry, told=(RIS, MANAGER))
    assert registry.flag_times(BOUNDS).waiting == 1
    registry.delivered(claimed(registry, "manager"), 180)
    registry.delivered(claimed(registry), 220)
    assert registry.flag_times(BOUNDS) == FlagTimes(((79.0, 0), (80.0, 1)), 1, 80.0, 0, 0)
    registry.note_reading(UID, 170)
    assert registry.flag_times(BOUNDS).too_late == 1


LEVELS = st.sampled_from(list(Level))
MAYBE = st.none() | LEVELS


@given(LEVELS, MAYBE, MAYBE, st.sampled_from([RIS, TOP, MANAGER]), st.booleans())
def test_nobody_is_ever_told_less_than_is_known(
    level: Level, ordered: Level | None, told: Level | None, listener: Listener, has_order: bool
) -> None:
    before = {listener.name: told} if told else {}
    if needing(level, ordered, before, [listener], has_order):
        assert all(level.severity > known.severity for known in (ordered, told) if known is not None)
        assert level is not Level.ROUTINE
        assert listener.kind == "ups" or has_order
