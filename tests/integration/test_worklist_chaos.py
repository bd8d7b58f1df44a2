"""Priorities under faults: peers that fail three times in ten, processes killed at random moments.

At the end every peer got each change at least once, in each study's order, nothing was lowered and nothing lost. The
model is left out: what the worker would write down is written down directly, so that hundreds of studies take seconds.
Two HL7 peers are told of every study, the UPS peer, whose attempts take an association's time each, of one in five.
The seed of a failed run is in its assertion; PRIMA_CHAOS_SEED repeats it, PRIMA_CHAOS_STUDIES and PRIMA_CHAOS_KILLS
change the size.
"""

from __future__ import annotations

import itertools
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicom_node.base.orders import Listener
from dicom_node.base.types import DeliveryState, Level, study_id
from dicom_node.jobs.database import migrate
from dicom_node.jobs.tables import deliveries
from dicom_node.jobs.worklist_tables import changes
from dicom_node.worklist.dicom.ups_provider import UpsProvider
from support.hl7_peers import ScriptedPeer, ack
from support.node import Node
from support.orders import finish, order, placed, receive, tell
from support.peers import free_port
from support.worklist_memory import MemoryUpsStore
from support.worklist_peers import receivers, served

pytestmark = pytest.mark.slow

STUDIES = int(os.environ.get("PRIMA_CHAOS_STUDIES", "300"))
KILLS = int(os.environ.get("PRIMA_CHAOS_KILLS", "20"))
FAILS = 0.3
LISTENERS = (Listener("ris", "hl7"), Listener("second", "hl7"), Listener("manager", "ups"))


class Ris:
    """An HL7 peer that hangs up on three messages in ten, before or after it took them to heart."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._lock = threading.Lock()
        self.got: list[dict[str, str]] = []

    def __call__(self, received: list[bytes]) -> bytes | None:
        message = {line.split("|")[0]: line for line in received[-1].decode().split("\r") if line}
        with self._lock:
            luck = self._dice.random()
            if luck >= FAILS / 2:
                self.got.append(message)
            return ack("AA", message["MSH"].split("|")[9]) if luck >= FAILS else None

    def by_study(self) -> dict[str, list[tuple[str, str]]]:
        """(control id, priority) in the order in which they came, of each study."""
        found = defaultdict(list)
        for message in self.got:
            study = message["ZDS"].split("|")[1].split("^")[0]
            found[study].append((message["MSH"].split("|")[9], message["ORC"].split("|")[7].split("^")[5]))
        return found


class UnreliableStore(MemoryUpsStore):
    """A worklist manager's store that is away three times in ten; notes every priority that a step had."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self.history: dict[str, list[str]] = defaultdict(list)

    def create_workitem(self, workitem: Any, *rest: Any, **more: Any) -> None:
        self._luck()
        super().create_workitem(workitem, *rest, **more)
        self.history[workitem.sop_instance_uid].append(workitem.priority)

    def update_workitem(self, workitem: Any, *rest: Any, **more: Any) -> None:
        self._luck()
        super().update_workitem(workitem, *rest, **more)
        self.history[workitem.sop_instance_uid].append(workitem.priority)

    def _luck(self) -> None:
        if self._dice.random() < FAILS:
            raise ConnectionError("the store is away")


