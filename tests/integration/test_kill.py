"""Kill -9 of the supervisor, and SIGTERM, both in the middle of work.

Kills of every process at any moment, and what must be there after them: `tests/faults`.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.base.types import StudyState
from dicom_node.demo.archive import AE_TITLE as ARCHIVE_AE
from dicom_node.demo.archive import Archive
from dicom_node.jobs.tables import instances, results, studies
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, mr_slices
from support.node import Node, destination, evidence
from support.persistent_sender import PersistentSender

pytestmark = pytest.mark.slow

ATTEMPTS = 5  # to hold a study before its last chunk of tokens


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
    for _ in range(ATTEMPTS):
        node.start_unless_running()
        worker, uid = in_the_middle_of_a_study(node)
        node.terminate()
        node.wait(partial(told_to_stop, worker), "the worker was told to stop")
        os.kill(worker, signal.SIGCONT)
        assert node.stop() == 0
        assert not [pid for pid in node.running().values() if alive(pid)]
        [row] = [row for row in node.rows(studies) if row.study_instance_uid == uid]
        if row.state != StudyState.REPORTED:  # held in its last chunk of tokens, a study is finished: once more
            break
    assert (row.state, row.attempts, row.owner, row.lease_until) == (StudyState.COMPLETE, 0, None, None)


def told_to_stop(held: int) -> bool:
    """Whether SIGTERM waits for a process that is held still (`ShdPnd` of proc(5))."""
    [pending] = re.findall(r"^ShdPnd:\t(\w+)$", Path(f"/proc/{held}/status").read_text(), re.MULTILINE)
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def alive(pid: int) -> bool:
    """Whether a process still does anything; one that only waits for its parent to ask after it does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
