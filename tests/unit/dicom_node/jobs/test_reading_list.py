"""The list and the ranked orders are read for all studies at once, and say of each what they would say of it alone.

Does not cover: when somebody is told (`test_flags.py`), which order is a study's (`test_orders.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dicom_node.base.orders import FinalReport, Order, OrderAction, Patient, PatientsMerged, RankedOrder
from dicom_node.base.types import Level, study_id
from dicom_node.jobs import database, flags, orders
from dicom_node.jobs.orders import NO_ORDER, OTHER_PATIENT, TWO_ORDERS, TWO_STUDIES
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.transitions import TWO_PATIENTS
from prima_core.base.patient import patient_key_of
from support.orders import RIS, finish, order, placed, receive, tell
from support.statements import counted

PHANTOM = "phantom model, not for clinical use"
UNTRAINED = "untrained model, not for clinical use"
Kind = Callable[["Case"], None]


class Case:
    """One study of a patient of its own, with an accession number of its own; `at` is its own hour."""

    def __init__(self, registry: Registry, number: int) -> None:
        self.registry = registry
        self.number = number
        self.uid = f"1.2.3.{number}"
        self.at = 1000.0 * number
        self.accession = f"A{number}"
        self.patient = Patient(f"P{number}", name=f"Doe{number}^Jane", birth_date="19700101")

    def key(self, patient_id: str = "") -> str:
        return patient_key_of(patient_id or self.patient.patient_id, self.patient.name, self.patient.birth_date)

    def order(self, **changes: object) -> Order:
        own = {"placer_order_number": f"PL{self.number}", "filler_order_number": f"FI{self.number}"}
        return order(**({"patient": self.patient, "accession_number": self.accession} | own | changes))

    def place(self, action: OrderAction = OrderAction.NEW, after: float = 1, **changes: object) -> None:
        tell(self.registry, placed(self.order(**changes), action), at=self.at + after)

    def receive(self, after: float = 100, uid: str = "", **more: object) -> None:
        known = {"accession": self.accession, "patient_key": self.key()}
        receive(self.registry, uid or self.uid, at=self.at + after, **(known | more))  # type: ignore[arg-type]

    def finish(self, after: float = 200, uid: str = "", **more: object) -> None:
        finish(self.registry, uid or self.uid, at=self.at + after, **more)  # type: ignore[arg-type]

    def run(self) -> None:
        """A worker begins, and has no result yet."""
        assert self.registry.claim("w", 1e9, self.at + 600) is not None

    def deliver(self) -> None:
        """The RIS acknowledges what it is told."""
        while delivery := self.registry.claim_delivery("o", "ris", 2e6, 1e6, clinical_only=False):
            self.registry.delivered(delivery, self.at + 300)


def flagged(case: Case) -> None:
    case.place()
    case.receive()
    case.finish()
    case.deliver()


def read_before_the_flag(case: Case) -> None:
    case.place()
    case.receive()
    case.registry.note_reading(case.uid, case.at + 150)
    case.finish()
    case.deliver()


def ordered_higher(case: Case) -> None:
    case.place(priority=Level.CRITICAL, priority_text="S")
    case.receive()
    case.finish(level=Level.ELEVATED)


def ordered_in_words_nobody_knows(case: Case) -> None:
    case.place(priority=None, priority_text="ASAP++")
    case.receive()
    case.finish()


def two_studies_of_one_number(case: Case) -> None:
    case.place()
    case.receive(uid=f"{case.uid}.1")
    case.finish(uid=f"{case.uid}.1")
    case.receive(110)
    case.finish(210)


def two_orders(case: Case) -> None:
    case.place()
    case.place(placer_order_number=f"X{case.number}", filler_order_number=f"Y{case.number}")
    case.receive()
    case.finish()


def order_names_the_study(case: Case) -> None:
    case.place(study_instance_uid=case.uid)
    case.place(placer_order_number=f"X{case.number}", filler_order_number=f"Y{case.number}")
    case.receive()
    case.finish()


def order_names_another_study(case: Case) -> None:
    case.place(study_instance_uid=f"{case.uid}.9")
    case.receive()
    case.finish()


def cancelled_order(case: Case) -> None:
    case.place()
    case.place(OrderAction.CANCEL, after=2)
    case.receive()
    case.finish()


def another_patient(case: Case) -> None:
    case.place(patient=Patient(f"Q{case.number}", name="Roe^Jim", birth_date="19800101"))
    case.receive()
    case.finish()


def merged_patient(case: Case) -> None:
    """The images have the oldest of three IDs."""
    case.place()
    case.receive(patient_key=case.key("OLD"))
    for survivor, retired in ((f"P{case.number}", f"MID{case.number}"), (f"MID{case.number}", "OLD")):
        tell(case.registry, PatientsMerged(Patient(survivor), Patient(retired)), at=case.at + 150)
    case.finish()


def undone(case: Case) -> None:
    flagged(case)
    case.registry.undo_priority(study_id(case.uid), case.at + 400)
    case.deliver()


def wished_higher(case: Case) -> None:
    flagged(case)
    case.registry.raise_priority(study_id(case.uid), Level.CRITICAL, (RIS,), case.at + 400)


def model_not_clinical(case: Case) -> None:
    case.place()
    case.receive()
    case.finish(training_state="untrained")


def not_clinical_before_and_clinical_now(case: Case) -> None:
    case.place()
    case.receive()
    case.finish(training_state="phantom", nonclinical=True)
    case.receive(300)
    case.finish(400, level=Level.ROUTINE)


def of_two_patients(case: Case) -> None:
    case.receive()
    case.finish(level=Level.CRITICAL)
    case.receive(300, patient_key="x:y:z")


def reported(case: Case) -> None:
    flagged(case)
    report = FinalReport(Order(case.patient, accession_number=case.accession), "normal", case.at + 400)
    tell(case.registry, report, at=case.at + 410)


def nothing_known(case: Case) -> None:
    case.receive(accession="", patient_key="")
    case.run()


def sent_with_high_priority(case: Case) -> None:
    case.receive(urgent=True)
    case.run()


def run_again_for_a_late_image(case: Case) -> None:
    flagged(case)
    case.receive(500)
    case.run()


#: What the list says of each: level, source, note, flagged, too late, marking; nothing: it is not listed.
SAYS: dict[Kind, tuple[Level, str, str, bool, bool, str] | None] = {
    flagged: (Level.URGENT, "model", "", True, False, ""),
    read_before_the_flag: (Level.URGENT, "model", "", True, True, ""),
    ordered_higher: (Level.CRITICAL, "order", flags.NOT_RAISED, False, False, ""),
    ordered_in_words_nobody_knows: (Level.URGENT, "model", flags.UNKNOWN, False, False, ""),
    two_studies_of_one_number: (Level.URGENT, "model", TWO_STUDIES, False, False, ""),
    two_orders: (Level.URGENT, "model", TWO_ORDERS, False, False, ""),
    order_names_the_study: (Level.URGENT, "model", "", True, False, ""),
    order_names_another_study: (Level.URGENT, "model", NO_ORDER, False, False, ""),
    cancelled_order: (Level.URGENT, "model", NO_ORDER, False, False, ""),
    another_patient: (Level.URGENT, "model", OTHER_PATIENT, False, False, ""),
    merged_patient: (Level.URGENT, "model", "", True, False, ""),
    undone: (Level.ROUTINE, "order", "", True, False, ""),
    wished_higher: (Level.CRITICAL, "person", "", True, False, ""),
    model_not_clinical: (Level.ROUTINE, "order", flags.NOT_CLINICAL, False, False, UNTRAINED),
    not_clinical_before_and_clinical_now: (Level.URGENT, "model", "", True, False, PHANTOM),
    of_two_patients: (Level.ROUTINE, "", TWO_PATIENTS, False, False, ""),
    reported: None,
    nothing_known: (Level.ROUTINE, "", "", False, False, ""),
    sent_with_high_priority: (Level.URGENT, "order", "", False, False, ""),
    run_again_for_a_late_image: (Level.URGENT, "model", "", True, False, ""),
}


def varied(registry: Registry, first: int = 1) -> dict[str, Kind]:
    """A study of each kind, by Study Instance UID; what they tell is acknowledged."""
    made = {}
    for number, kind in enumerate(SAYS, start=first):
        case = Case(registry, number)
        kind(case)
        case.deliver()
        made[case.uid] = kind
    return made


def ranked(registry: Registry, *, nonclinical: bool = False) -> list[RankedOrder]:
    return list(registry.orders(equal={}, nonclinical=nonclinical))


def test_what_the_list_says_of_each_kind_of_study(registry: Registry) -> None:
    made = varied(registry)
    listed = {
        made[entry.study_instance_uid]: (
            *(entry.level, entry.source, entry.note),
            *(entry.flagged_at is not None, entry.too_late, entry.marking),
        )
        for entry in registry.worklist(0, nonclinical=False)
        if entry.study_instance_uid in made
    }
    assert listed == {kind: said for kind, said in SAYS.items() if said is not None}


@pytest.mark.parametrize("nonclinical", [False, True])
def test_many_are_read_as_each_would_be_alone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, nonclinical: bool
) -> None:
    varied(registry)
    ids = [entry.study_id for entry in registry.worklist(0, nonclinical=nonclinical)]

    def read() -> tuple[object, ...]:
        return (
            registry.worklist(0, nonclinical=nonclinical),
            ranked(registry, nonclinical=nonclinical),
            registry.backgrounds(ids),
            registry.studies(),
        )

    together = read()
    monkeypatch.setattr(database, "AT_ONCE", 1)
    monkeypatch.setattr(orders, "PAGE", 1)
    assert read() == together


def test_as_many_questions_for_many_studies_as_for_few(registry: Registry) -> None:
    varied(registry)
    few = questions(registry)
    for start in (101, 201):
        varied(registry, start)
    assert questions(registry) == few
    assert all(few)


def questions(registry: Registry) -> list[int]:
    """How many statements the list, the orders and the backgrounds of all its studies take."""
    with counted(registry) as of_list:
        ids = [entry.study_id for entry in registry.worklist(0, nonclinical=True)]
    with counted(registry) as of_orders:
        ranked(registry)
    with counted(registry) as of_backgrounds:
        registry.backgrounds(ids)
    return [len(of_list), len(of_orders), len(of_backgrounds)]


def raised_by_a_phantom(registry: Registry) -> Case:
    case = Case(registry, 1)
    case.place()
    case.receive()
    case.finish(training_state="phantom", nonclinical=True)
    case.deliver()
    return case


def test_an_order_is_marked_whose_priority_a_model_raised_that_is_not_clinical(registry: Registry) -> None:
    case = raised_by_a_phantom(registry)
    assert [(one.level, one.marking) for one in ranked(registry, nonclinical=True)] == [(Level.URGENT, PHANTOM)]
    assert [one.marking for one in ranked(registry)] == [PHANTOM], "the flag stands after the permission was withdrawn"
    case.place(OrderAction.CHANGE, after=400, priority=Level.ELEVATED, priority_text="A")
    assert [one.marking for one in ranked(registry)] == [PHANTOM], "the RIS repeats what it was told"
    case.place(OrderAction.CHANGE, after=500, priority=Level.CRITICAL, priority_text="S")
    assert [(one.level, one.marking) for one in ranked(registry)] == [(Level.CRITICAL, "")], "somebody asked for more"
    [listed] = registry.worklist(0, nonclinical=False)
    assert (listed.level_marking, listed.marking) == ("", PHANTOM), "of its findings alone"


def test_a_result_that_nobody_was_told_marks_the_order_too(registry: Registry) -> None:
    case = Case(registry, 1)
    case.place()
    case.receive()
    case.finish(training_state="untrained", told=())
    assert [(one.level, one.marking) for one in ranked(registry)] == [(Level.ROUTINE, "")]
    assert [(one.level, one.marking) for one in ranked(registry, nonclinical=True)] == [(Level.URGENT, UNTRAINED)]


def test_a_persons_wish_is_not_marked(registry: Registry) -> None:
    case = raised_by_a_phantom(registry)
    case.registry.raise_priority(study_id(case.uid), Level.CRITICAL, (RIS,), case.at + 400)
    case.deliver()
    case.place(OrderAction.CHANGE, after=500, priority=Level.CRITICAL, priority_text="S")
    assert [(one.level, one.marking) for one in ranked(registry)] == [(Level.CRITICAL, "")]


def test_an_order_that_still_repeats_an_undone_flag_is_marked(registry: Registry) -> None:
    case = raised_by_a_phantom(registry)
    case.place(OrderAction.CHANGE, after=400, priority=Level.URGENT, priority_text="A")
    case.registry.undo_priority(study_id(case.uid), case.at + 500)
    assert [(one.level, one.marking) for one in ranked(registry)] == [(Level.URGENT, PHANTOM)]
    [listed] = registry.worklist(0, nonclinical=False)
    assert (listed.source, listed.level_marking) == ("order", PHANTOM), "work items say so as well"
    case.place(OrderAction.CHANGE, after=600, priority=Level.ROUTINE, priority_text="R")
    assert [(one.level, one.marking) for one in ranked(registry)] == [(Level.ROUTINE, "")]
