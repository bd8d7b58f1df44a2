"""The closed forms against values worked out by hand, and against each other."""

from __future__ import annotations

import pytest

from dicom_node.base.errors import PermanentError
from dicom_node.worklist.simulation.theory import erlang_c, mg1_priority_waits, mmc_priority_waits, mmc_wait


@pytest.mark.parametrize(("servers", "load", "waits"), [(1, 0.7, 0.7), (2, 1, 1 / 3), (3, 2, 4 / 9), (5, 0, 0)])
def test_erlang_c_by_hand(servers: int, load: float, waits: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(waits)


def test_erlang_c_of_a_large_room_does_not_overflow() -> None:
    assert 0 < erlang_c(400, 399) < 1


@pytest.mark.parametrize("servers", [1, 2, 5])
def test_a_single_class_waits_as_without_priorities(servers: int) -> None:
    rate = 0.8 * servers / 12
    assert mmc_priority_waits([rate], 12, servers) == pytest.approx([mmc_wait(rate, 12, servers)])


def test_one_exponential_server_is_both_theories() -> None:
    rates = [0.01, 0.03, 0.02]
    assert mg1_priority_waits(rates, [12] * 3, [2 * 12**2] * 3) == pytest.approx(mmc_priority_waits(rates, 12, 1))


def test_priorities_only_shift_the_waiting() -> None:
    """Kleinrock's conservation law: the mean over all arrivals is that of first come, first served."""
    rates = [0.02, 0.05, 0.1]
    waits = mmc_priority_waits(rates, 12, 3)
    assert waits == sorted(waits)
    mean = sum(rate * wait for rate, wait in zip(rates, waits, strict=True)) / sum(rates)
    assert mean == pytest.approx(mmc_wait(sum(rates), 12, 3))


def test_an_overloaded_room_has_no_steady_state() -> None:
    with pytest.raises(PermanentError, match="no steady state"):
        mmc_wait(0.1, 12, 1)
    with pytest.raises(PermanentError, match="no steady state"):
        mg1_priority_waits([0.05, 0.05], [12, 12], [150, 150])
