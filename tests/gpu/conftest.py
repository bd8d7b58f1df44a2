"""Skips where torch sees no GPU. Needs no peer, so that a machine with nothing but torch and a GPU can run it:

python -m pytest tests/gpu --confcutdir=tests/gpu
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    """The machine has one."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU on this machine")
