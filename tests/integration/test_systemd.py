"""The node under a real systemd, by the unit as it is shipped: it serves confined, comes back after kills, and ends.

Added are a launcher and an environment that name the places of Python, its packages and this source, which may lie
where the unit lets nothing be read.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.booted import Machine, booted
from support.dicom_factory import StudyFacts
from support.node import send, small_study
from support.peers import AE_TITLE, free_port, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "PRIMA_LONG" not in os.environ,
        reason="a minute of a node on a machine that is booted for it: PRIMA_LONG=1, or make long",
    ),
]

ROOT = Path(__file__).parents[2]
HOME = "/opt/prima-node"
PACKAGES = "/opt/packages"
PYTHON = "/opt/python"
LAUNCHER = f"""#!{PYTHON}/bin/python{sys.version_info.major}.{sys.version_info.minor}
from dicom_node.admin.main import main
main()
"""
ENVIRONMENT = (
    f"PYTHONPATH={HOME}:{PACKAGES}",
    f"LD_LIBRARY_PATH={PYTHON}/lib",
    "OMP_NUM_THREADS=1",  # as in all tests: torch's threads starve a small machine
    "PYTHONDONTWRITEBYTECODE=1",
)
STATE = "/var/lib/prima-node"
PROCESSES = 5  # supervisor, receiver with its helper, scheduler, worker
USER_ID = 64123
USER = f"prima:x:{USER_ID}:{USER_ID}::/var/lib/prima-node:/usr/sbin/nologin\n"


class UnitOnMachine:
    """prima-node.service on a booted machine."""

    def __init__(self, machine: Machine, port: int, http_port: int) -> None:
        self.machine = machine
        self.port = port
        self._health = f"http://127.0.0.1:{http_port}/healthz"

    def systemctl(self, verb: str, *options: str) -> str:
        return self.machine.run("systemctl", verb, *options, "prima-node").stdout.strip()

    def show(self, name: str) -> str:
        """One of systemd's properties of it."""
        return self.systemctl("show", f"--property={name}", "--value")

    def healthy(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(self._health, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def status(self, pid: str) -> dict[str, str]:
        """What the kernel says of a process there (proc(5))."""
        lines = self.machine.run("cat", f"/proc/{pid}/status").stdout.splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def log(self) -> str:
        """All that the service wrote."""
        return self.machine.run("journalctl", "--unit=prima-node", "--output=cat").stdout

    def processes(self) -> dict[str, str]:
        """Command lines of all that runs as the node's user, by the process ids of its machine."""
        lines = self.machine.run("pgrep", "--uid", "prima", "--list-full").stdout.splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def command_line(self, *words: str) -> str:
        """`dicom-node` as the node's user."""
        config = "DICOM_NODE_CONFIG=/etc/prima-node/node.toml"
        as_user = ["runuser", "-u", "prima", "--", "env", config, *ENVIRONMENT]
        done = self.machine.run(*as_user, f"{HOME}/.venv/bin/dicom-node", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def unit(tmp_path: Path, random_bundle: Path) -> Iterator[UnitOnMachine]:
    port, http_port = free_port(), free_port()
    launcher = tmp_path / "dicom-node"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)  # like the bundle's: for the node's user
    files = {
        "/etc/passwd": Path("/etc/passwd").read_text() + USER,
        "/etc/group": Path("/etc/group").read_text() + f"prima:x:{USER_ID}:\n",
        "/etc/systemd/system/prima-node.service": (ROOT / "deploy" / "prima-node.service").read_text(),
        "/etc/systemd/system/prima-node.service.d/places.conf": f"[Service]\nEnvironment={' '.join(ENVIRONMENT)}\n",
        "/etc/prima-node/node.toml": f"""
[node]
ae_title = "{AE_TITLE}"
port = {port}
http_port = {http_port}
storage = "{STATE}"
[intake]
stability_seconds = 1.0
[model]
bundle = "/opt/bundle"
precision = "fp32"
allow_nonclinical = true
""",
    }
    if Path(STATE).exists():
        pytest.skip(f"a node of this machine has its data in {STATE}")
    bundle = tmp_path / "bundle"
    shutil.copytree(random_bundle, bundle)
    for file in [bundle, *bundle.iterdir()]:
        file.chmod(0o755)
    seen = {
        Path(sys.base_prefix): PYTHON,
        Path(sysconfig.get_path("purelib")): PACKAGES,
        ROOT: HOME,
        launcher: f"{HOME}/.venv/bin/dicom-node",
        bundle: "/opt/bundle",
    }
    with booted(tmp_path, files, seen) as machine:
        unit = UnitOnMachine(machine, port, http_port)
        yield unit
        print(unit.log())  # shown where the test failed


def test_the_unit_serves_confined_and_comes_back_and_ends(unit: UnitOnMachine) -> None:
    unit.systemctl("start")
    wait_until(unit.healthy, "the node is ready")
    started = unit.processes()
    assert len(started) == PROCESSES
    around = int(unit.status("1")["Seccomp_filters"])  # the container's own
    for status in map(unit.status, started):
        assert (status["NoNewPrivs"], int(status["CapBnd"], 16)) == ("1", 0)
        assert int(status["Seccomp_filters"]) > around
    (supervisor,) = [pid for pid, line in started.items() if line.endswith(" serve")]
    (helper,) = [pid for pid, line in started.items() if "dicom_node.receiving" in line]

    assert set(send(unit.port, small_study(StudyFacts()))) == {0}
    wait_until(lambda: '"reported"' in unit.command_line("studies", "--json"), "the study has its report")
    unit.command_line("doctor", "--no-peers")
    found = unit.machine.run("find", STATE, "-perm", "/077")
    assert (found.returncode, found.stdout) == (0, ""), "nobody else's to read"
    for folder in ("/etc", "/usr", "/opt", "/root", "/home", "/var"):
        done = unit.machine.run("nsenter", "--mount", f"--target={supervisor}", "touch", f"{folder}/planted")
        assert done.returncode != 0, f"{folder} can be written"
    assert unit.machine.run("nsenter", "--mount", f"--target={supervisor}", "touch", f"{STATE}/planted").returncode == 0

    unit.machine.run("kill", "-9", helper)
    wait_until(lambda: helper not in unit.processes(), "it ended")
    wait_until(lambda: len(unit.processes()) == PROCESSES and unit.healthy(), "it is back")
    assert unit.show("NRestarts") == "0"
    unit.machine.run("kill", "-9", supervisor)
    wait_until(lambda: unit.show("NRestarts") == "1" and unit.healthy(), "systemd has started it again")
    assert set(send(unit.port, small_study(StudyFacts(patient_id="OTHER")))) == {0}

    unit.systemctl("stop")
    assert unit.show("Result") == "success"
    assert unit.processes() == {}


def test_a_wrong_configuration_is_not_started_again(unit: UnitOnMachine) -> None:
    (unit.machine.root / "etc/prima-node/node.toml").write_text("[node]\nport = 0\n")
    unit.systemctl("start")
    wait_until(lambda: unit.systemctl("is-active") == "failed", "it gave up")
    assert (unit.show("NRestarts"), unit.show("ExecMainStatus")) == ("0", "2")
    assert "node.port" in unit.log()
