"""The schema's version: only `migrate` changes it, and a registry of another version is told apart, on every database.

Not covered: what a migration does to data (there is only one so far).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.jobs.database import DATABASE_AWAY, check_schema, migrate, open_engine


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


def test_a_connection_that_was_opened_for_reading_alone_is_not_used_again(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    writer = engine.execution_options(writes=True)
    with writer.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (number INTEGER)"))
        # As if it had been opened while the file could not be written: the same error, for ever.
        connection.connection.cursor().execute("PRAGMA query_only = ON")
    with pytest.raises(DATABASE_AWAY, match="readonly"), writer.begin():
        pass
    with writer.begin() as connection:
        connection.execute(sa.text("INSERT INTO kept VALUES (1)"))
    engine.dispose()


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
