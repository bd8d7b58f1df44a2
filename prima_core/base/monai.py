"""MONAI's VQ-VAE, without the seconds that importing the rest of MONAI takes.

Any import of MONAI runs all of its modules, and those load every optional package that happens to be installed, for
networks, transforms and plots that are not used here: 5 of 6 CPU seconds at each start of a process.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

MODULE = "monai.networks.nets.vqvae"
OPTIONAL = ("transformers", "matplotlib", "pandas", "scipy")  # those that take long


def vqvae() -> ModuleType:
    """`monai.networks.nets.vqvae`. The first call, not while another thread imports one of the optional packages."""
    if (loaded := sys.modules.get(MODULE)) is not None:
        return loaded
    with _hidden([name for name in OPTIONAL if name not in sys.modules]):
        return importlib.import_module(MODULE)


@contextmanager
def _hidden(names: list[str]) -> Iterator[None]:
    """Importing one of `names` fails as if it were not installed, which MONAI takes for an answer."""
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] # None is how the import system says so
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
