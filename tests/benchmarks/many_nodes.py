"""Whole nodes on one PostgreSQL registry and one storage folder, some of them killed in the middle: is every study
processed, and once?

    python tests/benchmarks/many_nodes.py --nodes 4 --studies 500 [--kills 3] [--alone 100] [--json FILE]

Every node is `dicom-node serve` with its receiver, scheduler and worker, the small demo model, leases and silences as
in service. One sender a node sends --studies each; where a node dies it sends the study again to the next one. A kill
is SIGKILL to all processes of a node at once; it is started again after a while, but for the last, which stays dead.
Before that, one node alone with --alone studies, for the throughput to compare with. Nodes share this machine's cores:
throughput of N nodes says what sharing costs, not what N machines do; for that see `registry_speed.py`.

Exit code 1 when a study is missing, or has two reports of one revision.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pydicom import dcmread

from dicom_node.base.types import StudyState, study_id
from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.tables import events, results
from prima_core.random_weights import demo, write_random_bundle
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study
from support.postgres import PostgresServer
from support.several_nodes import several_nodes

RESTART_SECONDS = 10.0
LOOK_SECONDS = 0.5
FINAL = (StudyState.DELIVERED, StudyState.OUT_OF_SCOPE, StudyState.DEAD)


@dataclass(frozen=True)
class Outcome:
    """once: studies with one result. again: with one for each of several revisions, since images came late. twice: with
    two results, or two reports in the archive, of one revision. orphaned: without any. computed_again: claims that
    ended without a result. sent_again: C-STOREs of a report that the archive had.
    """

    nodes: int
    studies: int
    kills: int
    once: int
    again: int
    twice: int
    orphaned: int
    computed_again: int
    sent_again: int
    seconds: float
    seconds_after_last_kill: float

    @property
    def per_minute(self) -> float:
        """Studies, from the first image to the last report in the archive."""
        return 60 * self.studies / self.seconds


class Sender:
    """Sends studies to its node, and to the next one that takes them while that one is dead."""

    def __init__(self, nodes: Sequence[Node], first: int, slices: int) -> None:
        self._ways = [*nodes[first:], *nodes[:first]]
        self._slices = slices
        self.sent: list[str] = []

    def send(self, count: int) -> None:
        for _ in range(count):
            study = StudyFacts()
            images = small_study(study, slices=self._slices)
            for node in itertools.cycle(self._ways):
                try:
                    if set(send(node.port, images)) == {0}:
                        break
                except AssertionError:  # refused, or ended in the middle
                    time.sleep(0.2)
            self.sent.append(study.study_uid)


class Killer:
    """Kills nodes as the work goes on."""

    def __init__(self, nodes: Sequence[Node], kills: int, total: int) -> None:
        self._nodes, self._total = nodes, total
        self._due = [total * (number + 1) // (kills + 2) for number in range(kills)]
        self._restarts: list[tuple[float, Node]] = []
        self.kills = 0
        self.last = 0.0

    def look(self, done: int) -> None:
        if self._due and done >= self._due[0] and not self._restarts:
            self._due.pop(0)
            victim = self._nodes[-1 - self.kills % len(self._nodes)]
            victim.kill_all()
            self.kills += 1
            self.last = time.monotonic()
            print(f"  {done}/{self._total} done: killed {victim.configuration.node.name}", flush=True)
            if self._due:
                self._restarts.append((time.monotonic() + RESTART_SECONDS, victim))
        if self._restarts and time.monotonic() > self._restarts[0][0]:
            self._restarts.pop(0)[1].launch()


def run(folder: Path, bundle: Path, database: str, nodes: int, studies: int, kills: int, slices: int) -> Outcome:
    """So many nodes, each sent so many studies."""
    names = [chr(ord("a") + number) for number in range(nodes)]
    total = nodes * studies
    with ExitStack() as stack:
        archive = stack.enter_context(Archive(folder / "archive"))
        to = destination("pacs", AE_TITLE, archive.port)
        all_nodes = list(several_nodes(folder, bundle, database, names, destinations=[to]).values())
        for node in all_nodes:
            stack.enter_context(node)
        watched = all_nodes[0].registry
        senders = [Sender(all_nodes, number, slices) for number in range(nodes)]
        killer = Killer(all_nodes, kills, total)
        began = time.monotonic()
        with ThreadPoolExecutor(nodes) as pool:
            sending = [pool.submit(sender.send, studies) for sender in senders]
            done = 0
            while done < total:
                time.sleep(LOOK_SECONDS)
                counts = watched.state_counts()
                done = sum(counts[state] for state in FINAL)
                killer.look(done)
                for task in sending:
                    if task.done():
                        task.result()
            # A study that came over two nodes may have been closed without its last images: it runs again.
        ended = time.monotonic()
        made = Counter(row.study_id for row in all_nodes[0].rows(results))
        runs = Counter(row.to_state for row in all_nodes[0].rows(events))
        kept = [dcmread(path, stop_before_pixels=True) for path in set(archive.reports)]
        sent = {study_id(uid) for sender in senders for uid in sender.sent}
    revisions = Counter((row.study_id, row.revision) for row in all_nodes[0].rows(results))
    in_archive = Counter(study_id(str(report.StudyInstanceUID)) for report in kept)
    doubled = {study for (study, _), count in revisions.items() if count > 1}
    doubled |= {study for study, count in in_archive.items() if count > made[study]}
    return Outcome(
        nodes,
        total,
        killer.kills,
        once=sum(made[study] == 1 for study in sent - doubled),
        again=sum(made[study] > 1 for study in sent - doubled),
        twice=len(doubled),
        orphaned=sum(not made[study] or not in_archive[study] for study in sent) + total - len(sent),
        computed_again=runs[StudyState.RUNNING] - sum(made.values()),
        sent_again=len(archive.reports) - len(set(archive.reports)),
        seconds=ended - began,
        seconds_after_last_kill=ended - killer.last if killer.kills else 0.0,
    )


def shown(outcomes: Sequence[Outcome]) -> str:
    head = "| nodes | studies | kills | once | again (late images) | twice | orphaned | claims in vain | studies/min |"
    lines = [head, "|" + " --- |" * 9]
    for one in outcomes:
        cells = [one.nodes, one.studies, one.kills, one.once, one.again, one.twice, one.orphaned, one.computed_again]
        lines.append("| " + " | ".join(map(str, cells)) + f" | {one.per_minute:.1f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--studies", type=int, default=500, help="for each node")
    parser.add_argument("--kills", type=int, help="of nodes; one less than there are nodes unless given")
    parser.add_argument("--alone", type=int, default=100, help="studies for one node alone, before; 0: none")
    parser.add_argument("--slices", type=int, default=4, help="of each of a study's two series")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    kills = chosen.nodes - 1 if chosen.kills is None else chosen.kills
    postgres = PostgresServer()
    outcomes = []
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_random_bundle(folder / "bundle", demo(), name="many-nodes")
            for nodes, studies, dying in ((1, chosen.alone, 0), (chosen.nodes, chosen.studies, kills)):
                if studies:
                    print(f"{nodes} node(s), {studies} studies each, {os.cpu_count()} cores", flush=True)
                    database = postgres.new_database()
                    at = folder / f"of{nodes}"
                    outcomes.append(run(at, folder / "bundle", database, nodes, studies, dying, chosen.slices))
    finally:
        postgres.close()
    print(shown(outcomes))
    print(f"after the last kill: {outcomes[-1].seconds_after_last_kill:.0f} s until everything was done")
    if chosen.json:
        rows = [asdict(one) | {"per_minute": one.per_minute} for one in outcomes]
        chosen.json.write_text(json.dumps({"cores": os.cpu_count(), "runs": rows}, indent=1), encoding="utf-8")
    return int(any(one.twice or one.orphaned for one in outcomes))


if __name__ == "__main__":
    threading.excepthook = lambda _: None  # pynetdicom's threads of associations that a kill ended
    sys.exit(main())
