"""Which of the node's processes are alive, and which storage folder they work on: `/healthz` and people read it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.jobs.database import Database
from dicom_node.jobs.tables import processes, storage


@dataclass(frozen=True)
class ProcessView:
    """A process as it last said of itself. Times: seconds since the epoch."""

    name: str
    pid: int
    started_at: float
    beat_at: float
    status: str


class ProcessBook(Database):
    """Heartbeats, and the folder that this database describes."""

    def describes(self, storage_id: str) -> str:
        """The storage folder that this database describes: the given one from the first time on that one is."""
        with self._write() as connection:
            connection.execute(self._insert(storage).values(row=1, storage_id=storage_id).on_conflict_do_nothing())
            described: str = connection.scalars(sa.select(storage.c.storage_id)).one()
        return described

    def registry_id(self) -> str:
        """This database's own identity, once it describes a folder; a copy of the database has it, too."""
        new = storage.update().where(storage.c.registry_id.is_(None)).values(registry_id=uuid.uuid4().hex)
        with self._write() as connection:
            connection.execute(new)
            known: str = connection.scalars(sa.select(storage.c.registry_id)).one()
        return known

    def beat(self, name: str, pid: int, status: str, at: float) -> None:
        """Say that the process lives and what it does."""
        row = self._insert(processes).values(name=name, pid=pid, started_at=at, beat_at=at, status=status)
        started_at = sa.case((processes.c.pid == pid, processes.c.started_at), else_=at)
        changes = {"pid": pid, "started_at": started_at, "beat_at": at, "status": status}
        with self._write() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=[processes.c.name], set_=changes))

    def forget_processes(self, names: Sequence[str]) -> None:
        """What these said no longer counts: others are about to be started in their place."""
        with self._write() as connection:
            connection.execute(processes.delete().where(processes.c.name.in_(names)))

    def processes(self) -> list[ProcessView]:
        """All processes that beat and were not forgotten, by name."""
        with self._read() as connection:
            rows = connection.execute(sa.select(processes).order_by(processes.c.name)).all()
        return [ProcessView(row.name, row.pid, row.started_at, row.beat_at, row.status) for row in rows]
