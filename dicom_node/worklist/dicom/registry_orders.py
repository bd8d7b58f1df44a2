"""The registry's orders as the Modality Worklist asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Protocol

from dicom_node.base.orders import Order
from dicom_node.base.types import Level
from dicom_node.base.workitems import WorklistQuery


class OrderRegistry(Protocol):
    """What of the registry is asked."""

    def orders(self, *, equal: dict[str, str], scheduled_from: str = "", scheduled_to: str = "") -> Iterator[Order]:
        """Orders that are not over, page by page, whose columns have these values."""
        ...

    def level_of_order(self, order: Order, *, nonclinical: bool) -> Level | None:
        """The level that the order's study has on the node's list; None where no study is certain to be its."""
        ...


class RegistryOrders:
    """An `OrderSource` over the registry. nonclinical: whether a model that is not clinical counts."""

    def __init__(self, registry: OrderRegistry, *, nonclinical: bool) -> None:
        self._registry = registry
        self._nonclinical = nonclinical

    def orders(self, query: WorklistQuery) -> Iterator[tuple[Order, Level | None]]:
        """Orders that satisfy the query with the higher of their own priority and the node's: none is ever lowered."""
        equal = {name: value for name, value in asdict(query).items() if value and not name.startswith("scheduled_")}
        for order in self._registry.orders(
            equal=equal, scheduled_from=query.scheduled_from, scheduled_to=query.scheduled_to
        ):
            ours = self._registry.level_of_order(order, nonclinical=self._nonclinical)
            known = [level for level in (order.priority, ours) if level is not None]
            yield order, max(known, key=lambda level: level.severity, default=None)
