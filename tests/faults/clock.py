"""The node's wall clock, which can be turned while it runs; the machine's own and this process's are left alone.

libfaketime was tried and does not serve: with the monotonic clock left alone Python's `time.sleep` fails with EINVAL
under it (0.9.10). A C compiler is needed; without one `works` is False.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """What the node must have in its environment, and by how many seconds its wall clock is turned."""

    def __init__(self, folder: Path) -> None:
        self._turned = folder / "clock"
        self.turn(0)
        library = folder / "clock.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        self.works = compiler is not None
        self.environment: dict[str, str] = {}
        if compiler is not None:
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)], check=True)
            self.environment = {"LD_PRELOAD": str(library), "PRIMA_CLOCK": str(self._turned)}

    def turn(self, seconds: int) -> None:
        """Let the wall clock differ from the machine's by so much, at once and in every process."""
        mode = "r+b" if self._turned.exists() else "wb"
        with self._turned.open(mode) as file:
            file.write(struct.pack("l", seconds))
