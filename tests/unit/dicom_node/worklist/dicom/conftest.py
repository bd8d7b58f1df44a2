"""A registry for the tests that need one, on every database that the node supports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    """An empty registry."""
    migrate(database_url)
    made = Registry(database_url)
    yield made
    made.close()
