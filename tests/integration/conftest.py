"""Fixtures of tests with real peers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import peers


@pytest.fixture(scope="module", params=["inline", "pynetdicom"])
def storing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways in which a receiver stores, one after the other: every test with this fixture holds for both."""
    peers.storing_inline = request.param == "inline"
    yield
    peers.storing_inline = True
