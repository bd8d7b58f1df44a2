"""The schema's version: only `migrate` changes it, and a registry of another version is told apart, on every database.

Not covered: what a migration does to data (there is only one so far).
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.jobs.database import DATABASE_AWAY, check_schema, migrate, open_engine
from dicom_node.jobs.registry import Registry


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = open_engine(database_url)
    yield made
    made.dispose()


def stamp(engine: sa.Engine, revision: str) -> None:
    """Say that the schema is another revision's."""
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_a_migrated_database_is_this_versions(database_url: str) -> None:
    migrate(database_url)
    check_schema(database_url)


def test_an_empty_database_is_no_registry_yet_and_stays_empty(database_url: str, engine: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="dicom-node serve"):
        check_schema(database_url)
    assert sa.inspect(engine).get_table_names() == []


def test_a_check_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="dicom-node serve"):
        check_schema(f"sqlite:///{tmp_path / 'none' / 'registry.sqlite'}")
    assert list(tmp_path.iterdir()) == []


def test_a_later_versions_registry_is_left_to_that_version(database_url: str, engine: sa.Engine) -> None:
    migrate(database_url)
    stamp(engine, "9999")
    with pytest.raises(PermanentError, match="later version"):
        check_schema(database_url)


def test_an_earlier_versions_registry_is_brought_up_by_serve_only(
    database_url: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(database_url)
    monkeypatch.setattr("alembic.script.ScriptDirectory.get_current_head", lambda _: "9999")
    with pytest.raises(PermanentError, match=r"earlier version.*dicom-node serve"):
        check_schema(database_url)


def test_connections_that_were_opened_for_reading_alone_are_not_used_again(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    writer = engine.execution_options(writes=True)
    with writer.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (number INTEGER)"))
    with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):  # as if opened while the file could not be written: the same error, for ever
            connection.connection.cursor().execute("PRAGMA query_only = ON")
    with engine.connect() as elsewhere:  # in another thread
        kept = elsewhere.connection.dbapi_connection
        assert kept is not None
        with pytest.raises(DATABASE_AWAY, match="readonly"), writer.begin():
            pass
        assert isinstance(engine.pool, QueuePool)
        assert engine.pool.checkedin() == 0, "SQLite's index stays as it was opened while any connection is open"
        assert elsewhere.exec_driver_sql("PRAGMA query_only").scalar() == 1, "it may read on"
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        kept.cursor()
    with writer.begin() as one, engine.connect() as other:
        one.execute(sa.text("INSERT INTO kept VALUES (1)"))
        assert {found.exec_driver_sql("PRAGMA query_only").scalar() for found in (one, other)} == {0}
    engine.dispose()


@pytest.fixture
def chattr() -> Callable[[str, list[Path]], None]:
    """Sets or clears an attribute of files, where somebody may."""

    def change(what: str, files: list[Path]) -> None:
        if subprocess.run(["chattr", what, *map(str, files)], capture_output=True, check=False).returncode:
            pytest.skip("only root makes files immutable, and not on every file system")

    return change


def test_a_registry_that_could_not_be_written_when_it_was_opened_can_be_written_later(
    tmp_path: Path, chattr: Callable[[str, list[Path]], None]
) -> None:
    file = tmp_path / "registry.sqlite"
    migrate(f"sqlite:///{file}")
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT 1 FROM studies'); print(); input()"
    registry = Registry(f"sqlite:///{file}")
    with subprocess.Popen(
        [sys.executable, "-uc", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()  # now SQLite's files beside the registry are there, and stay
            files = list(tmp_path.glob("registry.sqlite*"))
            assert len(files) == 3
            chattr("+i", files)
            try:
                for _ in range(2):
                    with pytest.raises(DATABASE_AWAY, match="readonly"):
                        registry.beat("worker", 1, "ready", 100.0)
            finally:
                chattr("-i", files)
            registry.beat("worker", 1, "ready", 100.0)
            assert [process.name for process in registry.processes()] == ["worker"]
        finally:
            registry.close()
            other.communicate("\n")


def test_a_busy_database_costs_no_connection(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        kept = connection.connection.dbapi_connection
    with closing(sqlite3.connect(tmp_path / "registry.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DATABASE_AWAY, match="locked"), engine.execution_options(writes=True).begin():
            pass
    with engine.begin() as connection:
        assert connection.connection.dbapi_connection is kept
    engine.dispose()
