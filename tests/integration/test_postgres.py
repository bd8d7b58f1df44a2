"""The registry on PostgreSQL: many processes at once, the server going away, and a whole node on it.

What the registry promises in single file is tested in `tests/unit/dicom_node/jobs` on SQLite and PostgreSQL alike; the
races here run on both as well.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import pytest
import sqlalchemy as sa
from pydicom.uid import generate_uid

from dicom_node.base.orders import Delivery
from dicom_node.base.types import Claim, StudyState, study_id
from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.database import migrate, open_engine
from dicom_node.jobs.registry import DATABASE_AWAY, Registry
from dicom_node.jobs.tables import metadata, results
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study
from support.peers import wait_until
from support.postgres import PostgresServer
from support.studies import arrival, handover, report

WORKERS = 8
STUDIES = 60

T = TypeVar("T")


@contextmanager
def registries(url: str, count: int) -> Iterator[list[Registry]]:
    """What several processes would each have of one database."""
    opened = [Registry(url) for _ in range(count)]
    try:
        yield opened
    finally:
        for registry in opened:
            registry.close()


def at_once(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run tasks in threads that start together; their results, or the first error."""
    start = Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T:
        start.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def until_nothing(take: Callable[[], T | None]) -> list[T]:
    taken = []
    while (item := take()) is not None:
        taken.append(item)
    return taken


def fill_queue(registry: Registry) -> set[str]:
    uids = [f"1.2.3.{number}" for number in range(STUDIES)]
    registry.record_arrivals([arrival(1, study=uid) for uid in uids])
    assert len(registry.close_quiet(quiet_since=100, opened_before=0, at=130)) == STUDIES
    return {study_id(uid) for uid in uids}


def test_workers_that_claim_at_once_never_get_the_same_study(database_url: str) -> None:
    migrate(database_url)
    with registries(database_url, WORKERS) as opened:
        ids = fill_queue(opened[0])

        def work(number: int) -> list[Claim]:
            return until_nothing(lambda: opened[number].claim(f"worker-{number}", 1e12, 200))

        claimed = [
            claim for claims in at_once([partial(work, number) for number in range(WORKERS)]) for claim in claims
        ]
        # Nobody waits for a row that another has locked, so the last ones may be left when all have looked.
        claimed += until_nothing(lambda: opened[0].claim("worker-0", 1e12, 200))
        assert Counter(claim.study_id for claim in claimed) == Counter(ids)
        owners = {claim.study_id: claim.owner for claim in claimed}
        with opened[0]._read() as connection:
            rows = connection.execute(sa.text("SELECT id, owner, attempts FROM studies")).all()
        assert {row.id: row.owner for row in rows} == owners
        assert {row.attempts for row in rows} == {1}


def test_senders_that_claim_at_once_never_get_the_same_delivery(database_url: str) -> None:
    migrate(database_url)
    with registries(database_url, WORKERS) as opened:
        fill_queue(opened[0])
        for claim in until_nothing(lambda: opened[0].claim("w", 1e12, 200)):
            made = replace(report(claim.study_instance_uid), sop_instance_uid=generate_uid())
            opened[0].finish_reported(claim, made, handover("pacs", path=made.path), 300)

        def work(number: int) -> list[Delivery]:
            taken = until_nothing(lambda: opened[number].claim_delivery(f"sender-{number}", "pacs", 460, 400))
            for delivery in taken:
                opened[number].delivered(delivery, 500)
            return taken

        sent = [delivery for part in at_once([partial(work, number) for number in range(WORKERS)]) for delivery in part]
        sent += work(0)
        assert Counter(delivery.study_id for delivery in sent) == Counter(
            {study.id: 1 for study in opened[0].studies()}
        )
        assert opened[0].state_counts()[StudyState.DELIVERED] == STUDIES


