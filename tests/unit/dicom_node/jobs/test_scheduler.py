"""Recurring work: closing, settling, reclaiming, deleting; a failing job neither stops nor hides the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.types import Verdict
from dicom_node.jobs import pruning
from dicom_node.jobs import scheduler as scheduling
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.scheduler import Housekeeping
from dicom_node.jobs.tables import associations
from support.studies import arrival, new_registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path)


def configured(tmp_path: Path) -> Configuration:
    return configuration_from({"node": {"storage": str(tmp_path)}, "intake": {"stability_seconds": 5}}, tmp_path)


def never(_: object) -> list[Verdict | None]:
    raise AssertionError("nothing to compare")


def test_quiet_studies_are_closed(registry: Registry, tmp_path: Path) -> None:
    registry.record_arrivals([arrival(1)])
    Housekeeping(configured(tmp_path), registry, never, Pulse()).close_quiet_studies()
    assert registry.state_counts()["complete"] == 1


def test_disputes_are_settled_by_comparing_the_files(registry: Registry, tmp_path: Path) -> None:
    first, second = arrival(1), arrival(1, content="other")
    registry.record_arrivals([first, second])
    asked: list[tuple[Path, Path]] = []

    def compare(pairs: Sequence[tuple[Path, Path]]) -> list[Verdict | None]:
        asked.extend(pairs)
        return [Verdict.CORRECTION]

    configuration = configured(tmp_path)
    Housekeeping(configuration, registry, compare, Pulse()).settle_disputes()
    assert asked == [(configuration.node.spool / first.path, configuration.node.spool / second.path)]
    assert registry.standings(first.study_id) == {"current": 1, "superseded": 1}


def test_the_good_copy_takes_the_place_of_a_first_file_that_is_gone(registry: Registry, tmp_path: Path) -> None:
    first, second = arrival(1), arrival(1, content="other")
    registry.record_arrivals([first, second])
    there = configured(tmp_path).node.spool / second.path
    there.parent.mkdir(parents=True)
    there.touch()
    Housekeeping(configured(tmp_path), registry, lambda _: [None], Pulse()).settle_disputes()
    assert registry.standings(first.study_id) == {"lost": 1, "current": 1}


def test_a_pair_that_can_never_be_read_is_quarantined_in_the_end(registry: Registry, tmp_path: Path) -> None:
    first, second = arrival(1), arrival(1, content="other")
    registry.record_arrivals([first, second])
    jobs = Housekeeping(configured(tmp_path), registry, lambda pairs: [None] * len(pairs), Pulse())
    for _ in range(scheduling.COMPARISONS - 1):
        jobs.settle_disputes()
    assert registry.standings(first.study_id) == {"current": 1, "disputed": 1}
    jobs.settle_disputes()
    assert registry.standings(first.study_id) == {"current": 1, "quarantined": 1}


def test_a_study_whose_worker_fell_silent_is_taken_back(registry: Registry, tmp_path: Path) -> None:
    registry.record_arrivals([arrival(1)])
    registry.close_quiet(200, 0, 200)
    registry.claim("w", lease_until=201, at=200)
    Housekeeping(configured(tmp_path), registry, never, Pulse()).reclaim_lost_studies()
    assert registry.state_counts()["complete"] == 1


def test_what_is_outdated_is_deleted_and_told_and_the_rest_waits(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        kept = registry.keep_message(b"%d" % number, f"{number}", "127.0.0.1", 100.0 if number < 4 else time.time())
        registry.note_refusal(kept.id, "no MSH")
    jobs = Housekeeping(configured(tmp_path), registry, never, Pulse())
    monkeypatch.setattr(scheduling, "PRUNE_PAUSE_SECONDS", 0)
    monkeypatch.setattr(scheduling, "PRUNE_ROUNDS", 1)
    monkeypatch.setattr(pruning, "CHUNK", 3)
    with capture_logs() as lines:
        for _ in range(3):
            jobs.delete_outdated()
    assert [(line["number"], line["job"], line["count"]) for line in lines] == [
        (3012, "HL7 messages", 3),
        (3012, "HL7 messages", 1),
    ]
    assert registry.keep_message(b"4", "4", "127.0.0.1", 0.0).id == 5, "the young one is still there"


def test_a_failing_job_is_logged_and_runs_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "SETTLE_SECONDS", 0.05)
    twice = threading.Semaphore(0)

    def compare(_: object) -> list[Verdict | None]:
        twice.release()
        raise OSError("the file is away")

    registry.record_arrivals([arrival(1), arrival(1, content="other")])
    with capture_logs() as lines:
        scheduler = Housekeeping(configured(tmp_path), registry, compare, Pulse()).scheduler()
        scheduler.start()
        try:
            assert all(twice.acquire(timeout=60) for _ in range(2))
        finally:
            scheduler.shutdown()
    failures = [line for line in lines if line["number"] == 3011]
    assert failures
    assert failures[0]["error"] == "OSError"


@pytest.mark.parametrize("audited", [False, True])
def test_associations_wait_for_the_audit_trail_where_there_is_one(
    registry: Registry, tmp_path: Path, audited: bool
) -> None:
    table = {"node": {"storage": str(tmp_path)}, "audit": {"enabled": audited}}
    registry.open_association("old", "boot", "PACS", "127.0.0.1", 1.0)
    registry.close_association("old", 2.0)
    Housekeeping(configuration_from(table, tmp_path), registry, never, Pulse()).delete_outdated()
    with registry._read() as connection:
        assert len(connection.execute(sa.select(associations)).all()) == audited
