"""Kill -9 at random moments, of every process, the supervisor too; and SIGTERM in the middle of work.

The seed of a run is random and in its output; `PRIMA_KILL_SEED` repeats the plan (never the moments to the microsecond:
they depend on the machine).
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom.dsutils import encode

from dicom_node.base.events import Event
from dicom_node.base.types import Standing, StudyState
from dicom_node.demo.archive import AE_TITLE as ARCHIVE_AE
from dicom_node.demo.archive import Archive
from dicom_node.jobs.tables import instances, results, studies
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, mr_slices
from support.node import Node, destination, evidence, small_study
from support.persistent_sender import PersistentSender

pytestmark = pytest.mark.slow

STUDIES = 8
SLICES = 16
PLAN = ("receiver",) * 3 + ("scheduler",) * 2 + ("worker",)
LONGEST_WAIT_BEFORE_A_KILL = 0.05  # about as long as a few images take


@dataclass(frozen=True)
class House:
    """A node and the archive that gets its reports."""

    node: Node
    archive: Archive


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A sender that finds nobody listening is what these tests are about."""
    caplog.set_level(logging.CRITICAL, "pynetdicom")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with Archive(folder / "archive") as archive:
        goals = [destination("pacs", ARCHIVE_AE, archive.port)]
        model = {"max_attempts": 50, "retry_seconds": 0.5}
        with Node(folder, random_bundle, destinations=goals, stability_seconds=3.0, model=model) as node:
            yield House(node, archive)


def long_study(study: StudyFacts) -> list[Dataset]:
    """A study that keeps the worker busy for a while."""
    images = []
    for number, name in enumerate(("AX T1", "AX T2", "AX FLAIR"), start=1):
        series = SeriesFacts(number=number, description=name, protocol=name, body_part="BRAIN")
        images += mr_slices(head_phantom(24, 128, 128), study, series)
    return images


class Killer:
    """Kills one process after another, each once a random number of images has been acknowledged and a moment more."""

    def __init__(self, node: Node, sender: PersistentSender, images: int, chance: random.Random) -> None:
        self._node = node
        self._sender = sender
        self._chance = chance
        roles = chance.sample(PLAN, len(PLAN))
        self.plan = list(zip(sorted(chance.sample(range(1, images), len(PLAN))), roles, strict=True))
        self.killed: dict[int, str] = {}

    def run(self) -> None:
        """Carry out the plan."""
        for after, role in self.plan:
            self._node.wait(partial(self._acknowledged, after), f"{after} acknowledged images")
            time.sleep(self._chance.uniform(0, LONGEST_WAIT_BEFORE_A_KILL))
            pid = self._node.wait(partial(self._next, role), f"another {role} runs")
            os.kill(pid, signal.SIGKILL)
            self.killed[pid] = role

    def _acknowledged(self, count: int) -> bool:
        return len(self._sender.acknowledged) >= count

    def _next(self, role: str) -> int | None:
        pid = self._node.running().get(role)
        return None if pid in self.killed else pid


def in_the_middle_of_a_study(node: Node) -> tuple[int, str]:
    """A worker held still (SIGSTOP) while it runs a study, and that study's UID."""

    def begun(uid: str) -> bool:
        study = node.registry.study(uid)
        return study is not None and study.state not in (StudyState.RECEIVING, StudyState.COMPLETE)

    while True:
        study = StudyFacts()
        PersistentSender(node.port, long_study(study)).run()
        node.wait(partial(begun, study.study_uid), "a study runs")
        pid = node.pid("worker")
        os.kill(pid, signal.SIGSTOP)
        if node.study(study.study_uid).state == StudyState.RUNNING:
            return pid, study.study_uid
        os.kill(pid, signal.SIGCONT)  # it was done already: once more


