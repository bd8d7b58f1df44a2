"""How much the registry takes: rows, studies and deliveries a second, and how workers share it out.

    python tests/benchmarks/registry_speed.py [--studies N] [--images N] [--workers N …] [--seconds S] [--json FILE]

On SQLite and PostgreSQL (on this machine, synchronous commits on). Workers are processes with the node's own `Worker`
and registry, claims, leases and results, on made-up studies: where a model would compute for a device they wait
--seconds. So the figures are what the registry lets through, whatever the devices are, and say nothing of a model; for
whole nodes see `many_nodes.py`. Exit code 1 when a study has not exactly one result.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid

sys.path.insert(0, str(Path(__file__).parents[1]))

from dicom_node.base.events import configure_logging
from dicom_node.base.orders import Handover
from dicom_node.base.types import Claim, Report
from dicom_node.jobs.database import migrate
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import results
from dicom_node.jobs.worker import Stages, Worker
from prima_core.base.types import PreparedSeries, PreparedStudy, StudyPrediction
from support.postgres import SETTINGS, PostgresServer
from support.studies import arrival, handover, report

TOKENS = 1000
NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True)
class Speed:
    """A second. once: whether every study has exactly one result."""

    database: str
    workers: int
    rows: float
    studies: float
    deliveries: float
    once: bool


def prepare(claim: Claim) -> PreparedStudy:
    ids = np.arange(TOKENS)
    series = PreparedSeries("1", "T1", NOTHING, ids, NOTHING.astype(np.int64), 0, TOKENS, ())
    return PreparedStudy(claim.study_instance_uid, "", (series,))


def predict(seconds: float, studies: Sequence[PreparedStudy]) -> list[StudyPrediction]:
    time.sleep(seconds * len(studies))
    return [StudyPrediction(one.study_instance_uid, {}, {}, {}, NOTHING, NOTHING, "fp32") for one in studies]


def made(claim: Claim, _study: PreparedStudy, _prediction: StudyPrediction) -> Report:
    return replace(report(claim.study_instance_uid), sop_instance_uid=str(generate_uid()), path=claim.study_id)


def hand_over(_claim: Claim, _study: PreparedStudy, written: Report) -> Handover:
    return handover("pacs", path=written.path)


def work(url: str, name: str, seconds: float, begin: threading.Barrier) -> None:
    """A worker process until nothing waits."""
    configure_logging("error")
    registry = Registry(url)
    worker = Worker(
        registry,
        Stages(prepare, partial(predict, seconds), made, hand_over),
        owner=name,
        token_budget=TOKENS,
        max_attempts=3,
        retry_seconds=60,
        pulse=Pulse(),
    )
    registry.urgent_waits()
    begin.wait()
    while worker.work_once(threading.Event()):
        pass
    registry.close()


def measure(database: str, url: str, workers: int, studies: int, images: int, seconds: float) -> Speed:
    migrate(url)
    registry = Registry(url)
    uids = [f"1.2.{number}" for number in range(studies)]
    began = time.perf_counter()
    for uid in uids:
        registry.record_arrivals([arrival(number, study=uid) for number in range(images)])
    rows = studies * images / (time.perf_counter() - began)
    registry.close_quiet(200, 0, 300)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["dicom_node.jobs.worker", "sqlalchemy.dialects.postgresql", "psycopg"])
    begin = processes.Barrier(workers + 1)
    running = [processes.Process(target=work, args=(url, f"w{n}", seconds, begin)) for n in range(workers)]
    for process in running:
        process.start()
    begin.wait()
    began = time.perf_counter()
    for process in running:
        process.join()
    throughput = studies / (time.perf_counter() - began)
    began = time.perf_counter()
    sent = 0
    while (delivery := registry.claim_delivery("sender", "pacs", time.time() + 60, time.time())) is not None:
        registry.delivered(delivery, time.time())
        sent += 1
    deliveries = sent / (time.perf_counter() - began)
    with registry._read() as connection:
        counts = Counter(row.study_id for row in connection.execute(results.select()))
    registry.close()
    once = set(counts.values()) == {1} and len(counts) == studies
    return Speed(database, workers, rows, throughput, deliveries, once)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--images", type=int, default=50, help="of a study")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--seconds", type=float, default=0.2, help="that a device takes for a study")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    SETTINGS["fsync"] = "on"  # off in tests
    postgres = PostgresServer()
    speeds = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for workers in given.workers:
                urls = {"SQLite": f"sqlite:///{folder}/{workers}.sqlite", "PostgreSQL": postgres.new_database()}
                for name, url in urls.items():
                    speeds.append(measure(name, url, workers, given.studies, given.images, given.seconds))
    finally:
        postgres.close()
    print(f"{given.studies} studies of {given.images} images; a device takes {given.seconds:g} s a study")
    print("| database | workers | rows/s | studies/s | of what the devices allow | deliveries/s | each once |")
    print("|" + " --- |" * 7)
    for one in speeds:
        allowed = one.studies * given.seconds / one.workers
        print(
            f"| {one.database} | {one.workers} | {one.rows:,.0f} | {one.studies:.1f} | {allowed:.0%} | "
            f"{one.deliveries:,.0f} | {'yes' if one.once else 'NO'} |"
        )
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in speeds], indent=1), encoding="utf-8")
    return int(not all(one.once for one in speeds))


if __name__ == "__main__":
    sys.exit(main())
