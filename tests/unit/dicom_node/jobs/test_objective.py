"""How many flags of a window came in time, on every database."""

from __future__ import annotations

from dicom_node.base.types import Level
from dicom_node.jobs.objective import FlagsInTime
from dicom_node.jobs.registry import Registry
from support.orders import RIS, finish, order, placed, receive, tell


def flagged(registry: Registry, number: int, *, decided: float) -> None:
    """A study whose last image came 60 s before its flag was decided."""
    uid, accession = f"1.2.{number}", f"A{number}"
    numbers = {"placer_order_number": f"P{number}", "filler_order_number": f"F{number}"}
    tell(registry, placed(order(accession_number=accession, **numbers)))
    receive(registry, uid, at=decided - 60, accession=accession)
    finish(registry, uid, level=Level.URGENT, told=(RIS,), at=decided)


def acknowledge(registry: Registry, at: float) -> None:
    delivery = registry.claim_delivery("o", RIS.name, at + 60, at)
    assert delivery is not None
    registry.delivered(delivery, at)


def test_only_flags_of_the_window_count(registry: Registry) -> None:
    flagged(registry, 1, decided=1_000)
    acknowledge(registry, 5_000)
    flagged(registry, 2, decided=10_000)
    acknowledge(registry, 10_020)
    assert registry.flags_in_time(0, 120, 10_100) == FlagsInTime(in_time=1, due=2)
    assert registry.flags_in_time(5_000, 120, 10_100) == FlagsInTime(in_time=1, due=1)
    assert registry.flags_in_time(10_001, 120, 10_100) == FlagsInTime(in_time=0, due=0)


def test_a_flag_that_waits_is_due_once_its_time_is_over(registry: Registry) -> None:
    flagged(registry, 1, decided=1_000)
    assert registry.flags_in_time(0, 120, 1_060) == FlagsInTime(in_time=0, due=0)
    assert registry.flags_in_time(0, 120, 1_061) == FlagsInTime(in_time=0, due=1)
    acknowledge(registry, 1_061)
    assert registry.flags_in_time(0, 120, 1_061) == FlagsInTime(in_time=0, due=1)
    assert registry.flags_in_time(0, 121, 1_061) == FlagsInTime(in_time=1, due=1)


def test_a_study_that_nobody_is_told_of_is_no_flag(registry: Registry) -> None:
    receive(registry, at=940)
    finish(registry, told=(), at=1_000)
    assert registry.flags_in_time(0, 1, 1e6) == FlagsInTime(0, 0)
