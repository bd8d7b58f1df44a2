"""What a silent node had received: rows that it never wrote, and associations that it left open.

That claims and deliveries come back as leases end is tested where they are made, and with real nodes in
`tests/integration/test_several_nodes.py`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from dicom_node.base.config import Configuration, NodeSection, configuration_from
from dicom_node.base.events import Event
from dicom_node.base.types import Arrival, StudyState, study_id
from dicom_node.intake.identity import read_identity
from dicom_node.intake.spool import Spool, arrival_of
from dicom_node.jobs.nodes import SILENT_SECONDS
from dicom_node.jobs.registry import Registry
from dicom_node.takeover import LOOK_SECONDS, Takeover
from support.dicom_factory import StudyFacts
from support.node import small_study
from support.spool import put
from support.studies import new_registry

STUDY = StudyFacts()
LONG_AGO = time.time() - 2 * SILENT_SECONDS
GONE = NodeSection(name="gone")


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    node = {"name": "a", "storage": str(tmp_path), "database": "postgresql://stands/for/another"}
    return configuration_from({"node": node}, tmp_path)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Of the node `gone`, which stopped a while ago with an association open."""
    opened = new_registry(tmp_path)
    opened.join("gone", "host", {}, LONG_AGO)
    opened.beat(GONE.process("receiver"), 1, "ready", LONG_AGO)
    opened.open_association("left open", GONE.boot("run"), "PACS", "::1", LONG_AGO)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last value is the time by the monotonic clock."""
    values = [1000.0]
    monkeypatch.setattr("dicom_node.takeover.time.monotonic", lambda: values[-1])
    return values


def settled(configuration: Configuration, registry: Registry, clock: list[float]) -> Takeover:
    """One that has found the database answering for long enough."""
    takeover = Takeover(configuration, registry, "a-1", threading.Event())
    for _ in range(3):
        takeover.look()
        clock.append(clock[-1] + LOOK_SECONDS)
    return takeover


def numbers(takeover: Takeover) -> list[int]:
    """Of the events of one look."""
    with capture_logs() as lines:
        takeover.look()
    return [line["number"] for line in lines]


def stored(spool: Spool, image: Dataset) -> Arrival:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, image)
    data = buffer.getvalue()
    arrival = arrival_of(
        read_identity(BytesIO(data), ExplicitVRLittleEndian, 1 << 20),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        digest=hashlib.sha256(data).hexdigest(),
        size=len(data),
        calling_ae="PACS",
        urgent=False,
        received_at=LONG_AGO,
        association_id="left open",
    )
    put(spool, arrival, data)
    return arrival


def test_images_that_a_node_acknowledged_and_never_recorded_are_in_the_study_that_is_closed(
    configuration: Configuration, registry: Registry, clock: list[float]
) -> None:
    spool = Spool(configuration.node.spool, "gone")
    spool.prepare()
    images = [stored(spool, image) for image in small_study(STUDY, slices=2)]
    registry.record_arrivals(images[:1])
    now = time.time()
    registry.close_quiet(now, 0, now)
    assert registry.state_counts()[StudyState.RECEIVING] == 1, "its association is open"
    with capture_logs() as lines:
        settled(configuration, registry, clock)
    [line] = lines
    assert (line["number"], line["node"], line["count"]) == (Event.NODE_LOOKED_AFTER.number, "gone", len(images) - 1)
    assert registry.standings(study_id(STUDY.study_uid)) == {"current": len(images)}
    registry.close_quiet(now, 0, now)
    assert registry.state_counts()[StudyState.COMPLETE] == 1


def test_what_another_receiver_is_writing_stays(configuration: Configuration) -> None:
    one, other = Spool(configuration.node.spool, "a"), Spool(configuration.node.spool, "gone")
    one.prepare()
    half_written = next(folder for folder in configuration.node.spool.iterdir() if folder.name.endswith("-a")) / "half"
    half_written.touch()
    other.prepare()
    assert half_written.exists()
    one.prepare()
    assert not half_written.exists(), "of its own it removes what a kill left"


def test_a_node_that_was_heard_of_is_left_alone(
    configuration: Configuration, registry: Registry, clock: list[float]
) -> None:
    registry.beat(GONE.process("receiver"), 1, "ready", time.time())
    assert numbers(settled(configuration, registry, clock)) == []


@pytest.mark.parametrize("how", ["it raises", "a call hangs"])
def test_whom_nobody_could_hear_of_while_the_database_was_away_is_not_taken_for_dead(
    configuration: Configuration, registry: Registry, clock: list[float], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    registry.beat(GONE.process("receiver"), 1, "ready", time.time())
    takeover = settled(configuration, registry, clock)
    registry.beat(GONE.process("receiver"), 1, "ready", LONG_AGO)  # which the database's absence looks like
    if how == "it raises":
        with monkeypatch.context() as patch:
            patch.setattr(registry, "processes", raising(OperationalError("SELECT", {}, Exception())))
            with pytest.raises(OperationalError):
                takeover.look()
    else:
        clock.append(clock[-1] + SILENT_SECONDS)
    assert numbers(takeover) == [], "it has had no time to be heard of"
    for _ in range(2):
        clock.append(clock[-1] + LOOK_SECONDS)
        seen = numbers(takeover)
    assert seen == [Event.NODE_LOOKED_AFTER.number]


def raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call
