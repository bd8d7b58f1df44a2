"""Retention: which files go, in what order, which never; and that rows and files agree whatever is killed in between.

Not covered: that the scheduler does it every minute.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from dicom_node import cleaning
from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.disk import Usage
from dicom_node.base.errors import PermanentError
from dicom_node.base.events import Event
from dicom_node.base.types import Arrival, Rejection, Verdict, study_id
from dicom_node.cleaning import Cleaning
from dicom_node.jobs.claims import IMAGES_CLEANED
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.rejections import KEY_OBJECT_SELECTION
from dicom_node.jobs.scheduler import Housekeeping
from dicom_node.jobs.tables import instances, results, studies
from support.studies import arrival, handover, new_registry, report

NOW = time.time()
DAY = 86400.0


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is done."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry's file, made once."""
    folder = tmp_path_factory.mktemp("empty")
    new_registry(folder).close()
    return folder / "registry.sqlite"


@pytest.fixture
def registry(tmp_path: Path, empty: Path) -> Iterator[Registry]:
    made = Registry(f"sqlite:///{shutil.copy(empty, tmp_path / 'registry.sqlite')}")
    yield made
    made.close()


def configured(folder: Path, **retention: float) -> Configuration:
    return configuration_from({"node": {"storage": str(folder)}, "retention": retention}, folder)


def receive(registry: Registry, folder: Path, *came: Arrival) -> None:
    registry.record_arrivals(list(came))
    for one in came:
        file = configured(folder).node.spool / one.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * one.size)
        os.utime(file, (one.received_at, one.received_at))


def finished(registry: Registry, folder: Path, uid: str, days: float, *, delivered: bool = True) -> None:
    """A study of two images whose report was delivered so many days ago."""
    at = NOW - days * DAY
    receive(registry, folder, arrival(1, study=uid, at=at - 200), arrival(2, study=uid, at=at - 200))
    reported(registry, uid, at, delivered=delivered)


def reported(registry: Registry, uid: str, at: float, *, delivered: bool = True, revision: int = 1) -> None:
    registry.close_quiet(at - 100, 0, at - 50)
    claim = registry.claim("w", at + 1000, at)
    assert claim is not None
    made = replace(report(uid, revision), sop_instance_uid=f"2.25.{uid}")
    registry.finish_reported(claim, made, handover("pacs"), at)
    if delivered:
        delivery = registry.claim_delivery("o", "pacs", at + 1000, at)
        assert delivery is not None
        registry.delivered(delivery, at)


def spooled(folder: Path) -> set[str]:
    """Short ids of the studies that have a file."""
    return {path.parent.name for path in (folder / "spool").glob("*/*.dcm")}


def disagreeing(registry: Registry, folder: Path) -> set[str]:
    """Paths of which row and file do not say the same."""
    files = {path.relative_to(folder / "spool").as_posix() for path in (folder / "spool").glob("*/*.dcm")}
    return files ^ set(registry.known_paths())


def shrinking(folder: Path, capacity: int) -> Callable[[Path], Usage]:
    """A disk of so many bytes on which there is nothing but the spool."""

    def usage(_: Path) -> Usage:
        used = sum(path.stat().st_size for path in (folder / "spool").glob("*/*.dcm"))
        return Usage(used, capacity - used)

    return usage


def test_nothing_goes_unless_a_site_says_so(registry: Registry, tmp_path: Path) -> None:
    finished(registry, tmp_path, "1.1", days=5000)
    Cleaning(configured(tmp_path), registry, lambda _: Usage(10**12, 0)).clean()
    assert spooled(tmp_path) == {"1.1"}


def test_files_go_by_age_and_results_stay(registry: Registry, tmp_path: Path) -> None:
    finished(registry, tmp_path, "1.1", days=31)
    finished(registry, tmp_path, "1.2", days=29)
    with capture_logs() as lines:
        Cleaning(configured(tmp_path, keep_days=30), registry).clean()
    assert (spooled(tmp_path), disagreeing(registry, tmp_path)) == ({"1.2"}, set())
    assert not (tmp_path / "spool" / "1.1").exists(), "no empty folder stays"
    assert [(line["number"], line["count"], line["bytes"]) for line in lines] == [(Event.SPOOL_CLEANED.number, 1, 20)]
    view = registry.study("1.1")
    assert view is not None
    assert (view.state, view.instances, view.report_uid) == ("delivered", 2, "2.25.1.1")
    assert registry.history(study_id("1.1"))[-1].reason == "2 files deleted to make room"


