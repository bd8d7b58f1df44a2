"""Engine and schema: one place that knows SQLite from PostgreSQL."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Engine, ExceptionContext, make_url
from sqlalchemy.pool import ConnectionPoolEntry

from dicom_node.base.errors import ConfigurationError, PermanentError

BUSY_SECONDS = 10
STATEMENT_SECONDS = 60
AT_ONCE = 500  # values in one statement: it takes a limited number of parameters
LONGEST_WAIT_SECONDS = 86400.0  # nothing in the registry waits longer for its next attempt or the end of its lease
#: The database cannot be reached, is busy, full or read-only: nothing was changed, and the same call may succeed later.
DATABASE_AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.TimeoutError)
OPENED = "opened"  # when a connection was, on the monotonic clock
PRIMARY_CODE = 0xFF  # of an SQLite result code, without what extends it
MIGRATIONS = Path(__file__).parent / "migrations"
Item = TypeVar("Item")


def open_engine(url: str) -> Engine:
    """An engine for the registry's URL. SQLite runs in WAL mode and syncs every commit to disk.

    Raises ConfigurationError when the URL cannot be understood.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = sa.create_engine(
            parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite", connect_args=_patience(parsed)
        )
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise ConfigurationError("node.database: not a database URL that SQLAlchemy knows") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        _Replaced(engine)
    return engine


def _patience(url: URL) -> dict[str, str | int]:
    """What libpq is told so that a PostgreSQL that went silent becomes an error; what the URL says comes first."""
    if url.get_backend_name() != "postgresql":
        return {}
    wanted: dict[str, str | int] = {
        "connect_timeout": BUSY_SECONDS,
        "tcp_user_timeout": 1000 * STATEMENT_SECONDS,
        "options": f"-c statement_timeout={1000 * STATEMENT_SECONDS}",
    }
    return {key: value for key, value in wanted.items() if key not in url.query}


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver's guess
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A write transaction takes its lock at once: upgrading a read lock later can fail without waiting.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class _Replaced:
    """Has all connections of an engine replaced once one of them cannot write.

    SQLite opens files that it may not write to for reading, and they stay so when they may be written again; the index
    in shared memory, which all connections of a process have in common, as long as any of them is open.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._noticed = -math.inf
        event.listen(engine, "connect", self._opened)
        event.listen(engine, "handle_error", self._failed)
        event.listen(engine, "checkin", self._given_back)

    def _opened(self, _connection: Any, entry: ConnectionPoolEntry) -> None:
        entry.info[OPENED] = time.monotonic()

    def _failed(self, context: ExceptionContext) -> None:
        error = context.original_exception
        if not isinstance(error, sqlite3.Error) or error.sqlite_errorcode & PRIMARY_CODE != sqlite3.SQLITE_READONLY:
            return
        self._noticed = time.monotonic()
        if context.execution_context is not None and context.execution_context.cursor is not None:
            context.execution_context.cursor.close()  # SQLite keeps a closed connection's files open until then
        context.is_disconnect = True
        self._engine.dispose()

    def _given_back(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        if connection is not None and entry.info[OPENED] <= self._noticed:  # another thread had it
            entry.invalidate()


def _alembic(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


def migrate(url: str) -> None:
    """Bring the schema to this version's; an up-to-date one is left as it is. Run by one process before the others."""
    command.upgrade(_alembic(url), "head")


def check_schema(url: str) -> None:
    """See that the database has this version's schema; changes nothing.

    Raises ConfigurationError when there is no registry yet, PermanentError when it is another version's.
    """
    script = ScriptDirectory.from_config(_alembic(url))
    found = _revision(url)
    if found is None:
        raise ConfigurationError("node.database: no registry there yet; start the node first with `dicom-node serve`")
    if found == script.get_current_head():
        return
    if found in {revision.revision for revision in script.walk_revisions()}:
        raise PermanentError("the registry is an earlier version's: start `dicom-node serve` of this version first")
    raise PermanentError("the registry is a later version's: use the `dicom-node` of the node that runs on it")


def _revision(url: str) -> str | None:
    """The schema's revision as the database says it; None when it has none."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database and not Path(parsed.database).exists():
        return None
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def is_over(time: sa.ColumnElement[float], at: float, longest: float = LONGEST_WAIT_SECONDS) -> sa.ColumnElement[bool]:
    """Whether a time that something waits for has come: also when it lies so far ahead that the clock was set back.

    longest: the seconds that anything of this kind may wait.
    """
    return sa.or_(time <= at, time > at + longest)


def portions(values: Iterable[Item]) -> Iterator[list[Item]]:
    """The values in their order, no more at once than one statement may ask for."""
    left = iter(values)
    while portion := list(islice(left, AT_ONCE)):
        yield portion


class Database:
    """Connections for reading and for writing; each write is one transaction, committed when its block ends."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._writer = self._engine.execution_options(writes=True)

    def _read(self) -> AbstractContextManager[sa.Connection]:
        return self._engine.connect()

    def _write(self) -> AbstractContextManager[sa.Connection]:
        return self._writer.begin()

    def _insert(self, table: sa.Table) -> Any:
        """An INSERT that can say ON CONFLICT DO NOTHING; both databases spell it alike."""
        return postgresql.insert(table) if self._engine.dialect.name == "postgresql" else sqlite.insert(table)

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()
