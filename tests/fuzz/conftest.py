"""Fixtures of the fuzz tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from support import peers


@pytest.fixture(scope="module", params=["inline", "pynetdicom"])
def storing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways in which a receiver stores."""
    peers.storing_inline = request.param == "inline"
    yield
    peers.storing_inline = True


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What pydicom says of damaged values is of no interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
