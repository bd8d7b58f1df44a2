"""Nothing acknowledged is lost: full disk, absent database, graceful stop, and kill -9 of the receiver in mid-send."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.base.config import Configuration
from dicom_node.intake.spool import Spool
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import associations
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.peers import (
    AE_TITLE,
    CLIENT,
    RunningReceiver,
    configuration_for,
    free_port,
    receiver,
    receiver_process,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("storing")


def images(count: int) -> list[Dataset]:
    return mr_slices(head_phantom(count, 32, 32), StudyFacts())


def associate(port: int) -> Association:
    ae = AE("SENDER")
    ae.add_requested_context(MRImageStorage, "1.2.840.10008.1.2.1")
    association = ae.associate("127.0.0.1", port, ae_title=AE_TITLE, evt_handlers=CLIENT)
    assert association.is_established
    return association


def whole_files(node: RunningReceiver) -> set[str]:
    """SOP Instance UIDs in the spool; every file there must be whole."""
    found = set()
    for path in node.spool.folder.rglob("*"):
        if path.is_file():
            found.add(node.spool.read(path.relative_to(node.spool.folder).as_posix(), 1 << 30).sop_instance_uid)
    return found


def test_a_full_disk_is_answered_as_out_of_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = images(2)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with receiver(tmp_path) as node:
        association = associate(node.port)
        assert association.send_c_store(first).Status == 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert association.send_c_store(second).Status == 0xA700
        assert whole_files(node) == {first.SOPInstanceUID}
        assert association.send_c_store(second).Status == 0
        association.release()
        assert node.standings() == {"current": 2}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB where the spool will be."""
    spool = tmp_path / "node" / "spool"
    spool.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(spool)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield spool
    subprocess.run(["umount", "-l", str(spool)], check=True)


def test_a_disk_that_fills_up_keeps_what_was_acknowledged_and_nothing_half(tmp_path: Path, small_disk: Path) -> None:
    large = mr_slices(head_phantom(20, 256, 256), StudyFacts())
    with receiver(tmp_path, reserve_bytes=0) as node:
        association = associate(node.port)
        statuses = {str(image.SOPInstanceUID): association.send_c_store(image).Status for image in large}
        acknowledged = {uid for uid, status in statuses.items() if status == 0}
        assert 0 < len(acknowledged) < 20
        assert set(statuses.values()) == {0, 0xA700}
        assert whole_files(node) == acknowledged
        # Room again, for as long as it lasts.
        small_disk.joinpath(next(node.spool.paths())).unlink()
        refused = next(image for image in large if str(image.SOPInstanceUID) not in acknowledged)
        assert association.send_c_store(refused).Status == 0
        association.release()


def test_images_are_taken_while_the_database_is_locked_and_their_rows_follow(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        lock = sqlite3.connect(node.configuration.node.storage / "registry.sqlite", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        association = associate(node.port)
        assert [association.send_c_store(image).Status for image in images(5)] == [0] * 5
        association.release()
        assert node.rows() == []
        lock.execute("ROLLBACK")
        lock.close()
        assert node.standings() == {"current": 5}


def test_a_graceful_stop_leaves_a_row_for_every_file(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    with receiver(tmp_path) as node:
        sender = threading.Thread(target=send_until_cut, args=(node.port, images(400), acknowledged, lambda: None))
        sender.start()
        wait_until(lambda: len(acknowledged) >= 20)
        configuration = node.configuration
    sender.join()
    node = RunningReceiver(configuration, Registry(configuration.node.database_url), Spool(configuration.node.spool))
    recorded = {row.sop_instance_uid for row in node.rows()}
    assert acknowledged <= recorded == whole_files(node)
    assert len(acknowledged) < 400
    assert all(row.closed_at is not None for row in node.rows(associations))


def send_until_cut(port: int, queue: list[Dataset], acknowledged: set[str], after_each: object) -> None:
    """Send until all is sent or the node is gone; note what was answered with Success."""
    association = associate(port)
    for image in queue:
        try:
            status = association.send_c_store(image)
        except RuntimeError:
            return  # the association is gone
        if "Status" not in status or status.Status != 0:
            return
        acknowledged.add(str(image.SOPInstanceUID))
        if callable(after_each):
            after_each()
    association.release()


def restarted(configuration: Configuration) -> Configuration:
    """The same state behind a fresh port: the old one may be in the hands of the kernel for a while."""
    node = configuration.node.model_copy(update={"port": free_port()})
    return configuration.model_copy(update={"node": node})


@pytest.mark.parametrize("seed", [1])
def test_kill_9_in_mid_send_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    study = images(150)
    acknowledged: set[str] = set()
    configuration = configuration_for(tmp_path, free_port())
    for _ in range(2):
        configuration = restarted(configuration)
        with receiver_process(tmp_path, configuration) as process:
            kill_at = len(acknowledged) + generator.randrange(5, 40)

            def kill_when_due(process: subprocess.Popen[str] = process, kill_at: int = kill_at) -> None:
                if len(acknowledged) >= kill_at:
                    process.kill()

            remaining = [image for image in study if str(image.SOPInstanceUID) not in acknowledged]
            send_until_cut(configuration.node.port, remaining, acknowledged, kill_when_due)
            assert process.wait() == -9
    configuration = restarted(configuration)
    node = RunningReceiver(configuration, Registry(configuration.node.database_url), Spool(configuration.node.spool))
    sent = {str(image.SOPInstanceUID): image for image in study}
    with receiver_process(tmp_path, configuration):
        # It listens only after spool and registry agree.
        rows = {row.sop_instance_uid: row for row in node.rows()}
        assert acknowledged <= set(rows)
        assert {row.standing for row in rows.values()} == {"current"}
        assert whole_files(node) == set(rows)
        for uid in acknowledged:
            stored = dcmread(node.spool.folder / rows[uid].path)
            assert stored == sent[uid]
        assert all(row.closed_at is not None for row in node.rows(associations))
        # The sender, who does not know what arrived, sends everything again.
        again: set[str] = set()
        send_until_cut(configuration.node.port, study, again, None)
        assert len(again) == len(study)
        wait_until(lambda: len(node.rows()) == len(study))
    assert {row.standing for row in node.rows()} == {"current"}
