"""`/healthz` and `/metrics` over HTTP, with a registry behind them."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.base.config import configuration_from
from dicom_node.base.errors import ConfigurationError
from dicom_node.console.http import EXPECTED, Console, health_problems
from dicom_node.demo.ports import free_ports
from dicom_node.jobs.registry import Registry
from support.studies import arrival, new_registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path)


@pytest.fixture
def console(tmp_path: Path, registry: Registry) -> Iterator[Console]:
    [port] = free_ports(1)
    running = Console(configuration_from({"node": {"storage": ".", "http_port": port}}, tmp_path), registry)
    running.start()
    yield running
    running.stop()


def get(console: Console, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{console.port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def all_beat(registry: Registry, status: str = "ready") -> None:
    for name in EXPECTED:
        registry.beat(name, os.getpid(), status, time.time())


def test_healthy_means_every_process_beats_and_is_ready(console: Console, registry: Registry) -> None:
    status, text = get(console, "/healthz")
    assert status == 503
    assert len(json.loads(text)["problems"]) == len(EXPECTED)
    all_beat(registry)
    assert get(console, "/healthz") == (200, '{"ok": true, "problems": []}')


def test_a_port_in_use_is_a_configuration_error(console: Console, registry: Registry, tmp_path: Path) -> None:
    same = configuration_from({"node": {"storage": ".", "http_port": console.port}}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"node\.http_port"):
        Console(same, registry)


def test_a_silent_or_loading_process_is_named(registry: Registry) -> None:
    all_beat(registry)
    registry.beat("worker", os.getpid(), "loading the model", time.time())
    assert health_problems(registry, time.time()) == ["the worker is loading the model"]
    assert any("receiver" in problem for problem in health_problems(registry, time.time() + 3600))


def test_metrics_name_states_and_nothing_of_a_study(console: Console, registry: Registry) -> None:
    registry.record_arrivals([arrival(1)])
    all_beat(registry)
    status, text = get(console, "/metrics")
    assert status == 200
    assert 'dicom_node_studies{state="receiving"} 1.0' in text
    assert 'dicom_node_studies{state="dead"} 0.0' in text
    assert 'dicom_node_process_beat_age_seconds{process="worker"}' in text
    assert "1.2.3" not in text


def test_anything_else_is_not_found(console: Console) -> None:
    assert get(console, "/../etc/passwd")[0] == 404