def test_above_the_mark_the_oldest_go_first_and_only_as_many_as_must(registry: Registry, tmp_path: Path) -> None:
    for number, days in enumerate((3, 5, 4, 2), start=1):
        finished(registry, tmp_path, f"1.{number}", days=days)
    marks = configured(tmp_path, max_used_share=0.5)
    Cleaning(marks, registry, shrinking(tmp_path, 100)).clean()
    assert spooled(tmp_path) == {"1.1", "1.4"}
    Cleaning(configured(tmp_path, min_free_bytes=80), registry, shrinking(tmp_path, 100)).clean()
    assert spooled(tmp_path) == {"1.4"}


def test_what_was_just_finished_stays_whatever_the_disk_says(registry: Registry, tmp_path: Path) -> None:
    finished(registry, tmp_path, "1.1", days=0.5)
    jobs = Cleaning(configured(tmp_path, max_used_share=0.5), registry, lambda _: Usage(99, 1))
    with capture_logs() as lines:
        jobs.clean()
        jobs.clean()
    assert spooled(tmp_path) == {"1.1"}
    assert [line["number"] for line in lines] == [Event.SPOOL_STAYS_FULL.number], "said once"


def test_kept_latents_go_before_images(registry: Registry, tmp_path: Path) -> None:
    finished(registry, tmp_path, "1.1", days=2)
    jobs = Cleaning(configured(tmp_path, min_free_bytes=1 << 60), registry, lambda _: Usage(0, 1 << 61))
    entry = tmp_path / "latents" / ("a" * 64)
    entry.parent.mkdir()
    entry.write_bytes(b"x")
    jobs.clean()
    assert (entry.exists(), spooled(tmp_path)) == (False, {"1.1"})


def pending(registry: Registry, folder: Path) -> None:
    finished(registry, folder, "1.1", days=90, delivered=False)


def refused(registry: Registry, folder: Path) -> None:
    pending(registry, folder)
    delivery = registry.claim_delivery("o", "pacs", NOW, NOW - 80 * DAY)
    assert delivery is not None
    registry.set_aside(delivery, "no")


def not_committed(registry: Registry, folder: Path) -> None:
    pending(registry, folder)
    delivery = registry.claim_delivery("o", "pacs", NOW, NOW - 80 * DAY)
    assert delivery is not None
    registry.stored(delivery, NOW - 80 * DAY)


def held(registry: Registry, folder: Path) -> None:
    receive(registry, folder, arrival(1, study="1.1", at=NOW - 90 * DAY))
    registry.close_quiet(NOW - 80 * DAY, 0, NOW - 80 * DAY)
    claim = registry.claim("w", NOW, NOW - 80 * DAY)
    assert claim is not None
    registry.finish_reported(claim, report("1.1"), handover(hold="the model is not clinical"), NOW - 80 * DAY)


def to_be_explained(registry: Registry, folder: Path) -> None:
    receive(registry, folder, arrival(1, study="1.1", at=NOW - 90 * DAY))
    registry.close_quiet(NOW - 80 * DAY, 0, NOW - 80 * DAY)
    claim = registry.claim("w", NOW, NOW - 80 * DAY)
    assert claim is not None
    registry.finish_reported(claim, report("1.1"), handover("pacs", explain=True), NOW - 80 * DAY)
    delivery = registry.claim_delivery("o", "pacs", NOW, NOW - 80 * DAY)
    assert delivery is not None
    registry.delivered(delivery, NOW - 80 * DAY)


def dead(registry: Registry, folder: Path) -> None:
    receive(registry, folder, arrival(1, study="1.1", at=NOW - 90 * DAY))
    registry.close_quiet(NOW - 80 * DAY, 0, NOW - 80 * DAY)
    claim = registry.claim("w", NOW, NOW - 80 * DAY)
    assert claim is not None
    registry.finish_dead(claim, "a person", NOW - 80 * DAY)


def waiting(registry: Registry, folder: Path) -> None:
    receive(registry, folder, arrival(1, study="1.1", at=NOW - 90 * DAY))
    registry.close_quiet(NOW - 80 * DAY, 0, NOW - 80 * DAY)


def to_be_withdrawn(registry: Registry, folder: Path) -> None:
    finished(registry, folder, "1.1", days=90)
    registry.withdraw(study_id("1.1"), Rejection.QUALITY, "tester", NOW - 80 * DAY)


def disputed(registry: Registry, folder: Path) -> None:
    finished(registry, folder, "1.1", days=90)
    receive(registry, folder, arrival(1, study="1.1", at=NOW - 80 * DAY, content="other"))


def with_a_note(registry: Registry, folder: Path) -> None:
    finished(registry, folder, "1.1", days=90)
    note = arrival(9, study="1.1", at=NOW - 80 * DAY, sop_class_uid=KEY_OBJECT_SELECTION, image=False)
    receive(registry, folder, note)


def with_something_new(registry: Registry, folder: Path) -> None:
    finished(registry, folder, "1.1", days=90)
    receive(registry, folder, arrival(9, study="1.1", at=NOW - 0.5 * DAY, image=False))