@contextmanager
def sending(node: Node) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The process that sends, as `serve` starts it; the list always holds the present one."""
    running = [start(node)]
    try:
        yield running
    finally:
        running[0].kill()
        running[0].wait()


def start(node: Node) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dicom_node", "run", "scheduler", "--config", str(node.config)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_every_change_arrives_in_order_whatever_fails(tmp_path: Path, random_bundle: Path) -> None:
    seed = int(os.environ.get("PRIMA_CHAOS_SEED", secrets.randbits(32)))
    dice = random.Random(seed)
    first, second, store = Ris(random.Random(seed + 1)), Ris(random.Random(seed + 2)), UnreliableStore(dice)
    with (
        ScriptedPeer(first) as ris,
        ScriptedPeer(second) as other,
        served(ups=UpsProvider(store, receivers())) as manager,
    ):
        again = {"host": "127.0.0.1", "first_retry_seconds": 0.05, "max_retry_seconds": 0.2, "timeout_seconds": 10.0}
        goals = [
            {"name": "ris", "kind": "hl7", "port": ris.port} | again,
            {"name": "second", "kind": "hl7", "message": "ORM", "port": other.port} | again,
            {"name": "manager", "kind": "ups", "ae_title": manager.peer.ae_title, "port": manager.port} | again,
        ]
        node = Node(tmp_path, random_bundle, destinations=goals, node={"http_port": free_port()})
        node.configuration.node.storage.mkdir()
        migrate(node.configuration.node.database_url)
        with sending(node) as running:
            killer = threading.Thread(target=kill_at_random, args=(node, running, dice))
            killer.start()
            write_results(node, random.Random(seed + 3))
            killer.join()
            node.wait(lambda: not open_deliveries(node), f"everything was delivered (seed {seed})")
        check(node, seed, first, second, store)
        node.registry.close()


def kill_at_random(node: Node, running: list[subprocess.Popen[bytes]], dice: random.Random) -> None:
    for _ in range(KILLS):
        time.sleep(dice.uniform(0.5, 4.0))
        running[0].kill()
        running[0].wait()
        running[0] = start(node)


def write_results(node: Node, dice: random.Random) -> None:
    """An order, a result, and for half of the studies a second result that asks for more; one in ten is undone."""
    for number in range(STUDIES):
        uid, accession = f"1.2.3.{number}", f"A{number}"
        one = order(accession_number=accession, placer_order_number=f"PL{number}", filler_order_number=f"FI{number}")
        tell(node.registry, placed(one), at=time.time())
        told = LISTENERS if number % 5 == 0 else LISTENERS[:2]
        for level in (Level.ELEVATED, Level.CRITICAL)[: dice.choice((1, 2))]:
            at = time.time()
            receive(node.registry, uid, at=at, accession=accession)
            finish(node.registry, uid, level=level, told=told, at=time.time())
        if number % 10 == 0:
            node.registry.undo_priority(study_id(uid), time.time())


def open_deliveries(node: Node) -> int:
    waits = deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.SENDING])
    with node.registry._read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).where(waits)) or 0)


def check(node: Node, seed: int, first: Ris, second: Ris, store: UnreliableStore) -> None:
    said = f"seed {seed}"
    by_id = {row.id: row for row in node.rows(changes)}
    sent = [row for row in node.rows(deliveries) if row.state == DeliveryState.DELIVERED]
    assert len(sent) + len([row for row in node.rows(deliveries) if row.state == DeliveryState.WITHDRAWN]) == len(
        node.rows(deliveries)
    ), f"{said}: nothing was set aside"
    undone = {row.study_id for row in by_id.values() if row.undoes}
    for name, peer in (("ris", first), ("second", second)):
        got = peer.by_study()
        for number in range(STUDIES):
            study, came = study_id(f"1.2.3.{number}"), got[f"1.2.3.{number}"]
            of_study = [row for row in sent if (row.destination, row.study_id) == (name, study)]
            wanted = [by_id[row.change_id].key for row in of_study]
            once = list(dict.fromkeys(key for key, _ in came))
            assert [key for key in once if key in wanted] == wanted, f"{said}: each came, in order"
            assert [key for key, _ in came] == sorted((key for key, _ in came), key=once.index), (
                f"{said}: a repetition never follows a later change"
            )
            ranks = ["RAS".index(priority) for _, priority in came]
            assert study in undone or ranks == sorted(ranks), f"{said}: nothing was lowered"
    assert len(store.history) == len({row.study_id for row in sent if row.destination == "manager"}), said
    for priorities in store.history.values():
        ranks = [("LOW", "MEDIUM", "HIGH").index(priority) for priority in priorities]
        lowered = sum(later < earlier for earlier, later in itertools.pairwise(ranks))
        assert lowered <= 1, f"{said}: only an undo takes a step down, and once"
    assert len(undone) == len(range(0, STUDIES, 10)), said
