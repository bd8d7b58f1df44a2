"""Rows behind files: order, groups, an absent database, a row that is refused, back-pressure and the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from dicom_node.base.types import Arrival
from dicom_node.intake.registrar import Closed, Opened, Registrar, RegistryBehind
from dicom_node.jobs.registry import Registry


def arrival(number: int, association_id: str = "a") -> Arrival:
    return Arrival(
        study_instance_uid="1.2",
        series_instance_uid="1.3",
        sop_instance_uid=f"1.4.{number}",
        sop_class_uid="1.5",
        transfer_syntax_uid="1.2.840.10008.1.2",
        patient_key="",
        accession_number="",
        digest="d",
        path=f"study/{number}.dcm",
        size=1,
        calling_ae="A",
        urgent=False,
        image=True,
        received_at=0.0,
        association_id=association_id,
    )


class Notes(Registry):
    """A registry that keeps calls in a list; `away` times it cannot be reached, and it never takes `refused` paths."""

    def __init__(self, away: int = 0, refused: Sequence[str] = ()) -> None:
        super().__init__("sqlite://")
        self.calls: list[tuple[str, str]] = []
        self.groups: list[int] = []
        self.away = away
        self.refused = set(refused)
        self.gate = threading.Event()
        self.gate.set()

    def _reach(self) -> None:
        self.gate.wait()
        if self.away:
            self.away -= 1
            raise OperationalError("INSERT", {}, Exception("database is locked"))

    def open_associations(self, boot_id: str, opened: Sequence[tuple[str, str, str, float]]) -> None:
        self._take("open", [one[0] for one in opened])

    def close_associations(self, closed: Sequence[tuple[str, float]]) -> None:
        self._take("close", [one[0] for one in closed])

    def _take(self, what: str, associations: Sequence[str]) -> None:
        self._reach()
        if self.refused & set(associations):
            raise IntegrityError(what, {}, Exception("refused"))
        self.calls += [(what, one) for one in associations]

    def record_arrivals(self, arrivals: Sequence[Arrival]) -> None:
        self._reach()
        if self.refused & {item.path for item in arrivals}:
            raise IntegrityError("INSERT", {}, Exception("constraint"))
        self.groups.append(len(arrivals))
        self.calls += [("arrival", item.path) for item in arrivals]


def record(registry: Notes, count: int = 5) -> None:
    registrar = Registrar(registry, "boot")
    registrar.put(Opened("a", "A", "127.0.0.1", 0.0))
    for number in range(count):
        registrar.put(arrival(number))
    registrar.put(Closed("a", 1.0))
    registrar.start()
    registrar.stop(60)


def expected(count: int = 5, without: Sequence[int] = ()) -> list[tuple[str, str]]:
    arrivals = [("arrival", f"study/{number}.dcm") for number in range(count) if number not in without]
    return [("open", "a"), *arrivals, ("close", "a")]


def test_an_association_is_opened_before_and_closed_after_its_arrivals() -> None:
    registry = Notes()
    record(registry)
    assert registry.calls == expected()


def test_what_waits_is_written_in_one_transaction() -> None:
    registry = Notes()
    record(registry, 100)
    assert registry.groups == [100]


@pytest.mark.parametrize("away", [1, 2, 3])
def test_an_absent_database_delays_rows_and_loses_none(away: int) -> None:
    registry = Notes(away=away)
    record(registry)
    assert registry.calls == expected()


def test_a_row_the_database_refuses_does_not_keep_the_others_out() -> None:
    registry = Notes(refused=["study/2.dcm"])
    record(registry)
    assert registry.calls == expected(without=[2])


def test_an_association_the_database_refuses_does_not_keep_the_others_out() -> None:
    registry = Notes(refused=["b"])
    registrar = Registrar(registry, "boot")
    registrar.start()
    for name in "abc":
        registrar.put(Opened(name, "A", "::1", 0.0))
    registrar.put(arrival(0))
    for name in "abc":
        registrar.put(Closed(name, 1.0))
    registrar.stop(60)
    assert registry.calls == [("open", "a"), ("open", "c"), *expected(1)[1:-1], ("close", "a"), ("close", "c")]


def test_senders_are_told_to_wait_when_too_many_rows_wait() -> None:
    registry = Notes()
    registry.gate.clear()
    registrar = Registrar(registry, "boot", max_waiting=3)
    registrar.admit()
    for number in range(3):
        registrar.put(arrival(number))
    with pytest.raises(RegistryBehind):
        registrar.admit()
    registry.gate.set()
    registrar.start()
    registrar.stop(60)
    registrar.admit()
    assert len(registry.calls) == 3


def test_stopping_gives_up_on_a_database_that_stays_away() -> None:
    registry = Notes(away=10**9)
    registrar = Registrar(registry, "boot")
    registrar.start()
    registrar.put(arrival(0))
    registrar.stop(patience_seconds=0.05)
    assert not registrar.running
    assert registry.calls == []
