"""A preliminary report notes that reading began, of one certain study and once, on every database."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from dicom_node.base.orders import FinalReport, Order, Patient, ReadingBegun
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import studies
from support.orders import ACCESSION, PATIENT, UID, finish, order, placed, receive, tell

OTHER = Patient("P2", name="Roe^Jim", birth_date="19800101")


def reading_at(registry: Registry) -> dict[str, float | None]:
    with registry._read() as connection:
        rows = connection.execute(sa.select(studies.c.study_instance_uid, studies.c.reading_at)).all()
    return {row.study_instance_uid: row.reading_at for row in rows}


@pytest.mark.parametrize(
    "said",
    [
        Order(PATIENT, accession_number=ACCESSION),
        Order(PATIENT, study_instance_uid=UID),
        Order(Patient("P1"), filler_order_number="FI1"),
    ],
)
def test_the_first_preliminary_report_is_when_reading_began(registry: Registry, said: Order) -> None:
    tell(registry, placed(order()))
    receive(registry)
    tell(registry, ReadingBegun(said, 150.0), at=160)
    tell(registry, ReadingBegun(said, 180.0), at=190)
    assert reading_at(registry) == {UID: 150.0}
    assert len(registry.worklist(0, nonclinical=False)) == 1, "it still waits for its final report"


def test_a_flag_after_it_came_too_late(registry: Registry) -> None:
    tell(registry, placed(order()))
    receive(registry)
    tell(registry, ReadingBegun(Order(PATIENT, accession_number=ACCESSION), 150.0), at=160)
    finish(registry, at=200.0)
    assert registry.flag_times([60.0]).too_late == 1


@pytest.mark.parametrize(
    ("said", "at"),
    [
        (Order(OTHER, accession_number=ACCESSION), 150.0),
        (Order(PATIENT, accession_number="A9"), 150.0),
        (Order(PATIENT, accession_number=ACCESSION), 50.0),
    ],
)
def test_a_report_of_something_else_notes_nothing(registry: Registry, said: Order, at: float) -> None:
    receive(registry)
    tell(registry, ReadingBegun(said, at), at=160)
    assert reading_at(registry) == {UID: None}


def test_of_two_studies_of_an_accession_number_neither_is_noted(registry: Registry) -> None:
    receive(registry)
    receive(registry, "1.2.4", at=110)
    tell(registry, ReadingBegun(Order(PATIENT, accession_number=ACCESSION), 150.0), at=160)
    assert reading_at(registry) == {UID: None, "1.2.4": None}


def test_a_final_report_takes_the_same_way(registry: Registry) -> None:
    tell(registry, placed(order()))
    receive(registry)
    tell(registry, FinalReport(Order(Patient("P1"), filler_order_number="FI1"), "normal", 300.0), at=310)
    assert registry.worklist(0, nonclinical=False) == []
