"""Metrics of what grows for ever: counted once, and right all the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from prometheus_client.registry import CollectorRegistry

from dicom_node.base.config import WorklistSection
from dicom_node.console import metrics
from dicom_node.console.metrics import NodeMetrics
from dicom_node.jobs.registry import Registry
from support.orders import RIS, finish, order, placed, receive, tell
from support.statements import counted
from support.studies import new_registry

DAY = 86400.0


def flagged(registry: Registry, number: int, at: float) -> None:
    """A study whose flag was told and acknowledged half a minute after its last image."""
    names = {"accession_number": f"A{number}", "placer_order_number": f"P{number}", "filler_order_number": f"F{number}"}
    tell(registry, placed(order(**names)), at=at)
    receive(registry, f"1.2.{number}", at=at, accession=f"A{number}")
    finish(registry, f"1.2.{number}", told=(RIS,), at=at + 10)
    delivery = registry.claim_delivery("o", "ris", at + 60, at + 20)
    assert delivery is not None
    registry.delivered(delivery, at + 30)


def scraped(collectors: CollectorRegistry, name: str, **labels: str) -> float:
    value = collectors.get_sample_value(name, labels)
    assert value is not None
    return value


def test_flags_of_long_ago_are_added_up_once_and_new_ones_at_every_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, now = new_registry(tmp_path), time.time()
    flagged(registry, 1, now - 30 * DAY)
    flagged(registry, 2, now - 1 * DAY)
    collectors = CollectorRegistry()
    collectors.register(NodeMetrics(registry, tmp_path, WorklistSection(), 0))
    assert scraped(collectors, "dicom_node_flag_seconds_count") == 2
    flagged(registry, 3, now - 1000)
    for later in (0.0, 3 * DAY, 20 * DAY):
        monkeypatch.setattr(metrics.time, "time", lambda later=later: now + later)
        assert scraped(collectors, "dicom_node_flag_seconds_count") == 3
        assert scraped(collectors, "dicom_node_flag_seconds_sum") == pytest.approx(90)
        assert scraped(collectors, "dicom_node_flag_seconds_bucket", le="30") == 3
    registry.close()


def test_what_is_open_is_counted_at_every_scrape_and_what_has_ended_now_and_then(tmp_path: Path) -> None:
    registry, now = new_registry(tmp_path), time.time()
    collectors = CollectorRegistry()
    collectors.register(NodeMetrics(registry, tmp_path, WorklistSection(), 0))
    assert scraped(collectors, "dicom_node_studies", state="complete") == 0
    receive(registry, at=now - 100)
    assert scraped(collectors, "dicom_node_studies", state="complete") == 1
    with counted(registry) as statements:
        collectors.collect()
        list(collectors.collect())
    asked = [one for one in statements if "count(*)" in one and "FROM studies" in one and "GROUP BY" in one]
    assert len(asked) == 1, "of the two that the first scrape asked"
    registry.close()
