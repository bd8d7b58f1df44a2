"""Run a command that does not outlive its parent, even while it is held still (SIGSTOP).

    python -m dicom_node.end_with_parent PARENT_PID NICE command [argument …]

The kernel sends SIGKILL when the parent ends, however that ends (prctl(2), PR_SET_PDEATHSIG; it survives execve(2)).
Set here and not between fork and exec of the parent, which has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with(parent: int) -> None:
    """Have this process end when that one does, at once where it is gone already. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit(1)


def become(parent: int, nice: int, command: list[str]) -> None:
    """Replace this process by `command`, less favoured by `nice` and the first to go where memory ends.

    Ends at once where the parent is gone already. Raises OSError.
    """
    end_with(parent)
    os.nice(nice)
    Path("/proc/self/oom_score_adj").write_text("1000", "ascii")  # proc(5)
    os.execvp(command[0], command)  # noqa: S606 - the caller's own arguments, no shell  # nosec B606


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
