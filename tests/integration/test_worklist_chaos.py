"""The reading worklist under faults: peers that fail three times in ten, the node killed at random moments.

A hospital goes on meanwhile. Its RIS sends orders over HL7, each again and again until it is acknowledged; results come
in; the RIS and people change priorities and take them back. Every peer is told of every study: three kinds of HL7
message, which carry the priority each in a place of its own, and UPS. At the end every peer got each change at least
once, in each study's order; nothing was lowered and nothing lost.

The model is left out: what the worker would write down is written down directly, so that hundreds of studies take
seconds. The plan's seed is in the output; PRIMA_CHAOS_SEED repeats it (never the moments to the microsecond),
PRIMA_CHAOS_STUDIES and PRIMA_CHAOS_ROUNDS change the size (`make long`: 60 and 1, `make faults`: 300 and 6). A round
kills receiver, scheduler and the whole node.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicom_node.admin.main import app
from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import Listener
from dicom_node.base.types import DeliveryState, Level, StudyState, study_id
from dicom_node.jobs.tables import deliveries, studies
from dicom_node.jobs.worklist_tables import changes, messages, orders
from dicom_node.worklist.dicom.ups_provider import UpsProvider
from dicom_node.worklist.hl7.framing import block
from support.hl7_messages import lines, msh
from support.hl7_peers import ScriptedPeer
from support.node import LOOK_AGAIN_SECONDS, Node
from support.orders import KEY, PATIENT, finish
from support.peers import free_port, listening
from support.reading_stories import SAID, Step, Story, allowed, tell_story
from support.restless_node import WHOLE, RestlessNode, restless
from support.unreliable_peers import UnreliableRis, UnreliableStore
from support.worklist_peers import receivers, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "PRIMA_LONG" not in os.environ,
        reason="a minute of a killed node: PRIMA_LONG=1, make long or make faults; tests/faults has a short form",
    ),
]

STUDIES = int(os.environ.get("PRIMA_CHAOS_STUDIES", "60"))
ROUNDS = int(os.environ.get("PRIMA_CHAOS_ROUNDS", "1"))
ROUND = ("receiver", "scheduler", WHOLE)
LAST = ("receiver", "scheduler")
HANDS = 3  # so many things happen at once in this hospital
BACKLOG = 60  # open deliveries at which it waits: kills and arrivals fall into the whole of the sending
SPREAD = 20.0  # studies that arrive between two steps of one story, at most
LONGEST_WAIT_BEFORE_A_KILL = 0.3
MESSAGES = {"ris": "ORM", "second": "OMI", "results": "ORU"}
# An OMI must have them, and these orders do not.
IMAGING = {"IPC-2": "RP{accession_number}", "IPC-4": "SPS{accession_number}"}
TOP_LEVEL_IF_UNKNOWN = "second"
MANAGER = Listener("manager", "ups")
LISTENERS = (*(Listener(name, "hl7", name == TOP_LEVEL_IF_UNKNOWN) for name in MESSAGES), MANAGER)
PID = f"PID|1||{PATIENT.patient_id}||{PATIENT.name}||{PATIENT.birth_date}|{PATIENT.sex}"


@dataclass(frozen=True)
class Peers:
    """What they took to heart: by name, and the worklist manager's."""

    hl7: dict[str, UnreliableRis]
    ups: UnreliableStore


class Hospital:
    """Carries out the stories' steps, each completely before the story's next."""

    def __init__(self, node: Node, peers: Peers, stories: Sequence[Story], dice: random.Random) -> None:
        self.done = 0
        self.over = threading.Event()  # set when anything of the test failed: nobody goes on then
        #: Messages that each HL7 peer had got when the node acknowledged that the RIS had raised an order.
        self.raised_at: dict[tuple[str, str], int] = {}
        self.refused: set[tuple[int, int]] = set()  # commands, by number of story and step
        self._node = node
        self._peers = peers
        self._one_result = threading.Lock()
        self._plans: list[list[tuple[float, int, Story, Step]]] = [[] for _ in range(HANDS)]
        for story in stories:
            at = float(story.number)
            for number, step in enumerate(story.steps):
                self._plans[story.number % HANDS].append((at, number, story, step))
                at += dice.uniform(0, SPREAD)

    @property
    def steps(self) -> int:
        """How many there are in all."""
        return sum(map(len, self._plans))

    def run(self, hand: int) -> None:
        """What one hand does, in order of time."""
        with Ris(self._node.configuration.hl7.port or 0, self.over) as ris:
            for _, number, story, step in sorted(self._plans[hand], key=lambda one: one[:2]):
                while open_deliveries(self._node) > BACKLOG:
                    self.pause()
                self._do(ris, story, number, step)
                self.done += 1

    def pause(self, seconds: float = 4 * LOOK_AGAIN_SECONDS) -> None:
        """Let others go on."""
        if self.over.wait(seconds):
            raise AssertionError("something else failed")

    def _do(self, ris: Ris, story: Story, number: int, step: Step) -> None:
        if step.what in ("order", "reorder"):
            ris.send(order_message(story, number, step))
        if step.what == "reorder":
            self.raised_at |= {(name, story.placer): peer.attempts for name, peer in self._peers.hl7.items()}
        if step.what == "result":
            with self._one_result:
                queue(self._node, story)
                level = Level(step.word)
                finish(self._node.registry, story.study_instance_uid, level=level, told=LISTENERS, at=time.time())
        if step.what in ("raise", "undo"):
            level = ["--level", step.word] if step.word else []
            command = ["worklist", step.what, story.study_instance_uid, *level, "--config", str(self._node.config)]
            try:
                app(command, standalone_mode=False)
            except PermanentError:  # it is as high already, or nothing can be taken back now: the person was told so
                self.refused.add((story.number, number))


