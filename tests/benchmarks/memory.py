"""The peak of a process's memory while something runs, as Linux says it (proc(5))."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

SECONDS = 0.01  # between two looks at anonymous memory, of which the system keeps no peak


class Memory:
    """resident: peak of what lies in memory, files that are mapped included; anonymous: without those. Bytes."""

    def __init__(self) -> None:
        self.resident = self.anonymous = 0
        self._end = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self._looking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._looking.join()
        self.resident = _status("VmHWM")

    def _look(self) -> None:
        while True:
            self.anonymous = max(self.anonymous, _status("RssAnon"))
            if self._end.wait(SECONDS):
                return


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