@pytest.mark.parametrize(
    "story",
    [
        pending,
        refused,
        not_committed,
        held,
        to_be_explained,
        dead,
        waiting,
        to_be_withdrawn,
        disputed,
        with_a_note,
        with_something_new,
    ],
)
def test_what_somebody_still_needs_never_goes(
    registry: Registry, tmp_path: Path, story: Callable[[Registry, Path], None]
) -> None:
    story(registry, tmp_path)
    before = set((tmp_path / "spool").glob("*/*"))
    Cleaning(configured(tmp_path, keep_days=30, max_used_share=0.1), registry, lambda _: Usage(99, 1)).clean()
    assert set((tmp_path / "spool").glob("*/*")) == before
    assert disagreeing(registry, tmp_path) == set()


def test_a_result_that_has_no_route_is_finished(registry: Registry, tmp_path: Path) -> None:
    receive(registry, tmp_path, arrival(1, study="1.1", at=NOW - 90 * DAY))
    registry.close_quiet(NOW - 80 * DAY, 0, NOW - 80 * DAY)
    claim = registry.claim("w", NOW, NOW - 80 * DAY)
    assert claim is not None
    registry.finish_reported(claim, report("1.1"), handover(), NOW - 80 * DAY)
    Cleaning(configured(tmp_path, keep_days=30), registry).clean()
    assert spooled(tmp_path) == set()


