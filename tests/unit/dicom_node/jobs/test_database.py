"""The schema's version: only `migrate` changes it, and a registry of another version is told apart, on every database.

Not covered: what a migration does to data (there is only one so far).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.jobs.database import check_schema, migrate, open_engine


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
