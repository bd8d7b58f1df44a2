"""Entries of the reading list for tests of the console, and a registry that lists them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from dicom_node.base.orders import WorklistEntry
from dicom_node.base.types import DeliveryView, Level
from dicom_node.jobs.registry import Registry

REFUSED = "the peer refused the object: status 0x0122"


def entry(rank: int = 1, **changes: Any) -> WorklistEntry:
    """A study that was flagged a minute after its last image, two and a half hours ago."""
    now = time.time()
    made = WorklistEntry(
        rank=rank,
        study_id=f"study{rank:02d}",
        study_instance_uid=f"1.2.3.{rank}",
        accession_number=f"A{rank:03d}",
        level=Level.URGENT,
        source="model",
        rule="priority head: high → urgent",
        findings=("Glioma", "Hydrocephalus"),
        marking="",
        state="delivered",
        waiting_since=now - 9000,
        flagged_at=now - 8940,
        too_late=False,
        note="",
        deliveries=(delivery(),),
    )
    return replace(made, **changes)


def delivery(destination: str = "PACS", state: str = "delivered", **changes: Any) -> DeliveryView:
    """A report's delivery, done at the first attempt."""
    return replace(DeliveryView(destination, "dicom", state, 1, None), **changes)


def varied(count: int) -> list[WorklistEntry]:
    """Studies of every level, with deliveries in every state."""
    levels = list(reversed(Level))
    return [
        entry(
            number,
            level=levels[(number - 1) * len(levels) // count],
            findings=("Glioma", "Hydrocephalus", "Meningioma")[: number % 4],
            accession_number=f"A{number:03d}" if number % 5 else "",
            note="not sent: its model is not clinical" if number % 3 == 0 else "",
            too_late=number % 4 == 0,
            deliveries=(
                delivery(),
                delivery("RIS", "pending", kind="hl7", attempts=4, last_error="connection refused"),
                delivery("WORKLIST", "sending", kind="ups"),
                delivery("ARCHIVE", "set_aside", last_error=REFUSED),
            )[: number % 5],
        )
        for number in range(1, count + 1)
    ]


class ListedRegistry(Registry):
    """A registry whose reading list is what the test puts there; an error there is raised."""

    listed: list[WorklistEntry] | Exception = []  # noqa: RUF012 - only ever replaced
    asked: tuple[float, bool] | None = None

    def worklist(self, since: float, *, nonclinical: bool) -> list[WorklistEntry]:
        """The list of the test; `asked` is what it was asked for."""
        self.asked = (since, nonclinical)
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed
