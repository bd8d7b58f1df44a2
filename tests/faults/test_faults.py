"""The node under faults of every kind, one after another, on one node that nobody helps.

Each round sends a few studies after their orders, does one fault and waits until everything was delivered; then every
acknowledged image is in the spool byte for byte, each study has exactly one current report at both archives, made from
all its images and no others, the RIS was told of each, and registry and spool agree. See `checks.py`.

Without further ado it is a short form: ten faults that a random seed draws, several at once in each round.
PRIMA_FAULTS_ROUNDS asks for so many rounds of one fault each, PRIMA_FAULTS_TOGETHER for several in each,
PRIMA_FAULTS_ONLY for faults with that in their name, PRIMA_FAULTS_SEED for the plan of an earlier run,
PRIMA_FAULTS_FIRST for its rounds from there on, PRIMA_FAULTS_WRITE for the table, written into the generated part of
that file. The moments of a repetition are never the same to the microsecond: they depend on the machine.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.base.events import Event
from dicom_node.base.fault_points import FaultPoint
from faults.catalogue import faults
from faults.checks import whatever_is_wrong
from faults.house import KILL, House, house
from faults.rounds import Record, page, plan, play

pytestmark = pytest.mark.slow

SHORT_ROUNDS, SHORT_TOGETHER = 2, 5
COMMAND = "python -m pytest tests/faults/test_faults.py -s"
BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A sender that finds nobody listening is what this is about."""
    caplog.set_level(logging.CRITICAL, "pynetdicom")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house"), random_bundle) as built:
        yield built


def test_nothing_acknowledged_is_lost_and_every_study_ends_in_one_report_whatever_fails(here: House) -> None:
    rounds = int(os.environ.get("PRIMA_FAULTS_ROUNDS") or 0)
    seed = int(os.environ.get("PRIMA_FAULTS_SEED") or secrets.randbits(32))
    first = int(os.environ.get("PRIMA_FAULTS_FIRST") or 0)
    together = int(os.environ.get("PRIMA_FAULTS_TOGETHER") or (1 if rounds else SHORT_TOGETHER))
    known = faults(disk=here.disk is not None, clock=here.clock.works)
    if together > 1:
        known = [fault for fault in known if not (fault.slow or fault.alone)]
    only = os.environ.get("PRIMA_FAULTS_ONLY", "")
    known = [fault for fault in known if only in fault.name]
    rounds = rounds or SHORT_ROUNDS
    planned = plan(known, seed, first + rounds, together)
    print(f"PRIMA_FAULTS_SEED={seed}")
    record = Record()
    for number in range(first, first + rounds):
        wrong = play(here, planned[number], seed, number, record)
        again = {"SEED": seed, "FIRST": number, "ROUNDS": 1, "TOGETHER": together}
        again |= {"ONLY": f"'{only}'"} if only else {}
        command = " ".join(f"PRIMA_FAULTS_{key}={value}" for key, value in again.items())
        if target := os.environ.get("PRIMA_FAULTS_WRITE"):  # after every round: a long run may be interrupted
            _write(Path(target), page(record, _facts(here, seed, number + 1 - first)))
        assert not wrong, f"{wrong}\n{record.table()}\nonce more: {command} {COMMAND}"
    print(record.table())
    assert not whatever_is_wrong(here, record.sent)
    assert here.node.passed() == set(FaultPoint), "a fault point that nothing on the way of a study passes"
    if rounds >= len(known) and not only and first == 0:  # from its middle on a plan need not draw each once
        assert record.happened == set(FaultPoint)


def test_every_fault_point_of_the_code_is_one_that_is_tried() -> None:
    tried = {fault.point for fault in faults(disk=False, clock=False) if fault.point is not None}
    source = "".join(file.read_text() for file in Path(__file__).parents[2].glob("dicom_node/**/*.py"))
    used = {point for point in FaultPoint if f"passed(FaultPoint.{point.name})" in source}
    assert tried == used == set(FaultPoint)


def _facts(here: House, seed: int, rounds: int) -> dict[str, str]:
    ended = [line for line in here.node.log_lines() if line["number"] == Event.PROCESS_ENDED.number]
    ends = [line.get("status", line.get("reason")) for line in ended]
    others = sorted(Counter(status for status in ends if status != -KILL).items(), key=str)
    return {
        "command": "`make faults`",
        "seed": f"{seed} (`PRIMA_FAULTS_SEED`)",
        "rounds": str(rounds),
        "processes that ended otherwise than by SIGKILL, by status": ", ".join(map(str, others)) or "none",
    }


def _write(path: Path, text: str) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}{text}\n{END}{after}", encoding="utf-8")
