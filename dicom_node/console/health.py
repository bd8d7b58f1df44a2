"""Whether the node is well, from what its processes last said in the registry."""

from __future__ import annotations

from dicom_node.base.config import NodeSection
from dicom_node.base.disk import NO_RESERVE, Reserve
from dicom_node.jobs.registry import DATABASE_AWAY, Registry

STALE_SECONDS = 30.0
NO_DATABASE = "the registry's database does not answer"
EXPECTED = ("receiver", "scheduler", "worker")
ALONE = NodeSection()


def health_problems(
    registry: Registry, now: float, reserve: Reserve = NO_RESERVE, node: NodeSection = ALONE
) -> list[str]:
    """What is wrong now, in words; empty when the node is well. Of several nodes each speaks for itself."""
    return [*_disk_problems(reserve), *_process_problems(registry, now, node)]


def _disk_problems(reserve: Reserve) -> list[str]:
    if not reserve.is_reached():
        return []
    return [f"the disk has less than intake.reserve_bytes ({reserve.bytes} bytes) left: no more images are taken"]


def _process_problems(registry: Registry, now: float, node: NodeSection) -> list[str]:
    try:
        named = {process.name: process for process in registry.processes()}
        active = registry.chosen_models().active
    except DATABASE_AWAY:
        return [NO_DATABASE]
    problems = []
    seen = {role: named[node.process(role)] for role in EXPECTED if node.process(role) in named}
    for name in EXPECTED:
        if name not in seen:
            problems.append(f"the {name} has not started")
        elif now - seen[name].beat_at > STALE_SECONDS:
            problems.append(f"the {name} has not been heard of for {now - seen[name].beat_at:.0f} s")
        elif seen[name].status != "ready":
            problems.append(f"the {name} is {seen[name].status}")
    if active is not None and active.problem is not None:
        problems.append(f"the active bundle {active.bundle_id} is not in use: {active.problem}")
    return problems