def test_kills_lose_nothing_that_was_acknowledged_and_every_study_ends_in_one_report(house: House) -> None:
    node = house.node
    node.start_unless_running()
    seed = int(os.environ.get("PRIMA_KILL_SEED", secrets.randbits(32)))
    images = [image for _ in range(STUDIES) for image in small_study(StudyFacts(), slices=SLICES)]
    sender = PersistentSender(node.port, images)
    killer = Killer(node, sender, len(images), random.Random(seed))
    print(f"PRIMA_KILL_SEED={seed}", killer.plan)
    with ThreadPoolExecutor() as pool:
        for ended in [pool.submit(sender.run), pool.submit(killer.run)]:
            ended.result()
    assert sorted(killer.killed.values()) == sorted(PLAN)
    assert sender.acknowledged == {image.SOPInstanceUID for image in images}

    def delivered(uid: str) -> bool:
        return node.study(uid).state == StudyState.DELIVERED

    pid, busy = in_the_middle_of_a_study(node)
    os.kill(pid, signal.SIGKILL)
    for uid in {image.StudyInstanceUID for image in images} | {busy}:
        node.wait(partial(delivered, uid), "every study is delivered")
    assert node.study(busy).attempts == 2, "the kill in its middle counts as an attempt"
    statuses = [line["status"] for line in node.log_lines() if line["number"] == Event.PROCESS_ENDED.number]
    assert statuses == [-signal.SIGKILL] * (len(PLAN) + 1), "nothing but the kills ended a process"
    check_spool(node, images)
    check_reports(node, house.archive)


def check_spool(node: Node, images: Sequence[Dataset]) -> None:
    """Every image is in the spool byte for byte, and in the registry as its study's evidence."""
    rows = {row.sop_instance_uid: row for row in node.rows(instances)}
    spool = node.configuration.node.spool
    for image in images:
        sent = encode(image, is_implicit_vr=False, is_little_endian=True)
        assert sent is not None
        row = rows[image.SOPInstanceUID]
        assert (row.standing, row.digest, row.size) == (Standing.CURRENT, hashlib.sha256(sent).hexdigest(), len(sent))
        assert (spool / row.path).read_bytes().endswith(sent)
    assert not list((spool / ".incoming").iterdir()), "nothing half-written stays"


def check_reports(node: Node, archive: Archive) -> None:
    """Every study has one current report, made from all its images; the archive has every report, and no other."""
    made = node.rows(results)
    archived = {document.SOPInstanceUID: document for document in map(dcmread, archive.reports)}
    assert sorted(archived) == sorted(row.sop_instance_uid for row in made)
    evidence_of = {study.id: set[str]() for study in node.registry.studies()}
    for row in node.rows(instances):
        evidence_of[row.study_id].add(row.sop_instance_uid)
    for study in node.registry.studies():
        reports = [row for row in made if row.study_id == study.id]
        assert [row.sop_instance_uid for row in reports if row.revision == study.revision] == [study.report_uid]
        assert [delivery.state for delivery in study.deliveries] == ["delivered"] * len(reports)
        assert evidence(archived[study.report_uid]) == evidence_of[study.id]


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_node_goes_on(house: House) -> None:
    node = house.node
    node.start_unless_running()
    worker, uid = in_the_middle_of_a_study(node)
    orphans = node.running().values()
    node.kill()
    refused = node.cli("serve")
    assert refused.returncode == 2, "a process of the last node still runs"
    assert "node.storage" in refused.stderr
    os.kill(worker, signal.SIGCONT)
    node.wait(lambda: not any(map(alive, orphans)), "all processes end by themselves")
    node.start()
    node.wait_for_state(uid, StudyState.DELIVERED)
    check_reports(node, house.archive)


def test_sigterm_gives_back_what_is_claimed(house: House) -> None:
    node = house.node
    node.start_unless_running()
    worker, uid = in_the_middle_of_a_study(node)
    node.terminate()
    node.wait(lambda: node.log_lines()[-1]["number"] == Event.NODE_STOPPING.number, "the node was told to stop")
    os.kill(worker, signal.SIGCONT)
    assert node.stop() == 0
    [row] = [row for row in node.rows(studies) if row.study_instance_uid == uid]
    assert (row.state, row.attempts, row.owner, row.lease_until) == (StudyState.COMPLETE, 0, None, None)
    assert not [pid for pid in node.running().values() if alive(pid)]


def alive(pid: int) -> bool:
    """Whether a process still does anything; one that only waits for its parent to ask after it does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