def queue(node: Node, story: Story) -> None:
    """The study waits for the worker as if images of it had come; there are none, so there is no spool to keep."""
    closed = {"state": StudyState.COMPLETE, "last_arrival_at": time.time(), "completed_at": time.time()}
    study = {
        "id": study_id(story.study_instance_uid),
        "study_instance_uid": story.study_instance_uid,
        "accession_number": story.accession_number,
        "patient_key": KEY,
        "received_at": time.time(),
        "opened_at": time.time(),
    }
    again = studies.update().where(studies.c.id == study["id"]).values(revision=studies.c.revision + 1, **closed)
    with node.registry._write() as connection:
        if not connection.execute(again).rowcount:
            connection.execute(studies.insert().values(**study, **closed))


class Ris:
    """Sends each message until the node acknowledges it, whatever becomes of the node meanwhile."""

    def __init__(self, port: int, over: threading.Event) -> None:
        self._port = port
        self._over = over
        self._connection: socket.socket | None = None

    def __enter__(self) -> Ris:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def send(self, message: bytes) -> None:
        """Return once it is acknowledged."""
        while not self._over.is_set():
            try:
                answer = self._exchange(block(message))
            except OSError:
                answer = b""
            if answer:
                assert b"\rMSA|AA|" in answer, answer
                return
            self._hang_up()
            time.sleep(LOOK_AGAIN_SECONDS)

    def _exchange(self, data: bytes) -> bytes:
        if self._connection is None:
            self._connection = socket.create_connection(("127.0.0.1", self._port))
        self._connection.sendall(data)
        answer = b""
        while not answer.endswith(b"\x1c\r"):
            part = self._connection.recv(65536)
            if not part:
                return b""
            answer += part
        return answer

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def order_message(story: Story, number: int, step: Step) -> bytes:
    """ORM^O01: the order placed, or its priority changed."""
    control = "NW" if step.what == "order" else "XO"
    numbers = f"{story.placer}|FI{story.number}"
    return lines(
        msh("ORM^O01", "2.3.1", f"{story.number}.{number}"),
        PID,
        f"ORC|{control}|{numbers}||SC||^^^20260102093000^^{step.word}",
        f"OBR|1|{numbers}|MRHEAD^MRI head^L||||||||||||||{story.accession_number}",
    )


class Killer:
    """Kills each time a random number of steps was taken, and a moment more has passed."""

    def __init__(self, life: RestlessNode, hospital: Hospital, dice: random.Random) -> None:
        self._life = life
        self._hospital = hospital
        self._dice = dice
        roles = [role for _ in range(ROUNDS) for role in (*dice.sample(ROUND[:2], 2), WHOLE)]
        roles += LAST
        self.plan = list(zip(sorted(dice.sample(range(1, hospital.steps), len(roles))), roles, strict=True))

    def run(self) -> None:
        """Carry out the plan."""
        for after, what in self.plan:
            while self._hospital.done < after:
                self._hospital.pause()
            self._hospital.pause(self._dice.uniform(0, LONGEST_WAIT_BEFORE_A_KILL))
            self._life.kill(what)


@contextmanager
def unreliable_peers(seed: int) -> Iterator[tuple[Peers, list[dict[str, Any]]]]:
    """The peers, and the node's destinations."""
    scripts = {name: UnreliableRis(random.Random(seed + number)) for number, name in enumerate(MESSAGES)}
    store = UnreliableStore(random.Random(seed + len(scripts)))
    again = {"host": "127.0.0.1", "first_retry_seconds": 0.05, "max_retry_seconds": 0.2, "timeout_seconds": 10.0}
    with (
        ScriptedPeer(scripts["ris"]) as ris,
        ScriptedPeer(scripts["second"]) as second,
        ScriptedPeer(scripts["results"]) as results,
        served(ups=UpsProvider(store, receivers())) as manager,
    ):
        goals: list[dict[str, Any]] = [
            {"name": name, "kind": "hl7", "message": MESSAGES[name], "port": peer.port} | again
            for name, peer in (("ris", ris), ("second", second), ("results", results))
        ]
        goals[1] |= {"top_level_if_unknown": True, "fields": IMAGING}
        title = manager.peer.ae_title
        goals.append({"name": MANAGER.name, "kind": "ups", "ae_title": title, "port": manager.port} | again)
        yield Peers(scripts, store), goals


