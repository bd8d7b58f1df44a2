"""The systemd unit: systemd itself understands it, and finds it confined. `test_systemd.py` runs the node under it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "prima-node.service"
EXPOSURE = 20  # of 100, as `systemd-analyze security` counts: below that it says OK
NEEDED = ("NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077", "User=prima", "Restart=on-failure")


def analyze(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on a unit whose program exists on this machine."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd is not installed")
    unit = folder / "prima-node.service"
    unit.write_text(text.replace("/opt/prima-node/.venv/bin/dicom-node", "/bin/true"))
    return subprocess.run([tool, *arguments, str(unit)], capture_output=True, text=True, timeout=60, check=False)


def test_the_unit_says_what_confines_the_node() -> None:
    lines = UNIT.read_text().splitlines()
    assert [line for line in NEEDED if line not in lines] == []
    assert "MemoryDenyWriteExecute=yes" not in lines  # torch could not compute any convolution


@pytest.mark.parametrize("planted", ["", "NoSuchDirective=yes\n"])
def test_systemd_understands_every_line(tmp_path: Path, planted: str) -> None:
    found = analyze(tmp_path, UNIT.read_text().replace("[Install]", f"{planted}[Install]"), "verify")
    assert ("NoSuchDirective" in found.stderr) == bool(planted)
    assert planted or found.returncode == 0


def test_systemd_finds_the_node_confined(tmp_path: Path) -> None:
    security = ("security", "--offline=true", f"--threshold={EXPOSURE}")
    assert analyze(tmp_path, UNIT.read_text(), *security).returncode == 0
    open_to_all = "[Service]\nExecStart=/bin/true\n"
    assert analyze(tmp_path, open_to_all, *security).returncode != 0