def test_a_file_that_cannot_be_deleted_stops_no_other_study(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        finished(registry, tmp_path, f"1.{number}", days=90 - number)
    unlink = Path.unlink

    def fail(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "1.1":
            raise OSError(errno.EIO, "Input/output error")
        unlink(path, missing_ok)

    jobs = Cleaning(configured(tmp_path, keep_days=30), registry)
    with monkeypatch.context() as bad, capture_logs() as lines:
        bad.setattr(Path, "unlink", fail)
        jobs.clean()
        assert spooled(tmp_path) == {"1.1"}
        jobs.clean()
    refused = [line["study"] for line in lines if line["number"] == Event.FILES_NOT_DELETED.number]
    assert refused == [study_id("1.1")] * 2
    jobs.clean()
    assert (spooled(tmp_path), registry.cleanings_due()) == (set(), [])


def test_a_disk_that_deletes_nothing_costs_few_studies(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        finished(registry, tmp_path, f"1.{number}", days=90 - number)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cleaning, "MOST_FAILURES", 2)
    monkeypatch.setattr(Path, "unlink", fail)
    jobs = Cleaning(configured(tmp_path, keep_days=30), registry)
    for _ in range(3):
        jobs.clean()
    assert len(registry.cleanings_due()) == 2


@pytest.mark.parametrize("step", ["rows", "first file", "all files", "end"])
def test_a_kill_at_any_point_leaves_nothing_that_the_next_round_does_not_mend(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    finished(registry, tmp_path, "1.1", days=90)
    jobs = Cleaning(configured(tmp_path, keep_days=30), registry)
    unlink, unlinked = Path.unlink, 0

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    def die_at_the_second(path: Path, missing_ok: bool = False) -> None:
        nonlocal unlinked
        unlinked += 1
        if unlinked == 2:
            raise Killed
        unlink(path, missing_ok)

    with monkeypatch.context() as killed:
        if step == "rows":
            killed.setattr(jobs, "_deleted", die)
        elif step == "first file":
            killed.setattr(Path, "unlink", die_at_the_second)
        elif step == "all files":
            killed.setattr(cleaning, "sync_folder", die)
        else:
            killed.setattr(registry, "cleaning_done", die)
        with pytest.raises(Killed):
            jobs.clean()
    # As a receiver that starts now presents what lies there without a row that knows it.
    left = {path.relative_to(tmp_path / "spool").as_posix() for path in (tmp_path / "spool").glob("*/*.dcm")}
    again = [arrival(number, study="1.1", at=NOW - 90 * DAY - 200) for number in (1, 2)]
    registry.record_arrivals([one for one in again if one.path in left - set(registry.known_paths())])
    assert set(registry.expected_paths()) == set()
    Cleaning(configured(tmp_path, keep_days=30), registry).clean()
    assert (spooled(tmp_path), disagreeing(registry, tmp_path), registry.cleanings_due()) == (set(), set(), [])
    view = registry.study("1.1")
    assert view is not None
    assert (view.state, view.revision) == ("delivered", 1)


def cleaned(registry: Registry, folder: Path) -> None:
    finished(registry, folder, "1.1", days=90)
    Cleaning(configured(folder, keep_days=30), registry).clean()
    assert spooled(folder) == set()


def test_the_same_images_again_change_nothing_and_can_be_run_again(registry: Registry, tmp_path: Path) -> None:
    cleaned(registry, tmp_path)
    registry.withdraw(study_id("1.1"), Rejection.QUALITY, "tester", NOW)
    with pytest.raises(PermanentError, match="send it again"):
        registry.retry(study_id("1.1"), NOW)
    receive(registry, tmp_path, *(arrival(number, study="1.1", at=NOW) for number in (1, 2)))
    Cleaning(configured(tmp_path, keep_days=30), registry).clean()
    assert (spooled(tmp_path), disagreeing(registry, tmp_path)) == ({"1.1"}, set())
    view = registry.study("1.1")
    assert view is not None
    assert (view.state, view.revision) == ("withdrawn", 1)
    assert registry.retry(study_id("1.1"), NOW).queued
    claim = registry.claim("w", NOW, NOW)
    assert claim is not None
    assert (len(claim.images), claim.partial_reason) == (2, None)


def test_a_file_that_was_cleaned_since_somebody_looked_is_not_lost(registry: Registry, tmp_path: Path) -> None:
    finished(registry, tmp_path, "1.1", days=90)
    expected = list(registry.expected_paths())
    Cleaning(configured(tmp_path, keep_days=30), registry).clean()
    registry.mark_lost(expected, NOW)
    assert registry.standings(study_id("1.1")) == {"current": 2}
    receive(registry, tmp_path, *(arrival(number, study="1.1", at=NOW) for number in (1, 2)))
    view = registry.study("1.1")
    assert view is not None
    assert (view.state, view.revision) == ("delivered", 1)


def test_a_copy_that_came_while_its_file_was_deleted_is_known_to_be_gone(registry: Registry, tmp_path: Path) -> None:
    cleaned(registry, tmp_path)
    registry.record_arrivals([arrival(1, study="1.1", at=NOW)])  # the receiver saw the old file, and now it is gone
    assert disagreeing(registry, tmp_path) != set()
    Cleaning(configured(tmp_path), registry).clean()
    assert disagreeing(registry, tmp_path) == set()


def test_a_copy_that_came_just_before_all_was_done_is_looked_at_once_more(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(registry, tmp_path, "1.1", days=90)
    done = registry.cleaning_done

    def late(*arguments: Any) -> None:
        registry.record_arrivals([arrival(1, study="1.1", at=NOW)])  # the receiver saw the old file, and now it is gone
        monkeypatch.undo()
        done(*arguments)

    monkeypatch.setattr(registry, "cleaning_done", late)
    jobs = Cleaning(configured(tmp_path, keep_days=30), registry)
    jobs.clean()
    jobs.clean()
    assert (disagreeing(registry, tmp_path), registry.cleanings_due()) == (set(), [])


def test_a_file_that_was_written_anew_is_not_taken_for_the_old_one(registry: Registry, tmp_path: Path) -> None:
    finished(registry, tmp_path, "1.1", days=90)
    begun = registry.begin_cleaning(NOW, NOW - 10)
    assert begun is not None
    os.utime(tmp_path / "spool" / arrival(1, study="1.1").path, (NOW, NOW))
    Cleaning(configured(tmp_path), registry).clean()
    assert len(list((tmp_path / "spool").glob("*/*.dcm"))) == 1
    registry.record_arrivals([arrival(1, study="1.1", at=NOW)])
    Cleaning(configured(tmp_path), registry).clean()
    assert (disagreeing(registry, tmp_path), registry.cleanings_due()) == (set(), [])


def test_a_late_image_of_a_cleaned_study_makes_a_partial_revision(registry: Registry, tmp_path: Path) -> None:
    cleaned(registry, tmp_path)
    receive(registry, tmp_path, arrival(3, study="1.1", at=NOW))
    registry.close_quiet(NOW, 0, NOW)
    claim = registry.claim("w", NOW, NOW)
    assert claim is not None
    assert (len(claim.images), claim.revision, claim.partial_reason) == (1, 2, IMAGES_CLEANED)


@pytest.mark.parametrize(("patient", "verdict"), [("p::", "quarantined"), ("q::", "current")])
def test_other_bytes_under_a_cleaned_uid_count_only_where_they_correct_whose_they_are(
    registry: Registry, tmp_path: Path, patient: str, verdict: str
) -> None:
    cleaned(registry, tmp_path)
    other = arrival(1, study="1.1", at=NOW, content="other", patient_key=patient)
    receive(registry, tmp_path, other)

    def unreadable(pairs: Any) -> list[Verdict | None]:
        return [None] * len(pairs)

    Housekeeping(configured(tmp_path), registry, unreadable, Pulse()).settle_disputes()
    with registry._read() as connection:
        standing = connection.scalar(sa.select(instances.c.standing).where(instances.c.path == other.path))
        withdrawn = connection.scalar(sa.select(results.c.withdrawn_at))
        state = connection.scalar(sa.select(studies.c.state))
    assert standing == verdict
    assert (withdrawn is not None, state) == ((True, "receiving") if verdict == "current" else (False, "delivered"))
