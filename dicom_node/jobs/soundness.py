"""What the doctor asks of the registry itself. Changes nothing."""

from __future__ import annotations

import time

import sqlalchemy as sa

from dicom_node.jobs.database import Database
from dicom_node.jobs.tables import events, pauses, processes, storage


class Soundness(Database):
    """Whether the database does what the node needs of it."""

    def try_to_write(self) -> None:
        """Take the lock that a write needs, and write nothing. Raises SQLAlchemyError."""
        with self._write() as connection:
            connection.execute(pauses.update().where(sa.false()).values(since=0.0))

    def described(self) -> str | None:
        """The storage folder that this database describes; None before the node was started."""
        with self._read() as connection:
            found: str | None = connection.scalar(sa.select(storage.c.storage_id))
        return found

    def clock(self) -> float:
        """The database's time, seconds since the epoch. SQLite's is this machine's."""
        if self._engine.dialect.name != "postgresql":
            return time.time()
        with self._read() as connection:
            return float(connection.scalar(sa.select(sa.extract("epoch", sa.func.clock_timestamp()))) or 0.0)

    def latest_time(self) -> float:
        """The latest time at which a process beat or a study changed; 0 where none has yet."""
        last = sa.select(events.c.at).order_by(events.c.id.desc()).limit(100).subquery()
        with self._read() as connection:
            beat = connection.scalar(sa.select(sa.func.max(processes.c.beat_at)))
            changed = connection.scalar(sa.select(sa.func.max(last.c.at)))
        return max(beat or 0.0, changed or 0.0)
