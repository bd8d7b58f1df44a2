"""The registry's orders as the Modality Worklist asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Protocol

from dicom_node.base.orders import RankedOrder
from dicom_node.base.workitems import WorklistQuery


class OrderRegistry(Protocol):
    """What of the registry is asked."""

    def orders(
        self, *, equal: dict[str, str], scheduled_from: str = "", scheduled_to: str = "", nonclinical: bool
    ) -> Iterator[RankedOrder]:
        """Orders that are not over, page by page, whose columns have these values."""
        ...


class RegistryOrders:
    """An `OrderSource` over the registry. nonclinical: whether a model that is not clinical counts."""

    def __init__(self, registry: OrderRegistry, *, nonclinical: bool) -> None:
        self._registry = registry
        self._nonclinical = nonclinical

    def orders(self, query: WorklistQuery) -> Iterator[RankedOrder]:
        """Orders that satisfy the query, each with its priority as it is now."""
        equal = {name: value for name, value in asdict(query).items() if value and not name.startswith("scheduled_")}
        return self._registry.orders(
            equal=equal,
            scheduled_from=query.scheduled_from,
            scheduled_to=query.scheduled_to,
            nonclinical=self._nonclinical,
        )
