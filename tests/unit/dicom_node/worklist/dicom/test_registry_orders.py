"""A registry's orders as the Modality Worklist asks for them: the filter is handed on, and who counts."""

from __future__ import annotations

from collections.abc import Iterator

from dicom_node.base.orders import RankedOrder
from dicom_node.base.types import Level
from dicom_node.base.workitems import WorklistQuery
from dicom_node.worklist.dicom.registry_orders import RegistryOrders
from support.worklist_memory import order

ONE = RankedOrder(order("1"), Level.URGENT)


class Asked:
    """A registry with one order; remembers what it was asked."""

    asked: tuple[dict[str, str], str, str, bool] | None = None

    def orders(
        self, *, equal: dict[str, str], scheduled_from: str = "", scheduled_to: str = "", nonclinical: bool
    ) -> Iterator[RankedOrder]:
        self.asked = (equal, scheduled_from, scheduled_to, nonclinical)
        yield ONE


def test_only_what_the_query_names_is_asked_for() -> None:
    registry = Asked()
    query = WorklistQuery(accession_number="A1", modality="MR", scheduled_from="20260101", scheduled_to="20260102")
    assert list(RegistryOrders(registry, nonclinical=True).orders(query)) == [ONE]
    assert registry.asked == ({"accession_number": "A1", "modality": "MR"}, "20260101", "20260102", True)
    list(RegistryOrders(registry, nonclinical=False).orders(WorklistQuery()))
    assert registry.asked == ({}, "", "", False)
