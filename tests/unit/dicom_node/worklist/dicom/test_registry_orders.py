"""A registry's orders as the Modality Worklist asks for them: the filter is handed on, no priority is lowered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dicom_node.base.orders import Order
from dicom_node.base.types import Level
from dicom_node.base.workitems import WorklistQuery
from dicom_node.worklist.dicom.registry_orders import RegistryOrders
from support.worklist_memory import order


class Asked:
    """A registry with one order and one level; remembers what it was asked."""

    def __init__(self, one: Order, level: Level | None) -> None:
        self.one, self.level = one, level
        self.asked: tuple[dict[str, str], str, str] | None = None

    def orders(self, *, equal: dict[str, str], scheduled_from: str = "", scheduled_to: str = "") -> Iterator[Order]:
        self.asked = (equal, scheduled_from, scheduled_to)
        yield self.one

    def level_of_order(self, order: Order, *, nonclinical: bool) -> Level | None:
        assert (order, nonclinical) == (self.one, True)
        return self.level


@pytest.mark.parametrize(
    ("ordered", "ours", "answered"),
    [
        (None, None, None),
        (Level.ROUTINE, None, Level.ROUTINE),
        (None, Level.URGENT, Level.URGENT),
        (Level.ROUTINE, Level.CRITICAL, Level.CRITICAL),
        (Level.CRITICAL, Level.ROUTINE, Level.CRITICAL),
    ],
)
def test_the_higher_priority_is_answered(ordered: Level | None, ours: Level | None, answered: Level | None) -> None:
    source = RegistryOrders(Asked(order("1", priority=ordered), ours), nonclinical=True)
    assert [level for _, level in source.orders(WorklistQuery())] == [answered]


def test_only_what_the_query_names_is_asked_for() -> None:
    registry = Asked(order("1"), None)
    query = WorklistQuery(accession_number="A1", modality="MR", scheduled_from="20260101", scheduled_to="20260102")
    list(RegistryOrders(registry, nonclinical=True).orders(query))
    assert registry.asked == ({"accession_number": "A1", "modality": "MR"}, "20260101", "20260102")
    list(RegistryOrders(registry, nonclinical=True).orders(WorklistQuery()))
    assert registry.asked == ({}, "", "")
