"""What each kind of destination would be sent, and what a worklist manager is known to have had before."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_node.base.config import Destination, UpsDestination
from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import Delivery
from dicom_node.base.types import Level
from dicom_node.worklist import listeners
from dicom_node.worklist.dicom.ups_user import Outcome, Told, attributes_of
from dicom_node.worklist.hl7.messages import build
from dicom_node.worklist.listeners import UpsAdapter, preview
from support.hl7_messages import change, change_of_order, destination

MANAGER = UpsDestination(name="manager", ae_title="MANAGER", host="127.0.0.1", port=104)


@pytest.mark.parametrize("message", ["ORM", "OMG", "OMI", "ORU"])
@pytest.mark.parametrize("character_set", ["UNICODE UTF-8", "8859/1"])
def test_the_preview_is_the_message_to_the_last_field(message: str, character_set: str) -> None:
    to = destination(message=message, character_set=character_set)
    shown = preview(change(), to)
    codec = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1"}[character_set]
    assert shown.replace("\n", "\r").encode(codec) + b"\r" == build(change(), to)


def test_the_preview_for_a_worklist_manager_has_every_attribute_of_the_step() -> None:
    shown = preview(change(), MANAGER)
    assert "N-SET of (0074,1200)" in shown
    assert str(attributes_of(change(), MANAGER)) in shown


def test_an_archive_is_told_no_priority() -> None:
    with pytest.raises(PermanentError, match="'pacs' is not told priorities"):
        preview(change(), Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104))


@pytest.mark.parametrize(
    ("told", "ordered", "before"),
    [
        (Told(Outcome.RAISED, "1.2", "MEDIUM", "HIGH"), Level.ROUTINE, Level.ELEVATED),
        (Told(Outcome.RAISED, "1.2", "LOW", "HIGH"), Level.URGENT, Level.ROUTINE),
        (Told(Outcome.CREATED, "1.2", "", "HIGH"), Level.URGENT, Level.URGENT),
        (Told(Outcome.CREATED, "1.2", "", "HIGH"), None, Level.ROUTINE),
        (Told(Outcome.ALREADY, "1.2", "HIGH", "HIGH"), Level.ROUTINE, None),
    ],
)
def test_an_undo_goes_back_to_what_the_manager_had_or_the_order_says(
    monkeypatch: pytest.MonkeyPatch, told: Told, ordered: Level | None, before: Level | None
) -> None:
    def tell(*_: Any) -> Told:
        return told

    monkeypatch.setattr(listeners.ups_user, "tell", tell)
    delivery = Delivery(1, "study", "manager", "ups", 1, "o", change=change_of_order(priority=ordered))
    assert UpsAdapter(MANAGER, "NODE")(delivery).previous == before