def test_receivers_that_record_one_study_at_once_agree_on_every_instance(database_url: str) -> None:
    """Each instance comes over several ways at once, from some with other bytes: one is the evidence, always."""
    migrate(database_url)
    ways = 4
    arrivals = [
        [arrival(number, content=f"other bytes {way}" if way == 3 else "") for number in range(40)]
        for way in range(ways)
    ]
    for way, order in enumerate(arrivals):
        random.Random(way).shuffle(order)
    with registries(database_url, ways) as opened:

        def receive(way: int) -> None:
            for start in range(0, 40, 5):
                opened[way].record_arrivals(arrivals[way][start : start + 5])

        at_once([partial(receive, way) for way in range(ways)])
        assert opened[0].standings(study_id("1.2.3")) == {"current": 40, "disputed": 40}
        assert [event.to_state for event in opened[0].history(study_id("1.2.3"))] == [StudyState.RECEIVING]
        assert len(opened[0].disputed(limit=100)) == 40


def test_receivers_and_housekeeping_at_once_never_wait_in_a_circle(database_url: str) -> None:
    migrate(database_url)
    uids = [f"1.2.3.{number}" for number in range(20)]
    with registries(database_url, 4) as opened:

        def receive(way: int) -> None:
            for number in range(1, 11):
                order = random.Random(number * way).sample(uids, len(uids))
                opened[way].record_arrivals([arrival(10 * number + way, study=uid, at=100) for uid in order])

        def close() -> None:
            for _ in range(20):
                opened[3].close_quiet(quiet_since=200, opened_before=0, at=300)

        tasks: list[Callable[[], None]] = [partial(receive, 0), partial(receive, 1), partial(receive, 2), close]
        at_once(tasks)
        opened[3].close_quiet(quiet_since=200, opened_before=0, at=300)
        counts = opened[0].state_counts()
        assert counts[StudyState.COMPLETE] == len(uids)
        assert {study.instances for study in opened[0].studies()} == {30}


def test_nodes_that_start_at_once_bring_the_schema_up_once(database_url: str) -> None:
    program = "import sys; from dicom_node.jobs.database import migrate; migrate(sys.argv[1])"
    started = [subprocess.Popen([sys.executable, "-c", program, database_url]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    engine = open_engine(database_url)
    assert set(metadata.tables) <= set(sa.inspect(engine).get_table_names())
    engine.dispose()


def answers(registry: Registry) -> bool:
    try:
        registry.processes()
    except DATABASE_AWAY:
        return False
    return True


@pytest.mark.peers
def test_a_registry_is_as_before_once_its_server_is_back(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    migrate(url)
    with registries(url, 1) as [registry]:
        registry.record_arrivals([arrival(1)])
        with postgres.away(), pytest.raises(sa.exc.OperationalError):
            registry.record_arrivals([arrival(2)])
        wait_until(lambda: answers(registry), "the server is back")
        registry.record_arrivals([arrival(2)])
        assert registry.standings(study_id("1.2.3")) == {"current": 2}


@pytest.mark.peers
@pytest.mark.slow
def test_a_node_on_postgresql_outlives_its_server_and_delivers_once(
    tmp_path: Path, postgres: PostgresServer, random_bundle: Path
) -> None:
    first, second = StudyFacts(), StudyFacts()
    with (
        Archive(tmp_path / "archive") as archive,
        Node(
            tmp_path,
            random_bundle,
            destinations=[destination("pacs", AE_TITLE, archive.port)],
            node={"database": postgres.new_database()},
        ) as node,
    ):
        assert set(send(node.port, small_study(first))) == {0}
        node.wait_for_state(first.study_uid, "delivered")
        before = node.running()
        with postgres.away():
            assert set(send(node.port, small_study(second))) == {0}, "intake needs no database"
        node.wait_for_state(second.study_uid, "delivered")
        node.wait(node.healthy, "the node is well again")
        assert node.running() == before, "no process died of it"
        assert len(node.rows(results)) == len(archive.reports) == 2
        replayed = node.cli("replay", second.study_uid, "--json")
        assert (replayed.returncode, replayed.stderr) == (0, "")
