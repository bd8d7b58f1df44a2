"""What HL7 messages do to orders, patients and reports: all of a message or nothing, and a stated end for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import (
    FinalReport,
    Order,
    OrderAction,
    OrderReceived,
    OrderStatus,
    Patient,
    PatientCorrected,
    PatientsMerged,
)
from dicom_node.base.types import Level
from dicom_node.jobs import orders as order_book
from dicom_node.jobs.registry import Registry
from support.orders import ACCESSION, KEY, PATIENT, STUDY, UID, finish, order, placed, receive, tell

ROE = Patient("P2", name="Roe^Jim", birth_date="19800101", sex="M")


def known(registry: Registry, *, accession_number: str = "", **scheduled: str) -> list[Order]:
    equal = {"accession_number": accession_number} if accession_number else {}
    return [one.order for one in registry.orders(equal=equal, **scheduled, nonclinical=False)]


def level(registry: Registry) -> Level | None:
    [one] = registry.orders(equal={}, nonclinical=False)
    return one.level


def test_the_same_bytes_are_one_message_and_say_when_they_took_effect(registry: Registry) -> None:
    first = registry.keep_message(b"MSH|1", "d1", "192.0.2.1", 10)
    assert (registry.keep_message(b"MSH|1", "d1", "192.0.2.1", 20), first.applied) == (first, False)
    registry.apply_message(first.id, (), 30, nonclinical=False)
    assert registry.keep_message(b"MSH|1", "d1", "192.0.2.1", 40).applied


def test_a_change_adds_what_it_says_and_leaves_the_rest(registry: Registry) -> None:
    tell(registry, placed())
    change = Order(Patient("P1"), filler_order_number="FI1", station_ae="MR1", priority_text="")
    tell(registry, placed(change, OrderAction.CHANGE), at=60)
    assert known(registry) == [order(station_ae="MR1")]


@pytest.mark.parametrize("key", ["filler_order_number", "placer_order_number", "accession_number"])
def test_any_one_identifier_finds_the_order(registry: Registry, key: str) -> None:
    tell(registry, placed())
    change = Order(Patient("P1"), **{key: getattr(order(), key)}, modality="MR")
    tell(registry, placed(change, OrderAction.CHANGE), at=60)
    assert [one.modality for one in known(registry)] == ["MR"]


def test_an_order_goes_forward_only_unless_it_is_placed_anew(registry: Registry) -> None:
    tell(registry, placed(order(status=OrderStatus.IN_PROGRESS)))
    tell(registry, placed(order(), OrderAction.CHANGE), at=60)
    assert [one.status for one in known(registry)] == [OrderStatus.IN_PROGRESS]
    tell(registry, placed(order(), OrderAction.NEW), at=70)
    assert [one.status for one in known(registry)] == [OrderStatus.SCHEDULED]
    tell(registry, placed(order(), OrderAction.CANCEL), at=80)
    assert known(registry) == []


def test_an_unknown_order_cannot_be_cancelled(registry: Registry) -> None:
    with pytest.raises(PermanentError, match="none can be cancelled"):
        tell(registry, placed(order(), OrderAction.CANCEL))


def test_an_order_of_another_patient_under_the_same_number_is_refused_whole(registry: Registry) -> None:
    tell(registry, placed())
    other = placed(order(accession_number="A2", placer_order_number="PL2", filler_order_number="FI2"))
    with pytest.raises(PermanentError, match="another patient"):
        tell(registry, other, placed(order(patient=ROE), OrderAction.CHANGE), at=60)
    assert known(registry) == [order()], "nor was the first part of that message applied"


def test_several_orders_that_could_be_meant_are_refused(registry: Registry) -> None:
    tell(registry, placed(), placed(order(placer_order_number="PL2", filler_order_number="FI2")))
    with pytest.raises(PermanentError, match="not certain"):
        tell(registry, placed(Order(Patient("P1"), accession_number=ACCESSION), OrderAction.CHANGE), at=60)


def test_a_correction_reaches_every_order_of_that_patient_and_no_other(registry: Registry) -> None:
    tell(registry, placed(), placed(Order(ROE, placer_order_number="PL9")))
    tell(registry, PatientCorrected(Patient("P1", name="Doe^Janet")), at=60)
    assert [one.patient.name for one in known(registry)] == ["Doe^Janet", "Roe^Jim"]
    tell(registry, PatientCorrected(Patient("nobody", name="X^Y")), at=70)
    tell(registry, PatientCorrected(Patient("P1", issuer="OTHER HOSPITAL", name="Z^Z")), at=80)
    assert [one.patient.name for one in known(registry)] == ["Z^Z", "Roe^Jim"], "orders without an issuer are anybody's"


def test_a_merge_keeps_a_study_and_its_order_together_whichever_id_the_images_have(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    tell(registry, PatientsMerged(replace(PATIENT, patient_id="P7"), Patient("P1")), at=150)
    assert [one.patient.patient_id for one in known(registry)] == ["P7"]
    finish(registry)
    assert registry.worklist(0, nonclinical=False)[0].note == ""
    assert registry.claim_delivery("o", "ris", 460, 400) is not None


def test_a_late_message_with_a_retired_id_still_finds_the_order_and_does_not_undo_the_merge(registry: Registry) -> None:
    tell(registry, placed())
    tell(registry, PatientsMerged(Patient("P7"), Patient("P1")), at=60)
    tell(registry, placed(order(station_ae="MR1"), OrderAction.CHANGE), at=70)
    [one] = known(registry)
    assert (one.patient.patient_id, one.station_ae) == ("P7", "MR1")


def test_a_merge_into_the_id_that_the_order_already_has_brings_the_flag(registry: Registry) -> None:
    tell(registry, placed(order(patient=replace(PATIENT, patient_id="P7"))))
    receive(registry)
    finish(registry)
    assert registry.claim_delivery("o", "ris", 460, 400) is None
    tell(registry, PatientsMerged(Patient("P7"), Patient("P1")), at=410)
    assert registry.claim_delivery("o", "ris", 480, 420) is not None


def test_a_merge_at_one_hospital_says_nothing_of_another(registry: Registry) -> None:
    one = order(patient=Patient("5", "HOSP_B", "Roe^Jim", "19800101"))
    tell(registry, placed(one))
    tell(registry, PatientsMerged(Patient("7", "HOSP_A"), Patient("5", "HOSP_A")), at=60)
    with pytest.raises(PermanentError, match="another patient"):
        tell(registry, placed(order(patient=Patient("7", "HOSP_C", "Poe^Ann", "19900101")), OrderAction.CHANGE), at=70)
    assert known(registry) == [one]


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (FinalReport(Order(ROE, accession_number=ACCESSION), "normal", 300.0), "another patient's"),
        (FinalReport(Order(PATIENT, accession_number=ACCESSION), "normal", 50.0), "final before the first image"),
    ],
)
def test_a_report_of_something_else_leaves_the_study_on_the_list(
    registry: Registry, report: FinalReport, why: str
) -> None:
    receive(registry)
    tell(registry, report, at=310)
    assert len(registry.worklist(0, nonclinical=False)) == 1, why


def test_a_report_for_one_of_two_studies_of_an_accession_number_ends_neither(registry: Registry) -> None:
    receive(registry)
    receive(registry, "1.2.4", at=110)
    tell(registry, FinalReport(Order(PATIENT, accession_number=ACCESSION), "normal", 300.0), at=310)
    assert len(registry.worklist(0, nonclinical=False)) == 2


def test_the_same_message_at_once_on_two_connections_takes_effect_once(registry: Registry) -> None:
    kept = registry.keep_message(b"MSH|1", "d1", "192.0.2.1", 10)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(registry.apply_message, kept.id, (placed(),), 20.0, nonclinical=False)
    assert len(known(registry)) == 1


def test_merges_in_a_circle_and_of_unknown_patients_end(registry: Registry) -> None:
    tell(registry, PatientsMerged(Patient("A"), Patient("B")))
    tell(registry, PatientsMerged(Patient("B"), Patient("A")), at=60)
    tell(registry, placed(order(patient=replace(PATIENT, patient_id="A"))), at=70)
    receive(registry)
    finish(registry)
    assert registry.claim_delivery("o", "ris", 460, 400) is None, "the images are of P1"


def test_a_final_report_of_nobody_we_know_is_kept(registry: Registry) -> None:
    tell(registry, FinalReport(Order(ROE, accession_number="A9"), "normal", 70.0))
    receive(registry)
    assert [entry.study_id for entry in registry.worklist(0, nonclinical=False)] == [STUDY]


def test_a_final_report_of_the_order_takes_the_study_off_the_list(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    tell(registry, FinalReport(Order(Patient("P1"), filler_order_number="FI1"), "normal", 300.0), at=310)
    assert registry.worklist(0, nonclinical=False) == []


def test_orders_come_page_by_page_and_only_those_asked_for(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_book, "PAGE", 2)
    for number in range(5):
        one = order(
            accession_number=f"A{number}",
            placer_order_number=f"PL{number}",
            filler_order_number=f"FI{number}",
            scheduled_at=f"2026010{number + 1}083000" if number else "",
        )
        tell(registry, placed(one), at=float(number))
    assert [one.accession_number for one in known(registry)] == ["A0", "A1", "A2", "A3", "A4"]
    assert [one.accession_number for one in known(registry, accession_number="A3")] == ["A3"]
    days = known(registry, scheduled_from="20260103", scheduled_to="20260104")
    assert [one.accession_number for one in days] == ["A2", "A3"]


@pytest.mark.parametrize(
    ("ordered", "judged", "expected"),
    [
        (None, None, None),
        (Level.ROUTINE, None, Level.ROUTINE),
        (None, Level.URGENT, Level.URGENT),
        (Level.ROUTINE, Level.CRITICAL, Level.CRITICAL),
        (Level.CRITICAL, Level.ROUTINE, Level.CRITICAL),
    ],
)
def test_an_order_has_the_higher_of_its_own_priority_and_its_studys(
    registry: Registry, ordered: Level | None, judged: Level | None, expected: Level | None
) -> None:
    tell(registry, placed(order(priority=ordered, priority_text=ordered or "")))
    if judged is not None:
        receive(registry)
        finish(registry, level=judged)
    assert level(registry) is expected


def test_an_order_without_one_certain_study_has_its_own_priority(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    assert level(registry) is Level.URGENT
    receive(registry, "1.2.4", at=90)
    assert level(registry) is Level.ROUTINE, "two studies have its accession number"


def test_the_list_is_ranked_by_level_and_then_by_waiting(registry: Registry) -> None:
    for number, level in enumerate((Level.ROUTINE, Level.URGENT, Level.CRITICAL, Level.URGENT)):
        uid = f"1.2.{number}"
        receive(registry, uid, at=100.0 + number, accession=f"A{number}", patient_key=KEY)
        finish(registry, uid, level=level, at=200.0 + number)
    listed = registry.worklist(0, nonclinical=False)
    assert [entry.study_instance_uid for entry in listed] == ["1.2.2", "1.2.1", "1.2.3", "1.2.0"]
    assert [entry.rank for entry in listed] == [1, 2, 3, 4]
    assert [entry.source for entry in listed] == ["model"] * 4
    assert registry.worklist(102.5, nonclinical=False)[0].study_instance_uid == "1.2.3"


def test_a_model_that_is_not_clinical_is_marked_and_ranks_nothing(registry: Registry) -> None:
    receive(registry)
    finish(registry, level=Level.CRITICAL, training_state="untrained")
    [entry] = registry.worklist(0, nonclinical=False)
    assert (entry.level, entry.marking) == (Level.ROUTINE, "untrained model, not for clinical use")
    assert registry.worklist(0, nonclinical=True)[0].level is Level.CRITICAL


def test_an_order_is_what_it_was_when_the_change_was_written(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry)
    tell(registry, OrderReceived(order(modality="MR"), OrderAction.CHANGE, "XO"), at=300)
    delivery = registry.claim_delivery("o", "ris", 460, 400)
    assert delivery is not None
    assert delivery.change is not None
    assert delivery.change.order == order()
    assert delivery.change.study_instance_uid == UID
