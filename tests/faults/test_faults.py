"""The node under faults of every kind, one after another, on one node that nobody helps.

Each round sends a few studies after their orders, does one fault and waits until everything was delivered; then every
acknowledged image is in the spool byte for byte, each study has exactly one current report at both archives, made from
all its images and no others, the RIS was told of each, and registry and spool agree. See `checks.py`.

PRIMA_FAULTS_ROUNDS and PRIMA_FAULTS_SEED say how many and which; PRIMA_FAULTS_FIRST begins at a later round of the same
plan; PRIMA_FAULTS_WRITE names the file whose generated part is written anew. `make faults` does all faults three times.
The moments of a repetition are never the same to the microsecond: they depend on the machine.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.base.fault_points import FaultPoint
from faults.catalogue import faults
from faults.house import House, house
from faults.rounds import Record, page, plan, play

pytestmark = pytest.mark.slow

FEW = 12
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
    rounds = int(os.environ.get("PRIMA_FAULTS_ROUNDS") or FEW)
    seed = int(os.environ.get("PRIMA_FAULTS_SEED") or secrets.randbits(32))
    first = int(os.environ.get("PRIMA_FAULTS_FIRST") or 0)
    known = faults(disk=here.disk is not None, clock=here.clock.works)
    if "PRIMA_FAULTS_ROUNDS" not in os.environ:
        known = [fault for fault in known if not fault.slow]
    print(f"PRIMA_FAULTS_SEED={seed}")
    record = Record()
    for number, fault in list(enumerate(plan(known, seed, first + rounds)))[first:]:
        wrong = play(here, fault, seed, number, record)
        again = f"PRIMA_FAULTS_SEED={seed} PRIMA_FAULTS_FIRST={number} PRIMA_FAULTS_ROUNDS=1 {COMMAND}"
        assert not wrong, f"{fault.name}: {wrong}\n{record.table()}\nonce more: {again}"
    print(record.table())
    assert here.node.passed() >= set(FaultPoint), "a fault point that nothing on the way of a study passes"
    tried = {fault.point for fault in plan(known, seed, first + rounds) if fault.point is not None}
    if rounds >= len(known):
        assert tried == record.happened == set(FaultPoint)
    if target := os.environ.get("PRIMA_FAULTS_WRITE"):
        _write(Path(target), page(record, {"command": "`make faults`", "seed": str(seed), "rounds": str(rounds)}))


def test_every_fault_point_of_the_code_is_one_that_is_tried() -> None:
    tried = {fault.point for fault in faults(disk=False, clock=False) if fault.point is not None}
    source = "".join(file.read_text() for file in Path(__file__).parents[2].glob("dicom_node/**/*.py"))
    used = {point for point in FaultPoint if f"passed(FaultPoint.{point.name})" in source}
    assert tried == used == set(FaultPoint)


def _write(path: Path, text: str) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}{text}\n{END}{after}", encoding="utf-8")
