"""The recurring work about corrections, on files: what a kill in between leaves, and what the disk does not give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from dicom_node import corrections
from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.errors import DiskFull
from dicom_node.base.events import Event
from dicom_node.base.orders import Handover
from dicom_node.base.sent import sent_object
from dicom_node.base.types import KeyObjects, Rejection, ToSend, study_id
from dicom_node.corrections import Corrections
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.rejections import KEY_OBJECT_SELECTION
from dicom_node.jobs.tables import deliveries
from support.sent_reports import sent_report
from support.studies import arrival, new_registry, report

STUDY = study_id("1.2.3")
RETENTION = KeyObjects(Rejection.RETENTION, (("1.2.3", "1.2.3.1", "1.2.3.1.1"),))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> Configuration:
    return configuration_from({"node": {"storage": str(tmp_path)}}, tmp_path)


def nothing(_: Sequence[Path]) -> list[tuple[bool, KeyObjects | None]]:
    raise AssertionError("no note to read")


def withdrawn(registry: Registry, node: Configuration, *, noted: bool = False, lost: bool = False) -> Path:
    """A result that was sent and then withdrawn; the report's file.

    noted: what left was noted. lost: another object was sent too, of which nothing is left.
    """
    path = sent_report(node.node.outgoing)
    registry.record_arrivals([arrival(1)])
    registry.close_quiet(200, 0, 200)
    claim = registry.claim("w", 1e9, 210)
    assert claim is not None
    objects = [ToSend("pacs", "sr", path.name), *([ToSend("pacs", "sc", "gone.dcm")] if lost else [])]
    registry.finish_reported(claim, report(), Handover(tuple(objects)), 220)
    for _ in objects:
        delivery = registry.claim_delivery("o", "pacs", 1e9, 230)
        assert delivery is not None
        if noted:
            sent = sent_object(node.node.outgoing, path.name)
            assert sent is not None
            registry.note_sent(delivery, sent, 230)
        registry.delivered(delivery, 240)
    registry.withdraw(STUDY, Rejection.QUALITY, "tester", 250)
    return path


def queued(registry: Registry) -> list[tuple[str, str | None]]:
    with registry._read() as connection:
        notes = sa.select(deliveries).where(deliveries.c.kind == "reject")
        return [(row.state, row.path) for row in connection.execute(notes)]


def test_a_note_is_durable_before_it_is_queued_and_queued_once(
    registry: Registry, node: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawn(registry, node)
    jobs = Corrections(node, registry, nothing)
    with monkeypatch.context() as killed:
        killed.setattr(registry, "complete_withdrawal", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            jobs.complete_withdrawals()
    files = {path.name for path in node.node.outgoing.iterdir()}
    assert (len(files), queued(registry)) == (2, [])
    for _ in range(2):
        Corrections(node, registry, nothing).complete_withdrawals()
    assert {path.name for path in node.node.outgoing.iterdir()} == files, "the same note"
    [(state, path)] = queued(registry)
    assert (state, path in files) == ("pending", True)


def test_a_report_that_is_gone_leaves_the_rejection_to_a_person(registry: Registry, node: Configuration) -> None:
    withdrawn(registry, node).unlink()
    with capture_logs() as lines:
        Corrections(node, registry, nothing).complete_withdrawals()
    assert [line["number"] for line in lines] == [Event.NOTE_NOT_WRITTEN.number]
    assert queued(registry) == [("set_aside", None)]
    assert registry.withdrawals_due() == []


def test_a_result_is_rejected_after_its_bytes_have_gone(registry: Registry, node: Configuration) -> None:
    path = withdrawn(registry, node, noted=True)
    path.unlink()
    with capture_logs() as lines:
        Corrections(node, registry, nothing).complete_withdrawals()
    assert [line["number"] for line in lines] == [Event.NOTE_WRITTEN.number]
    [(state, note)] = queued(registry)
    assert (state, (node.node.outgoing / str(note)).exists()) == ("pending", True)


def test_a_lost_object_is_said_and_the_others_are_rejected(registry: Registry, node: Configuration) -> None:
    withdrawn(registry, node, lost=True)
    with capture_logs() as lines:
        Corrections(node, registry, nothing).complete_withdrawals()
    assert [line["number"] for line in lines] == [Event.NOTE_WRITTEN.number, Event.NOTE_INCOMPLETE.number]
    assert [line["count"] for line in lines] == [1, 1]
    assert [state for state, _ in queued(registry)] == ["pending"]


def test_sent_files_are_deleted_once(registry: Registry, node: Configuration) -> None:
    path = withdrawn(registry, node, noted=True)
    jobs = Corrections(node, registry, nothing)
    jobs.delete_sent()
    assert path.exists(), "its rejection note is still to be written"
    jobs.complete_withdrawals()
    path.write_bytes(b"as a run that was killed leaves it")
    with capture_logs() as lines:
        for _ in range(2):
            jobs.delete_sent()
    assert not path.exists()
    assert [(line["number"], line["count"]) for line in lines] == [(Event.SENT_DELETED.number, 1)]


def test_without_the_folder_nothing_is_deleted(registry: Registry, node: Configuration) -> None:
    withdrawn(registry, node, noted=True)
    jobs = Corrections(node, registry, nothing)
    jobs.complete_withdrawals()
    node.node.outgoing.rename(node.node.outgoing.with_name("elsewhere"))
    jobs.delete_sent()
    assert len(registry.unneeded(1e12)) == 1


def test_a_full_disk_only_postpones_the_note(
    registry: Registry, node: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawn(registry, node)
    with monkeypatch.context() as full:
        full.setattr(corrections, "write_report", _no_space)
        Corrections(node, registry, nothing).complete_withdrawals()
    assert (queued(registry), len(registry.withdrawals_due())) == ([], 1)
    Corrections(node, registry, nothing).complete_withdrawals()
    assert len(queued(registry)) == 1


def _no_space(*_: object) -> Path:
    raise DiskFull("no space")


def a_note(registry: Registry, node: Configuration, *images: int) -> None:
    """Files of some images and of a note."""
    came = [arrival(number) for number in images]
    came.append(arrival(9, sop_class_uid=KEY_OBJECT_SELECTION, image=False))
    registry.record_arrivals(came)
    for one in came:
        file = node.node.spool / one.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"file")


def test_expired_files_are_deleted_whatever_was_done_before(registry: Registry, node: Configuration) -> None:
    a_note(registry, node, 1, 2)
    jobs = Corrections(node, registry, lambda _: [(True, RETENTION)])
    jobs.examine_notes()
    (node.node.spool / arrival(1).path).unlink()  # as a run that was killed leaves it
    jobs.delete_expired()
    jobs.delete_expired()
    assert sorted(path.name for path in node.node.spool.glob("*/*")) == sorted(
        Path(arrival(number).path).name for number in (2, 9)
    )
    assert registry.expired_files() == []


def test_a_whole_study_that_expired_leaves_no_folder(registry: Registry, node: Configuration) -> None:
    a_note(registry, node, 1)
    jobs = Corrections(node, registry, lambda _: [(True, RETENTION)])
    jobs.examine_notes()
    jobs.delete_expired()
    assert list(node.node.spool.iterdir()) == []


def test_a_note_that_the_disk_does_not_give_is_given_up_in_the_end_and_holds_up_no_other(
    registry: Registry, node: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrections, "READINGS", 3)
    a_note(registry, node, 1)
    second = arrival(10, at=200, sop_class_uid=KEY_OBJECT_SELECTION, image=False)
    registry.record_arrivals([second])
    jobs = Corrections(node, registry, lambda paths: [(False, None), (True, KeyObjects(None))][: len(paths)])
    jobs.examine_notes()
    assert len(registry.unexamined_notes()) == 1
    jobs.examine_notes()
    with capture_logs() as lines:
        jobs.examine_notes()
    assert registry.unexamined_notes() == []
    assert [line["number"] for line in lines] == [Event.REJECTION_IGNORED.number]
