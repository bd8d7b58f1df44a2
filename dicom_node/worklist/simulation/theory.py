"""What queueing theory says in closed form; the simulation is held against it by tests.

Rates and times need only share a unit; the tests use minutes. A wait ends when reading starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from dicom_node.base.errors import PermanentError


def erlang_c(servers: int, load: float) -> float:
    """The probability that an arrival must wait in M/M/c (Erlang 1917). load: arrival rate × mean service, below c.

    By way of Erlang's B recursion, which does not overflow. Raises PermanentError when the queue has no steady state.
    """
    if not 0 <= load < servers:
        raise PermanentError(f"no steady state: a load of {load:g} on {servers} servers")
    blocked = 1.0
    for busy in range(1, servers + 1):
        blocked = load * blocked / (busy + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def mmc_wait(rate: float, mean: float, servers: int) -> float:
    """Mean wait in M/M/c, first come, first served. mean: of the exponential service time."""
    return erlang_c(servers, rate * mean) * mean / (servers - rate * mean)


def mmc_priority_waits(rates: Sequence[float], mean: float, servers: int) -> list[float]:
    """Mean wait of each class in M/M/c with non-preemptive priorities and one service rate for all.

    rates: arrivals of each class, the most urgent first. Cobham, Operations Research 2 (1954), 70-76; Kella & Yechiali,
    Naval Research Logistics Quarterly 32 (1985), 507-513. Raises PermanentError when there is no steady state.
    """
    until_free = erlang_c(servers, sum(rates) * mean) * mean / servers
    return _cobham(until_free, [rate * mean / servers for rate in rates])


def mg1_priority_waits(rates: Sequence[float], means: Sequence[float], squares: Sequence[float]) -> list[float]:
    """Mean wait of each class in M/G/1 with non-preemptive priorities.

    rates, means, squares: arrivals, E[S] and E[S²] of each class, the most urgent first. Cobham 1954, as above.
    Raises PermanentError when there is no steady state.
    """
    loads = [rate * mean for rate, mean in zip(rates, means, strict=True)]
    if sum(loads) >= 1:
        raise PermanentError(f"no steady state: a load of {sum(loads):g} on one server")
    residual = sum(rate * square for rate, square in zip(rates, squares, strict=True)) / 2
    return _cobham(residual, loads)


def _cobham(until_free: float, loads: Sequence[float]) -> list[float]:
    """W_k = W_0 / ((1 - σ_{k-1}) (1 - σ_k)), where σ_k is the load of class k and all before it."""
    loaded = list(accumulate(loads, initial=0.0))
    return [until_free / ((1 - above) * (1 - own)) for above, own in pairwise(loaded)]