def test_every_change_arrives_in_order_whatever_fails(tmp_path: Path, random_bundle: Path) -> None:
    seed = int(os.environ.get("PRIMA_CHAOS_SEED", secrets.randbits(32)))
    print(f"PRIMA_CHAOS_SEED={seed}")
    dice = random.Random(seed)
    stories = [tell_story(number, dice) for number in range(STUDIES)]
    with unreliable_peers(seed) as (peers, goals):
        node = Node(
            tmp_path,
            random_bundle,
            destinations=goals,
            hl7={"port": free_port()},
            intake={"stability_seconds": 3600.0},
            worklist={"procedure_steps": False},
        )
        with restless(node) as life:
            node.wait(lambda: listening(node.configuration.hl7.port or 0), "the node takes orders")
            hospital = Hospital(node, peers, stories, dice)
            killer = Killer(life, hospital, dice)
            print(killer.plan)
            with ThreadPoolExecutor(1 + HANDS) as pool:
                running = [pool.submit(killer.run), *(pool.submit(hospital.run, hand) for hand in range(HANDS))]
                for ended in as_completed(running):
                    if ended.exception() is not None:
                        hospital.over.set()
                    ended.result()
            node.wait(lambda: not open_deliveries(node), "everything was delivered")
        check_orders(node, stories)
        check_deliveries(node, stories, peers)
        check_what_was_heard(stories, peers, hospital)
        node.registry.close()


def open_deliveries(node: Node) -> int:
    waits = deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.SENDING])
    with node.registry._read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).where(waits)) or 0)


def check_orders(node: Node, stories: Sequence[Story]) -> None:
    """What was acknowledged is there, once, as it was said last; no message was refused or waits."""
    kept = {row.placer_order_number: (row.accession_number, row.priority) for row in node.rows(orders)}
    assert kept == {story.placer: (story.accession_number, SAID[story.ordered]) for story in stories}
    assert len(node.rows(orders)) == len(stories)
    assert [row.outcome for row in node.rows(messages) if row.applied_at is None or row.outcome] == []


def check_deliveries(node: Node, stories: Sequence[Story], peers: Peers) -> None:
    """Every delivery ended well, and each HL7 peer got each change that was delivered to it, in order."""
    rows = node.rows(deliveries)
    of_study: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in rows:
        of_study[row.destination, row.study_id].append(row)
    assert {row.state for row in rows} <= {DeliveryState.DELIVERED, DeliveryState.WITHDRAWN}, "nothing was set aside"
    keys = {row.id: row.key for row in node.rows(changes)}
    for name, peer in peers.hl7.items():
        came = peer.by_placer()
        for story in stories:
            sent = of_study[name, study_id(story.study_instance_uid)]
            delivered = [keys[row.change_id] for row in sent if row.state == DeliveryState.DELIVERED]
            got = [one.key for one in came[story.placer]]
            once = list(dict.fromkeys(got))
            assert [key for key in once if key in delivered] == delivered, f"{name}: each came, in order"
            assert got == sorted(got, key=once.index), f"{name}: a repetition never follows a later change"


def check_what_was_heard(stories: Sequence[Story], peers: Peers, hospital: Hospital) -> None:
    """Each peer heard what each story asks for and nothing else, and nothing after the RIS had raised the order."""
    steps_of = {
        story: [step for number, step in enumerate(story.steps) if (story.number, number) not in hospital.refused]
        for story in stories
    }
    for listener in LISTENERS[: len(MESSAGES)]:
        came = peers.hl7[listener.name].by_placer()
        for story, steps in steps_of.items():
            heard = came[story.placer]
            codes = tuple({one.key: one.code for one in heard}.values())
            assert codes in allowed(steps, listener), (listener.name, codes, steps, story)
            # What was on its way when the RIS raised the order cannot be called back: two messages at most.
            since = hospital.raised_at.get((listener.name, story.placer))
            assert since is None or all(one.attempt <= since + 1 for one in heard), (listener.name, heard, story)
    had = peers.ups.by_study()
    for story, steps in steps_of.items():
        priorities = tuple(had.get(story.study_instance_uid, ()))
        assert priorities in allowed(steps, MANAGER), (priorities, steps, story)
