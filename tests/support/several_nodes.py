"""Several nodes that share one storage folder and one PostgreSQL database.

    nodes = several_nodes(tmp_path, bundle, postgres.new_database(), ["a", "b"], destinations=[…], hurry=True)
    with nodes["a"], nodes["b"]: ...        # each on ports of its own

hurry: leases and silences of seconds, so that a test need not wait for those of a real node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.node import Node

#: Read by every Python process of a node at its start.
HURRY = """
from dicom_node import service, takeover
from dicom_node.jobs import nodes, queue, scheduler, worker
from dicom_node.sending import outbox

service.BEAT_SECONDS = 0.5
nodes.SILENT_SECONDS = 6.0
takeover.LOOK_SECONDS = 0.5
takeover.SETTLE_SECONDS = 1.0
worker.LEASE_SECONDS = 4.0
queue.GRACE_SECONDS = 1.0
scheduler.RECLAIM_SECONDS = 0.5
outbox.LEASE_MARGIN_SECONDS = 1.0
"""


def several_nodes(
    folder: Path,
    bundle: Path,
    database: str,
    names: Sequence[str],
    *,
    destinations: Sequence[dict[str, Any]] = (),
    hurry: bool = False,
    **sections: dict[str, Any],
) -> dict[str, Node]:
    """Nodes by name, none started."""
    environment = {}
    if hurry:
        (folder / "hurry").mkdir(parents=True)
        (folder / "hurry" / "sitecustomize.py").write_text(HURRY)
        environment["PYTHONPATH"] = os.pathsep.join([str(folder / "hurry"), os.environ.get("PYTHONPATH", "")])
    shared = {"storage": str(folder / "storage"), "database": database}
    return {
        name: Node(
            folder / name,
            bundle,
            destinations=destinations,
            environment=environment,
            **(sections | {"node": sections.get("node", {}) | shared | {"name": name}}),
        )
        for name in names
    }
