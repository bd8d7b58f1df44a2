"""MONAI comes without the packages that it could also use, and leaves them to whoever wants them afterwards."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from prima_core.base.monai import OPTIONAL, vqvae
network = vqvae().VQVAE(3, 1, 1, (4,), 1, (4,), ((4, 4, 1, 0),), ((4, 4, 1, 0, 0),), 8, 2)
assert sum(p.numel() for p in network.parameters()) > 100
loaded = [name for name in OPTIONAL if name in sys.modules]
assert not loaded, loaded
import matplotlib.pyplot
import pandas
import scipy.ndimage
import sklearn.metrics
import transformers
assert transformers.__version__ and scipy.ndimage.zoom
assert vqvae().VQVAE is type(network)
"""


def test_optional_packages_are_not_loaded_and_can_be_later() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
