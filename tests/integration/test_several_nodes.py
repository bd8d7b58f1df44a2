"""Two nodes on one PostgreSQL registry and one storage folder; the machine of one of them is gone in the middle.

The other node's claim is made by the test. The longer form, with whole nodes and more kills, is
`tests/benchmarks/many_nodes.py`. Not covered: a shared file system whose caches lag behind (both nodes run on this
machine).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy.exc import DBAPIError

from dicom_node.base.events import Event
from dicom_node.base.types import Claim, study_id
from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.processes import ProcessView
from dicom_node.jobs.tables import results
from support.dicom_factory import StudyFacts
from support.node import Node, destination, evidence, send, small_study
from support.peers import AE_TITLE as NODE_AE_TITLE
from support.peers import CLIENT
from support.postgres import PostgresServer
from support.several_nodes import several_nodes

STUDIES = 4
LEASE_SECONDS = 4.0


def numbers(node: Node) -> set[int]:
    """Of the events in its log."""
    return {line["number"] for line in node.log_lines()}


@contextmanager
def begun(port: int, image: Dataset) -> Iterator[Association]:
    """An association over which one image was taken, and nothing more happens."""
    entity = AE("SENDER")
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title=NODE_AE_TITLE, evt_handlers=CLIENT)
    try:
        assert association.send_c_store(image).Status == 0
        yield association
    finally:
        association.abort()


@contextmanager
def without_worker(node: Node) -> Iterator[None]:
    """The node, its worker stopped (SIGSTOP) before it loads anything: what a worker does is done by the test."""
    group = node.launch().pid
    try:
        os.kill(node.pid("worker"), signal.SIGSTOP)
        ready = [("receiver@b", "ready"), ("scheduler@b", "ready")]
        node.wait(lambda: set(ready) <= {(one.name, one.status) for one in processes(node)}, "the node receives")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def processes(node: Node) -> Sequence[ProcessView]:
    try:
        return node.registry.processes()
    except DBAPIError:  # there is no schema yet
        return ()


def claim(node: Node, at: float) -> Claim | None:
    return node.registry.claim(f"{node.configuration.node.name}-worker", at + LEASE_SECONDS, at)


@pytest.mark.peers
@pytest.mark.slow
def test_what_a_node_had_when_its_machine_died_is_finished_once_by_the_other(
    tmp_path: Path, postgres: PostgresServer, random_bundle: Path
) -> None:
    interrupted, *others = [StudyFacts() for _ in range(STUDIES)]
    images = small_study(interrupted)
    with Archive(tmp_path / "archive") as archive:
        to = destination("pacs", AE_TITLE, archive.port, timeout_seconds=1.0)
        url = postgres.new_database()
        nodes = several_nodes(tmp_path, random_bundle, url, ["a", "b"], destinations=[to], hurry=True)
        a, b = nodes["a"], nodes["b"]
        with a, without_worker(b):
            os.kill(a.pid("worker"), signal.SIGSTOP)  # nothing waits yet, so it keeps no study locked
            with begun(b.port, images[0]):
                for number, study in enumerate(others):
                    assert set(send((a, b)[number % 2].port, small_study(study))) == {0}
                a.wait(lambda: claim(b, time.time()), "a study is closed and b has it")
                b.kill_all()
            os.kill(a.pid("worker"), signal.SIGCONT)
            assert set(send(a.port, images)) == {0}, "its sender begins again with the node that is left"
            for study in (interrupted, *others):
                a.wait_for_state(study.study_uid, "delivered")
            made = Counter((row.study_id, row.revision) for row in a.rows(results))
            assert made == {(study_id(study.study_uid), 1): 1 for study in (interrupted, *others)}
            reports = [dcmread(path) for path in archive.reports]
            by_study = {str(one.StudyInstanceUID): evidence(one) for one in reports}
            assert by_study[interrupted.study_uid] == {str(image.SOPInstanceUID) for image in images}
            assert len({str(one.SOPInstanceUID) for one in reports}) == len(by_study) == STUDIES
            assert {Event.STUDY_RELEASED.number, Event.NODE_LOOKED_AFTER.number} <= numbers(a)
            [told] = [line for line in a.log_lines() if line["number"] == Event.STUDY_OVER_NODES.number]
            assert (told["study"], told["node"]) == (study_id(interrupted.study_uid), "a, b")
