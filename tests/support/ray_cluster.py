"""A Ray cluster of two machines' worth of processes, on loopback alone, without dashboard or telemetry.

with ray_cluster() as cluster:
    Node(…, environment=cluster.environment, model={"execution": "ray", "ray": {"address": cluster.address, …}})
    os.kill(cluster.actor("predict"), signal.SIGKILL)       # the actor that runs this method now
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.peers import wait_until

#: The second one has Ray bind to loopback: by default its servers listen on every address.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
MACHINE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1"}


class RayMachines:
    """A running cluster."""

    environment = ENVIRONMENT

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.address: str = cluster.address

    def actor(self, method: str) -> int:
        """The process id of an actor of the node's that runs this method, as soon as there is one."""
        return int(wait_until(lambda: self._running(f"ray::ModelActor.{method}"), f"an actor runs {method}"))

    def _running(self, title: str) -> int | None:
        raylets = {node.all_processes["raylet"][0].process.pid for node in self._cluster.list_all_nodes()}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                is_it = (entry / "cmdline").read_text().rstrip("\0 ") == title
                if is_it and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) in raylets:
                    return int(entry.name)
            except OSError:  # it ended just now
                continue
        return None


@contextmanager
def ray_cluster() -> Iterator[RayMachines]:
    """Two machines; skips the test where Ray is not installed."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'prima-node[ray]')")
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    from ray._private.utils import get_ray_address_file
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-")  # not pytest's: a socket's path must be short
    # Ray notes a cluster's address there, wherever the cluster's own folder is, and does not make that one.
    Path(get_ray_address_file(None)).parent.mkdir(parents=True, exist_ok=True)
    cluster = Cluster()
    try:
        cluster.add_node(**MACHINE, include_dashboard=False, temp_dir=folder)
        cluster.add_node(**MACHINE, temp_dir=folder)
        yield RayMachines(cluster)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
