"""A shadow bundle moves no priority, whatever it says and whatever comes after it, on every database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dicom_node.base.orders import Handover
from dicom_node.base.types import Level, ModelIdentity, Prediction, Priority
from dicom_node.jobs.registry import Registry
from support.orders import RIS, STUDY, UID, order, placed, receive, tell
from support.studies import report

SHADOW = "shadow-1"
SAID = Prediction(SHADOW, "e1", {"diagnosis": {"x": 9.0}}, Level.CRITICAL, "fp32", 0.5, bytes(8))


def reported(registry: Registry, level: Level) -> None:
    """An ordered study with the active model's result."""
    tell(registry, placed())
    receive(registry)
    claim = registry.claim("w", 3600, 200)
    assert claim is not None
    said = replace(SAID, bundle_id="active-1", level=level)
    made = replace(report(UID), prediction=said, priority=Priority(level, "priority head"))
    registry.finish_reported(claim, made, Handover(told=(RIS,)), 200)


def entry_level(registry: Registry) -> Level:
    [entry] = registry.worklist(0, nonclinical=True)
    return entry.level


def test_what_a_shadow_calls_critical_stays_as_the_active_model_left_it(registry: Registry) -> None:
    registry.know_model(ModelIdentity(SHADOW, SHADOW, "1", "2.25.1", "clinical"), Path("/models/shadow"))
    reported(registry, Level.ROUTINE)
    owed = registry.owed_to_shadow(SHADOW, 0, 0)
    assert owed is not None
    registry.keep_shadow(owed.claim, SAID, 500)
    tell(registry, placed(order(priority_text="R again")), at=600)  # an order that comes again is judged again
    assert registry.claim_delivery("o", "ris", 1.00006e06, 1e6) is None
    assert registry.plan_priority(STUDY, 700, nonclinical=True).change is None
    assert entry_level(registry) is Level.ROUTINE


def test_the_same_level_from_the_active_model_is_told(registry: Registry) -> None:
    """So the test above could fail."""
    reported(registry, Level.CRITICAL)
    delivery = registry.claim_delivery("o", "ris", 1.00006e06, 1e6)
    assert delivery is not None
    assert delivery.change is not None
    assert delivery.change.level is entry_level(registry) is Level.CRITICAL
