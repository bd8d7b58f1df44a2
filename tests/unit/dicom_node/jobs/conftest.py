"""The registry's tests run on every database that the node supports: the same promises, the same code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.sqlite'}"
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    """An empty registry."""
    migrate(database_url)
    made = Registry(database_url)
    yield made
    made.close()
