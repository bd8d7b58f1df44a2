"""Spool and registry after a crash: rows for files, lost marks for rows, damaged files out of the way."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy.exc import OperationalError

from dicom_node.base.errors import ConfigurationError
from dicom_node.base.types import Arrival
from dicom_node.intake import reconcile as reconciliation
from dicom_node.intake.identity import read_identity
from dicom_node.intake.reconcile import Reconciliation, reconcile
from dicom_node.intake.spool import Spool, arrival_of
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import instances, studies
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.spool import put

BOUND = 1 << 26


class Node:
    """A spool with some images and a registry."""

    def __init__(self, folder: Path, images: int = 3) -> None:
        self.url = f"sqlite:///{folder / 'registry.sqlite'}"
        migrate(self.url)
        self.registry = Registry(self.url)
        self.spool = Spool(folder / "spool")
        self.spool.prepare()
        self.arrivals = [self._store(number) for number in range(images)]

    def _store(self, number: int) -> Arrival:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, mr_slices(head_phantom(1, 16, 16), StudyFacts(patient_id=f"P{number}"))[0])
        data = buffer.getvalue()
        arrival = arrival_of(
            read_identity(BytesIO(data), ExplicitVRLittleEndian, BOUND),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            digest=hashlib.sha256(data).hexdigest(),
            size=len(data),
            calling_ae="SENDER",
            urgent=number == 0,
            received_at=1700000000.0 + number,
            association_id=None,
        )
        put(self.spool, arrival, data)
        return arrival

    def reconcile(self) -> Reconciliation:
        return reconcile(self.spool, self.registry, BOUND, threading.Event())

    def standings(self) -> dict[str, str]:
        with sa.create_engine(self.url).connect() as connection:
            return {row.path: row.standing for row in connection.execute(sa.select(instances))}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_files_without_rows_get_their_rows_back(node: Node) -> None:
    assert node.reconcile() == Reconciliation(recorded=3, lost=0, unreadable=0)
    assert node.standings() == {arrival.path: "current" for arrival in node.arrivals}
    with sa.create_engine(node.url).connect() as connection:
        urgent = {row.id: row.urgent for row in connection.execute(sa.select(studies))}
    assert urgent == {arrival.study_id: number == 0 for number, arrival in enumerate(node.arrivals)}


def test_what_agrees_is_left_alone(node: Node) -> None:
    node.registry.record_arrivals(node.arrivals)
    before = node.standings()
    assert node.reconcile() == Reconciliation(recorded=0, lost=0, unreadable=0)
    assert node.standings() == before


def test_rows_without_files_are_marked_lost_and_found_again(node: Node) -> None:
    node.registry.record_arrivals(node.arrivals)
    gone = node.spool.folder / node.arrivals[1].path
    content = gone.read_bytes()
    gone.unlink()
    assert node.reconcile() == Reconciliation(recorded=0, lost=1, unreadable=0)
    assert node.standings()[node.arrivals[1].path] == "lost"
    gone.write_bytes(content)
    assert node.reconcile() == Reconciliation(recorded=1, lost=0, unreadable=0)
    assert node.standings()[node.arrivals[1].path] == "current"


def test_a_spool_without_any_file_is_not_mounted_rather_than_lost(node: Node) -> None:
    node.registry.record_arrivals(node.arrivals)
    for arrival in node.arrivals:
        (node.spool.folder / arrival.path).unlink()
    with pytest.raises(ConfigurationError, match="is it mounted"):
        node.reconcile()
    assert set(node.standings().values()) == {"current"}
    (node.spool.folder / reconciliation.FILES_ARE_LOST).touch()
    assert node.reconcile().lost == 3


def test_a_study_is_recorded_whole(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "GROUP", 1)
    same = [replace(arrival, study_instance_uid="1.2") for arrival in node.arrivals]
    monkeypatch.setattr(node.spool, "read", lambda path, _: next(one for one in same if one.path == path))
    recorded: list[int] = []
    monkeypatch.setattr(node.registry, "record_arrivals", lambda arrivals: recorded.append(len(arrivals)))
    node.reconcile()
    assert recorded == [3]


def test_a_damaged_file_is_moved_aside_and_the_rest_recorded(node: Node) -> None:
    damaged = node.spool.folder / node.arrivals[1].path
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert node.reconcile() == Reconciliation(recorded=2, lost=0, unreadable=1)
    assert sorted(node.standings()) == sorted(node.arrivals[number].path for number in (0, 2))
    assert len(list((node.spool.folder / ".unreadable").iterdir())) == 1
    assert node.reconcile() == Reconciliation(recorded=0, lost=0, unreadable=0)


def test_a_file_that_the_disk_does_not_give_stays_and_the_rest_is_recorded(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, real = node.arrivals[1].path, node.spool.read

    def read(path: str, bound: int) -> Arrival:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, bound)

    monkeypatch.setattr(node.spool, "read", read)
    assert node.reconcile() == Reconciliation(recorded=2, lost=0, unreadable=1)
    monkeypatch.undo()
    assert node.reconcile() == Reconciliation(recorded=1, lost=0, unreadable=0)


def test_a_row_that_the_database_will_not_take_keeps_nothing_else_out(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, real = node.arrivals[1].path, node.registry.record_arrivals

    def record_arrivals(arrivals: Sequence[Arrival]) -> None:
        if any(arrival.path == bad for arrival in arrivals):
            raise sa.exc.IntegrityError("INSERT", {}, Exception("refused"))
        real(arrivals)

    monkeypatch.setattr(node.registry, "record_arrivals", record_arrivals)
    assert node.reconcile() == Reconciliation(recorded=2, lost=0, unreadable=0)


def test_it_waits_for_a_database_that_is_away(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    away = iter([True, True])
    real = node.registry.known_paths

    def known_paths() -> object:
        if next(away, False):
            raise OperationalError("SELECT", {}, Exception("away"))
        return real()

    monkeypatch.setattr(node.registry, "known_paths", known_paths)
    assert node.reconcile().recorded == 3


def test_it_gives_up_when_told_to(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def known_paths() -> object:
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(node.registry, "known_paths", known_paths)
    stop = threading.Event()
    stop.set()
    with pytest.raises(OperationalError):
        reconcile(node.spool, node.registry, BOUND, stop)
