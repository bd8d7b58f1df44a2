"""The nodes that share one registry and one storage folder: who they are, and what becomes of one that went silent.

A node without a name is alone. One with a name calls its processes `<role>@<name>`, and the runs of its receiver
`<name>/<run>` (`NodeSection.process`, `NodeSection.boot`): so the registry knows whose an association was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dicom_node.jobs.database import Database, is_over
from dicom_node.jobs.tables import associations, instances, nodes, processes

#: Seconds after which a node that was not heard of counts as gone. It may be in error: a node that comes back finds its
#: studies closed, and what it still receives is a new revision.
SILENT_SECONDS = 90.0
LOOKING_SECONDS = 600.0


def boots_of_node(boot: str) -> sa.ColumnElement[bool]:
    """Whether an association is of the node of this boot, or of the time when a node was alone.

    All are where the node is alone now.
    """
    node, slash, _ = boot.rpartition("/")
    if not slash:
        return sa.true()
    return _of_node(node) | ~associations.c.boot_id.contains("/")


def _of_node(node: str) -> sa.ColumnElement[bool]:
    return associations.c.boot_id.startswith(f"{node}/", autoescape=True)


class NodeBook(Database):
    """Nodes with a name."""

    def join(self, name: str, host: str, settings: Mapping[str, str], at: float) -> dict[str, list[str]]:
        """Note a node that starts; other running nodes with other settings → the sections that differ.

        Nothing is noted where there is one. settings: section → digest.
        """
        row = {"host": host, "settings": dict(settings), "started_at": at, "left_at": None}
        new = self._insert(nodes).values(name=name, **row)
        running = sa.or_(nodes.c.started_at > at - SILENT_SECONDS, _last_beat() > at - SILENT_SECONDS)
        others = sa.select(nodes.c.name, nodes.c.settings).where(
            nodes.c.name != name, nodes.c.left_at.is_(None), running
        )
        with self._write() as connection:
            if connection.dialect.name == "postgresql":  # nodes that start at once take turns
                connection.execute(sa.text("LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE"))
            found = {one.name: _differing(settings, one.settings) for one in connection.execute(others)}
            differing = {other: sections for other, sections in found.items() if sections}
            if not differing:
                connection.execute(new.on_conflict_do_update(index_elements=[nodes.c.name], set_=row))
        return differing

    def leave(self, name: str, at: float) -> None:
        """Note a node that was stopped in order."""
        with self._write() as connection:
            connection.execute(nodes.update().where(nodes.c.name == name).values(left_at=at))

    def database_time(self) -> float:
        """The database's own clock, seconds since the epoch."""
        now = sa.func.extract("epoch", sa.func.clock_timestamp())
        with self._read() as connection:
            return float(connection.scalar(sa.select(now)) or 0.0)

    def look_after(self, me: str, owner: str, at: float) -> str | None:
        """Take a node that is silent and of which nobody has looked through what it received; its name.

        `looked_after` says that it is done; else it is somebody's again after `LOOKING_SECONDS`.
        """
        beat = _last_beat()
        silent = sa.and_(nodes.c.name != me, beat < at - SILENT_SECONDS, nodes.c.started_at < at - SILENT_SECONDS)
        # A node that starts again looks through the storage itself, and beats again.
        undone = sa.func.coalesce(nodes.c.looked_after_at, 0.0) < beat
        free = sa.or_(nodes.c.lease_until.is_(None), is_over(nodes.c.lease_until, at))
        query = sa.select(nodes.c.name).where(silent, undone, free).order_by(nodes.c.name).limit(1)
        with self._write() as connection:
            name: str | None = connection.scalar(query.with_for_update(skip_locked=True))
            if name is not None:
                taken = {"owner": owner, "lease_until": at + LOOKING_SECONDS}
                connection.execute(nodes.update().where(nodes.c.name == name).values(**taken))
        return name

    def looked_after(self, name: str, owner: str, at: float) -> int | None:
        """Close the associations that a silent node left open; how many. None where it was heard of again meanwhile."""
        with self._write() as connection:
            this = sa.and_(nodes.c.name == name, nodes.c.owner == owner, _last_beat() < at - SILENT_SECONDS)
            done = {"owner": None, "lease_until": None}
            if not connection.execute(nodes.update().where(this).values(looked_after_at=at, **done)).rowcount:
                connection.execute(nodes.update().where(nodes.c.name == name, nodes.c.owner == owner).values(**done))
                return None
            left_open = associations.update().where(_of_node(name), associations.c.closed_at.is_(None))
            return connection.execute(left_open.values(closed_at=at)).rowcount

    def received_by(self, study: str) -> tuple[str, ...]:
        """The names of the nodes over which a study's objects came, by its short id; of those that have one."""
        boots = (
            sa.select(associations.c.boot_id)
            .join(instances, instances.c.association_id == associations.c.id)
            .where(instances.c.study_id == study, associations.c.boot_id.contains("/"))
            .distinct()
        )
        with self._read() as connection:
            return tuple(sorted({boot.rpartition("/")[0] for boot in connection.scalars(boots)}))


def _last_beat() -> Any:
    """When the receiver of a row's node was last heard of; null where it never was, and never received."""
    receiver = processes.c.name == sa.literal("receiver@") + nodes.c.name
    return sa.select(processes.c.beat_at).where(receiver).scalar_subquery()


def _differing(mine: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(section for section in mine.keys() | other.keys() if mine.get(section) != other.get(section))
