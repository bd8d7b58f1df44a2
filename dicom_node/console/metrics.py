"""Prometheus metrics, computed from the registry when they are asked for: one truth, whichever process changed it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dicom_node.jobs.registry import Registry


class NodeMetrics(Collector):
    """Studies, deliveries, queue age, processes and disk. Labels hold states, destinations and process names only."""

    def __init__(self, registry: Registry, storage: Path) -> None:
        self._registry = registry
        self._storage = storage

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        yield self._studies()
        yield self._deliveries()
        yield self._oldest()
        yield self._processes()
        free = shutil.disk_usage(self._storage).free
        yield GaugeMetricFamily("dicom_node_disk_free_bytes", "Free space where the spool lies", value=free)
        paused = len(self._registry.paused())
        yield GaugeMetricFamily("dicom_node_paused_destinations", "Pauses in force", value=paused)

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not need the database."""
        return []

    def _studies(self) -> Metric:
        family = GaugeMetricFamily("dicom_node_studies", "Studies by state", labels=["state"])
        for state, count in self._registry.state_counts().items():
            family.add_metric([state], count)
        return family

    def _deliveries(self) -> Metric:
        labels = ["destination", "state"]
        family = GaugeMetricFamily("dicom_node_deliveries", "Deliveries by destination and state", labels=labels)
        for (destination, state), count in self._registry.delivery_counts().items():
            family.add_metric([destination, state], count)
        return family

    def _oldest(self) -> Metric:
        since = self._registry.waiting_since()
        age = max(0.0, time.time() - since) if since is not None else 0.0
        words = "Age of the longest waiting study since it was complete"
        return GaugeMetricFamily("dicom_node_queue_oldest_seconds", words, value=age)

    def _processes(self) -> Metric:
        words = "Seconds since a process last beat"
        family = GaugeMetricFamily("dicom_node_process_beat_age_seconds", words, labels=["process"])
        for process in self._registry.processes():
            family.add_metric([process.name], time.time() - process.beat_at)
        return family
