"""Fixtures every test may use: where the shared test data lies, and the real peers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with `brainix`, `knee` and `prima_golden`; `$PRIMA_SHARED` or `../shared` beside the repository."""
    root = Path(os.environ.get("PRIMA_SHARED", TESTS.parent.parent / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"shared test data not found at {root} (set PRIMA_SHARED)")
    return root / "data"
