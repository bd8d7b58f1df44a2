"""`dicom-node demo` as a user runs it: a report comes back, and nothing is left running.

Not covered: what the report says (the acceptance tests do), and the sample study, which `make demo` sends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from support.command_line import Cli
from support.dicom_factory import StudyFacts, write
from support.node import HANG_SECONDS, small_study

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's threads wait by spinning, which starves everything else on a small machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_study_of_ones_own_comes_back_as_a_report(tmp_path: Path, random_bundle: Path, cli: Cli) -> None:
    facts, folder = StudyFacts(), tmp_path / "study"
    for number, image in enumerate(small_study(facts)):
        write(image, folder / f"{number:04}.dcm")
    (folder / "README.txt").write_text("not an image")
    done = cli("demo", "--study", folder, "--folder", tmp_path / "demo", "--bundle", random_bundle, "--json")
    assert done.code == 0, done.err
    assert "README.txt" in done.err
    assert (done.json["study_instance_uid"], done.json["state"]) == (facts.study_uid, "delivered")
    assert done.json["training_state"] == "untrained"
    report = dcmread(done.json["sr_path"])
    assert report.SOPInstanceUID == done.json["sr_sop_instance_uid"]
    assert report.StudyInstanceUID == facts.study_uid


def test_sigterm_ends_the_demo_and_its_node(tmp_path: Path, random_bundle: Path) -> None:
    command = ["-m", "dicom_node", "demo", "--folder", str(tmp_path / "demo"), "--bundle", str(random_bundle)]
    demo = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        children = wait_for_children(demo.pid)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(HANG_SECONDS) == 128 + signal.SIGTERM
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    finally:
        demo.kill()
        demo.wait()


def wait_for_children(pid: int) -> list[int]:
    """The node's process and its own, as soon as there are some."""
    until = time.monotonic() + HANG_SECONDS
    while time.monotonic() < until:
        nodes = _children(pid)
        below = [child for node in nodes for child in _children(node)]
        if len(below) == 3:
            return [*nodes, *below]
        time.sleep(0.05)
    raise AssertionError("the node never started")


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in os.listdir(tasks) for child in (tasks / task / "children").read_text().split()]
