"""The Modality Worklist over the registry itself: ten thousand items, orders that come meanwhile, and markings.

Does not cover: matching and statuses (`test_mwl_provider.py`).
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.base.types import Level, study_id
from dicom_node.jobs import orders as order_book
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import results, studies
from dicom_node.jobs.worklist_tables import orders
from dicom_node.worklist.dicom.modality_worklist import MODALITY_WORKLIST, ModalityWorklist
from dicom_node.worklist.dicom.registry_orders import RegistryOrders
from prima_core.base.patient import patient_key_of
from support.orders import PATIENT, finish, order, placed, receive, tell
from support.studies import new_registry
from support.worklist_peers import association_to, found, served

MANY, FEW = 10_000, 1_000  # few, but several pages, where the number is not the point
LATE = 10  # orders that come while others are answered
SMALL_PAGE = 100
PEAK_BYTES = 2 << 20  # a small page of orders with their studies; a thousand orders at once would be above
MARKING = "Priority given by phantom model, not for clinical use"


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    migrate(database_url)
    made = Registry(database_url)
    yield made
    made.close()


def rows(table: sa.Table, **values: object) -> dict[str, Any]:
    """A row of the table: these values, and something for every other column that must have one."""
    empty = {
        column.name: "" if isinstance(column.type, sa.String) else 0
        for column in table.columns
        if not column.nullable and column.default is None and column.name != "id"
    }
    return empty | values


def order_row(number: int) -> dict[str, Any]:
    return rows(
        orders,
        patient_id=f"P{number}",
        name=f"Doe{number}^Jane",
        birth_date="19700101",
        accession_number=f"A{number:05d}",
        modality="MR",
        scheduled_at="20260105083000",
        priority="routine",
        status="scheduled",
    )


def fill(registry: Registry, count: int) -> None:
    """So many orders whose studies are there with a result; every other one is urgent."""
    uids = [f"1.2.3.{number}" for number in range(count)]
    patients = [patient_key_of(f"P{number}", f"Doe{number}^Jane", "19700101") for number in range(count)]
    with registry._write() as connection:
        connection.execute(orders.insert(), [order_row(number) for number in range(count)])
        connection.execute(
            studies.insert(),
            [
                rows(
                    studies,
                    id=study_id(uid),
                    study_instance_uid=uid,
                    patient_key=patients[number],
                    accession_number=f"A{number:05d}",
                    state="reported",
                )
                for number, uid in enumerate(uids)
            ],
        )
        connection.execute(
            results.insert(),
            [
                rows(
                    results,
                    study_id=study_id(uid),
                    revision=1,
                    sop_instance_uid=f"{uid}.9",
                    level="routine" if number % 2 else "urgent",
                    findings=[],
                    training_state="clinical",
                )
                for number, uid in enumerate(uids)
            ],
        )


def asking(identifier: Dataset) -> Any:
    """A C-FIND as the handler sees it, whose answers are taken at once."""
    encoded = BytesIO()
    identifier.save_as(encoded, implicit_vr=False, little_endian=True)
    return SimpleNamespace(
        request=SimpleNamespace(Identifier=encoded),
        context=SimpleNamespace(transfer_syntax=ExplicitVRLittleEndian),
        assoc=SimpleNamespace(is_established=True, dul=SimpleNamespace(to_provider_queue=Queue())),
        is_cancelled=False,
    )


def query(**keys: str) -> Dataset:
    identifier = Dataset()
    for keyword, value in ({"AccessionNumber": "", "RequestedProcedurePriority": ""} | keys).items():
        setattr(identifier, keyword, value)
    return identifier


def everything(registry: Registry) -> Iterator[tuple[str, str]]:
    """Accession number and priority of each answer to a query for all, as the peer takes it."""
    provider = ModalityWorklist(RegistryOrders(registry, nonclinical=False))
    for status, answer in provider.on_find(asking(query())):
        assert status.Status == 0xFF00
        assert answer is not None
        yield answer.AccessionNumber, answer.RequestedProcedurePriority


def test_many_orders_are_answered_in_order_while_others_come(registry: Registry, database_url: str) -> None:
    count = MANY if database_url.startswith("sqlite") else FEW
    fill(registry, count)
    answers, every = [], count // LATE
    for answer in everything(registry):
        answers.append(answer)
        if len(answers) <= count and len(answers) % every == 0:
            with registry._write() as connection:
                connection.execute(orders.insert().values(order_row(count + len(answers) // every)))
    expected = [(f"A{number:05d}", "ROUTINE" if number % 2 else "HIGH") for number in range(count)]
    assert answers[:count] == expected
    late = answers[count:]
    expected = [(f"A{count + number:05d}", "ROUTINE") for number in range(1, len(late) + 1)]
    assert late == expected, "each once, at the end"
    assert len(late) >= LATE - 1, "only the last may have come after the last page"


def test_orders_are_answered_without_holding_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_book, "PAGE", SMALL_PAGE)
    registry = new_registry(tmp_path)
    fill(registry, FEW)
    next(everything(registry))  # what is made once stays
    tracemalloc.start()
    try:
        count = sum(1 for _ in everything(registry))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    registry.close()
    print(f"peak while {count} items were answered: {peak} bytes")
    assert count == FEW
    assert peak < PEAK_BYTES


def answers_to(registry: Registry, identifier: Dataset, *, nonclinical: bool = True) -> list[Dataset]:
    provider = ModalityWorklist(RegistryOrders(registry, nonclinical=nonclinical))
    with served(provider) as peer, association_to(peer.port, MODALITY_WORKLIST) as association:
        return found(association, identifier, MODALITY_WORKLIST)


def test_a_priority_that_a_phantom_model_raised_never_goes_out_without_saying_so(registry: Registry) -> None:
    tell(registry, placed())
    receive(registry)
    finish(registry, level=Level.CRITICAL, training_state="phantom")
    [said] = answers_to(registry, query(RequestedProcedureComments=""))
    assert (said.RequestedProcedurePriority, said.RequestedProcedureComments) == ("STAT", MARKING)
    [unsaid] = answers_to(registry, query())
    assert unsaid.RequestedProcedurePriority == "ROUTINE"
    assert answers_to(registry, query(RequestedProcedurePriority="STAT")) == []
    [not_allowed] = answers_to(registry, query(RequestedProcedureComments=""), nonclinical=False)
    assert (not_allowed.RequestedProcedurePriority, not_allowed.RequestedProcedureComments) == ("ROUTINE", "")


def test_a_clinical_models_priority_needs_no_comment(registry: Registry) -> None:
    tell(registry, placed(order(patient=PATIENT)))
    receive(registry)
    finish(registry, level=Level.CRITICAL)
    [said] = answers_to(registry, query(RequestedProcedureComments=""), nonclinical=False)
    assert (said.RequestedProcedurePriority, said.RequestedProcedureComments) == ("STAT", "")
    assert [one.RequestedProcedurePriority for one in answers_to(registry, query())] == ["STAT"]
