"""A machine of its own for a test: systemd boots this one's files in a container; what is written there is forgotten.

    with booted(tmp_path, {"/etc/node.toml": "…"}, {Path("bundle"): "/opt/bundle"}) as machine:
        machine.run("systemctl", "start", "prima-node")

The network is this machine's. Needs root, systemd-nspawn (Debian: systemd-container) and overlayfs. Not beside tests
that unmount file systems: the container has those that were there when it was booted.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.peers import wait_until

NSPAWN = "systemd-nspawn"
NOT_HERE = ("permission denied", "unknown filesystem type")  # mount(8)
PATIENCE_SECONDS = 30
#: What this machine starts by itself has no business there, nor is there a network to wait for.
MASKED = ("timers.target", "sockets.target", "paths.target", "network-online.target")


@dataclass(frozen=True)
class Machine:
    """A booted container. init: id of its first process, as this machine counts; root: its files."""

    init: int
    root: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there as root."""
        inside = ["nsenter", "--all", "--target", str(self.init), *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def booted(folder: Path, files: Mapping[str, str], seen: Mapping[Path, str]) -> Iterator[Machine]:
    """Boot, with these files by their paths, and with these of this machine's folders and files under other paths."""
    if os.geteuid() != 0 or shutil.which(NSPAWN) is None:
        pytest.skip(f"a machine can only be booted by root, with {NSPAWN} (systemd-container)")
    written, root, log = folder / "written", folder / "root", folder / "boot.log"
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o022))  # others than root are to read there
        _mount(stack, written, "tmpfs", "-t", "tmpfs")
        for part in ("upper", "work"):
            (written / part).mkdir()
        layers = f"lowerdir=/,upperdir={written}/upper,workdir={written}/work"
        _mount(stack, root, "overlay", "-t", "overlay", "-o", layers)
        masked = {f"/etc/systemd/system/{unit}": "" for unit in MASKED}
        for path, text in {**masked, **files}.items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        process = _boot(root, log, seen)
        stack.callback(_end, process)
        try:
            wait_until(lambda: process.poll() is not None or _init_of(process.pid), "something is booted")
            machine = Machine(_init_of(process.pid) or 0, root)
            wait_until(lambda: machine.run("systemctl", "is-active", "basic.target").returncode == 0, "it is booted")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()}") from error
        yield machine


def _boot(root: Path, log: Path, seen: Mapping[Path, str]) -> subprocess.Popen[bytes]:
    binds = [f"--bind-ro={here}:{there}" for here, there in seen.items()]
    own = ["--quiet", "--boot", "--register=no", "--keep-unit", f"--machine=test-{os.getpid()}", f"--directory={root}"]
    with log.open("wb") as told:
        command = [NSPAWN, *own, *binds, "systemd.unit=basic.target"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=told)


def _mount(stack: ExitStack, at: Path, what: str, *options: str) -> None:
    at.mkdir()
    done = subprocess.run(["mount", *options, what, str(at)], capture_output=True, text=True, check=False)
    if any(words in done.stderr.lower() for words in NOT_HERE):
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    stack.callback(subprocess.run, ["umount", "--lazy", str(at)], check=True)


def _init_of(nspawn: int) -> int | None:
    """The process that is the first one of its own process namespace; None where there is none now."""
    with suppress(OSError):  # one of them ended meanwhile
        for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text("ascii").split():
            status = Path(f"/proc/{child}/status").read_text("utf-8")
            ids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
            if len(ids) > 1 and ids[-1] == "1":
                return int(child)
    return None


def _end(nspawn: subprocess.Popen[bytes]) -> None:
    """End the container; then nspawn ends, which leaves nothing behind."""
    init = _init_of(nspawn.pid)
    if init is not None:
        os.kill(init, signal.SIGKILL)  # and with it whatever runs there
    else:
        nspawn.terminate()
    try:
        nspawn.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()
