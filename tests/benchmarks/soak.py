"""Many studies through a whole node: how fast, how long each takes, and that no process grows.

    python tests/benchmarks/soak.py [--studies 2000] [--outstanding 8] [--json FILE]

A node as a site starts it, with a small untrained bundle, gets one small study after another by C-STORE and sends its
reports to an archive stand-in; so many are under way at once and no more. Memory, open files and threads of every
process are looked at as it goes, and the slope of each over the second half (the median of the slopes between all pairs
of looks, Theil 1950) must stay under a bound per 1,000 studies. Exit code 1 when one does not, when a process ended,
when an image was not answered, or when a study did not end in a delivered report. Slopes of fewer than a thousand
studies are rough. A run that is stopped (SIGTERM) shows what it has seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1]))

from dicom_node.demo.archive import AE_TITLE as ARCHIVE_AE
from dicom_node.demo.archive import Archive
from dicom_node.jobs.tables import deliveries, studies
from prima_core.random_weights import demo, write_random_bundle
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study

LOOKS = 60
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 300.0  # without any study delivered
#: The most by which a process may grow with 1,000 studies.
BOUNDS = {"memory_mib": 24.0, "open_files": 2.0, "threads": 2.0}


@dataclass(frozen=True)
class Look:
    """One process at one moment. done: how many studies were delivered by then."""

    process: str
    pid: int
    done: int
    memory_mib: float
    open_files: int
    threads: int


def look(process: str, pid: int, done: int) -> Look:
    """Raises OSError where the process is gone."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    memory = int(status["RssAnon"].split()[0]) / 1024  # files that are mapped come and go
    return Look(process, pid, done, memory, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))


def slope(looks: Sequence[Look], what: str) -> float:
    """By how much it grows with 1,000 studies, over the second half."""
    half = looks[len(looks) // 2 :]
    pairs = itertools.combinations(half, 2)
    slopes = [(getattr(b, what) - getattr(a, what)) / (b.done - a.done) for a, b in pairs if b.done > a.done]
    return 1000 * statistics.median(slopes) if slopes else 0.0


def delivered(node: Node) -> int:
    """How many studies are delivered."""
    return node.registry.state_counts()["delivered"]


def seconds_to_report(node: Node) -> list[float]:
    """Of each report, from the study's last image to its delivery."""
    took = deliveries.c.delivered_at - studies.c.last_arrival_at
    query = sa.select(took).join(studies, studies.c.id == deliveries.c.study_id).where(deliveries.c.kind == "sr")
    with node.registry._read() as connection:
        return sorted(connection.scalars(query.where(deliveries.c.delivered_at.is_not(None))))


def soak(node: Node, count: int, outstanding: int) -> tuple[list[Look], float, int]:
    """Send so many studies; what was seen meanwhile, in how many seconds, and how many images were not answered."""
    looks: list[Look] = []
    roles = node.running()
    assert node._process is not None
    roles = {"supervisor": node._process.pid} | roles
    begin = moved = time.monotonic()
    sent = done = looked = unanswered = 0
    with suppress(KeyboardInterrupt):  # what was seen until then is shown
        while done < count:
            if sent < count and sent - done < outstanding:
                unanswered += send_patiently(node)
                sent += 1
            else:
                time.sleep(POLL_SECONDS)
            now = delivered(node)
            if now > done:
                done, moved = now, time.monotonic()
            elif time.monotonic() - moved > PATIENCE_SECONDS:
                break
            if done - looked >= max(1, count // LOOKS):
                looked = done
                looks += [look(role, pid, done) for role, pid in roles.items()]
                seconds = time.monotonic() - begin
                print(
                    f"{done} studies, {done / seconds:.2f}/s (load {os.getloadavg()[0]:.1f})",
                    file=sys.stderr,
                    flush=True,
                )
    return looks, time.monotonic() - begin, unanswered


def send_patiently(node: Node) -> int:
    """Send one study, again as long as an image is not answered; how often it was not."""
    images, unanswered = small_study(StudyFacts()), 0
    while True:
        try:
            statuses = send(node.port, images)
        except AssertionError as error:
            unanswered += 1
            print(f"{error}\n{node.log()[-3000:]}", file=sys.stderr, flush=True)
            continue
        assert set(statuses) == {0x0000}, statuses
        return unanswered


def judged(looks: Sequence[Look]) -> tuple[dict[str, Any], list[str]]:
    """A line for each process, and what is above its bound."""
    of_process: dict[str, list[Look]] = defaultdict(list)
    for one in looks:
        of_process[one.process].append(one)
    table: dict[str, Any] = {}
    faults = []
    for process, mine in of_process.items():
        table[process] = {}
        for what, bound in BOUNDS.items():
            growth = slope(mine, what)
            last = getattr(mine[-1], what)
            table[process][what] = {"first": getattr(mine[0], what), "last": last, "per_1000_studies": growth}
            if growth > bound:
                faults.append(f"{process}: {what} grows by {growth:.1f} with 1,000 studies; at most {bound:g}")
    return table, faults


def show(document: dict[str, Any]) -> None:
    print(
        f"{document['studies']} studies in {document['seconds']:.0f} s: {document['studies_per_second']:.2f} a second"
    )
    print("from a study's last image to its report delivered: p50 {p50:.1f} s, p95 {p95:.1f} s".format(**document))
    print(f"{'process':<12}{'':<12}{'first':>10}{'last':>10}{'per 1,000':>12}{'at most':>10}")
    for process, measured in document["processes"].items():
        for what, said in measured.items():
            numbers = f"{said['first']:>10.1f}{said['last']:>10.1f}{said['per_1000_studies']:>12.1f}{BOUNDS[what]:>10g}"
            print(f"{process:<12}{what:<12}{numbers}")
    for fault in document["faults"]:
        print(f"FAULT: {fault}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--outstanding", type=int, default=8, help="studies under way at once")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="prima-soak-") as name:
        folder = Path(name)
        write_random_bundle(folder / "bundle", demo(), name="soak")
        with Archive(folder / "archive") as archive:
            goals = [destination("pacs", ARCHIVE_AE, archive.port)]
            with Node(folder / "node", folder / "bundle", destinations=goals) as node:
                looks, seconds, unanswered = soak(node, options.studies, options.outstanding)
                took = seconds_to_report(node)
                survivors = set(node.running().values())
    processes, faults = judged(looks)
    if unanswered:
        faults.append(f"{unanswered} images were not answered, and their studies sent again")
    if len(took) < options.studies:
        faults.append(f"only {len(took)} of {options.studies} studies were delivered")
    faults += [
        f"the {one.process} ended" for one in looks[-4:] if one.process != "supervisor" and one.pid not in survivors
    ]
    document = {
        "studies": options.studies,
        "seconds": seconds,
        "studies_per_second": len(took) / seconds,
        "p50": took[len(took) // 2] if took else 0.0,
        "p95": took[int(len(took) * 0.95)] if took else 0.0,
        "processes": processes,
        "faults": faults,
    }
    show(document)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
