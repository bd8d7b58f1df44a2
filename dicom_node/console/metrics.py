"""Prometheus metrics, computed from the registry when they are asked for: one truth, whichever process changed it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dicom_node.base.config import WorklistSection
from dicom_node.base.types import DeliveryState, StudyState
from dicom_node.console.shared import Shared
from dicom_node.jobs.registry import FlagTimes, Registry

WINDOWS = {"24h": 86400.0, "7d": 7 * 86400.0}
#: These grow as long as the node runs, and are counted only so often; what is open is few and always counted.
ENDED_STUDIES = (StudyState.DELIVERED, StudyState.OUT_OF_SCOPE, StudyState.REPORTED, StudyState.WITHDRAWN)
OPEN_STUDIES = tuple(state for state in StudyState if state not in ENDED_STUDIES)
ENDED_DELIVERIES = (DeliveryState.DELIVERED, DeliveryState.WITHDRAWN)
OPEN_DELIVERIES = tuple(state for state in DeliveryState if state not in ENDED_DELIVERIES)
ENDED_SECONDS = 300.0
SETTLED_SECONDS = 7 * 86400.0  # flags that are older are as they will be
FLAG_BOUNDS = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class NodeMetrics(Collector):
    """Studies, deliveries, queue age, flags, processes, disk. Labels: states, destinations and process names only."""

    def __init__(self, registry: Registry, storage: Path, objective: WorklistSection, reserve_bytes: int) -> None:
        self._registry = registry
        self._storage = storage
        self._objective = objective
        self._reserve_bytes = reserve_bytes
        self._ended_studies = Shared(lambda: registry.state_counts(ENDED_STUDIES), ENDED_SECONDS)
        self._ended_deliveries = Shared(lambda: registry.delivery_counts(ENDED_DELIVERIES), ENDED_SECONDS)
        self._past: FlagTimes | None = None
        self._past_until = 0.0

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        yield self._studies()
        yield self._deliveries()
        yield self._oldest()
        yield self._processes()
        yield from self._flags()
        free = shutil.disk_usage(self._storage).free
        yield GaugeMetricFamily("dicom_node_disk_free_bytes", "Free space where the spool lies", value=free)
        words = "Free space below which no images are taken"
        yield GaugeMetricFamily("dicom_node_disk_reserve_bytes", words, value=self._reserve_bytes)
        paused = len(self._registry.paused())
        yield GaugeMetricFamily("dicom_node_paused_destinations", "Pauses in force", value=paused)

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not need the database."""
        return []

    def _studies(self) -> Metric:
        family = GaugeMetricFamily("dicom_node_studies", "Studies by state", labels=["state"])
        counts = self._registry.state_counts(OPEN_STUDIES) | self._ended_studies()
        for state, count in counts.items():
            family.add_metric([state], count)
        return family

    def _deliveries(self) -> Metric:
        labels = ["destination", "state"]
        family = GaugeMetricFamily("dicom_node_deliveries", "Deliveries by destination and state", labels=labels)
        counts = self._registry.delivery_counts(OPEN_DELIVERIES) | self._ended_deliveries()
        for (destination, state), count in counts.items():
            family.add_metric([destination, state], count)
        return family

    def _oldest(self) -> Metric:
        since = self._registry.waiting_since()
        age = max(0.0, time.time() - since) if since is not None else 0.0
        words = "Age of the longest waiting study since it was complete"
        return GaugeMetricFamily("dicom_node_queue_oldest_seconds", words, value=age)

    def _flags(self) -> Iterator[Metric]:
        bounds = sorted({*FLAG_BOUNDS, self._objective.objective_seconds})
        times = self._flag_times(bounds)
        words = "From a study's last image to the first acknowledgement of its raised priority"
        histogram = HistogramMetricFamily("dicom_node_flag_seconds", words)
        buckets = [(f"{bound:g}", count) for bound, count in times.at_most]
        histogram.add_metric([], [*buckets, ("+Inf", times.acknowledged)], times.seconds)
        yield histogram
        yield from self._objective_met()
        words = "Raised priorities that no destination has acknowledged yet"
        yield GaugeMetricFamily("dicom_node_flags_waiting", words, value=times.waiting)
        words = "Raised priorities that came after the reading had begun or the report was final"
        yield CounterMetricFamily("dicom_node_flags_too_late", words, value=times.too_late)

    def _flag_times(self, bounds: list[float]) -> FlagTimes:
        """Those of long ago are counted once, when the process starts, and change no more; then each day as it ends."""
        now = time.time()
        if self._past is None or now - SETTLED_SECONDS - self._past_until > WINDOWS["24h"]:
            until = now - SETTLED_SECONDS
            added = self._registry.flag_times(bounds, self._past_until, until)
            self._past, self._past_until = added if self._past is None else self._past + added, until
        return self._past + self._registry.flag_times(bounds, self._past_until)

    def _objective_met(self) -> Iterator[Metric]:
        words = "1 while the share of flags of the window that worklist.objective_share asks for came in time, else 0"
        met = GaugeMetricFamily("dicom_node_flag_objective_met", words, labels=["window"])
        words = "Flags of the window that were acknowledged or should have been"
        due = GaugeMetricFamily("dicom_node_flags_due", words, labels=["window"])
        now = time.time()
        for window, seconds in WINDOWS.items():
            flags = self._registry.flags_in_time(now - seconds, self._objective.objective_seconds, now)
            met.add_metric([window], float(flags.in_time >= self._objective.objective_share * flags.due))
            due.add_metric([window], flags.due)
        yield met
        yield due

    def _processes(self) -> Metric:
        words = "Seconds since a process last beat"
        family = GaugeMetricFamily("dicom_node_process_beat_age_seconds", words, labels=["process"])
        for process in self._registry.processes():
            family.add_metric([process.name], time.time() - process.beat_at)
        return family
