"""How long studies wait for a device: a formula, beside a simulation of the node's own queue.

    python tests/benchmarks/queueing.py [--service S] [--price P] [--studies N] [--seed N] [--json FILE]

Studies arrive at random (Poisson), each takes a device S seconds (--spread: the standard deviation over the mean), and
waits for the first of the devices that is free. Formula: Erlang's C for the probability to wait at all, and the wait of
those that do taken as exponential (Allen and Cunneen's approximation):

    ρ = S / (X · devices)     W = S / (devices · (1 − ρ)) · (1 + spread²) / 2     p95 = W · ln(C / 0.05)

The price is that of the devices, busy or not, by 1,000 studies. Not in it: batches, which shorten waits, and studies
that come in bursts, which lengthen them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import statistics
from pathlib import Path

import numpy as np

USED = 0.8  # share of the devices' time from which on another device is taken


def erlang_c(devices: int, load: float) -> float:
    """The probability to wait. load: mean arrivals in one service time, below the number of devices."""
    blocked = 1.0
    for number in range(1, devices + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / devices * (1 - blocked))


def p95_wait(apart: float, service: float, spread: float, devices: int) -> float:
    """Seconds that 19 of 20 studies wait at most, by the formula. apart: mean seconds between two studies."""
    load = service / apart
    waits = erlang_c(devices, load)
    mean = service / (devices - load) * (1 + spread**2) / 2
    return max(0.0, mean * math.log(waits / 0.05)) if waits > 0.05 else 0.0


def simulated(
    apart: float, service: float, spread: float, devices: int, studies: int, seed: int
) -> tuple[float, float]:
    """Mean and 95th percentile of the seconds that studies wait."""
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(apart, studies))
    shape = 1 / spread**2 if spread else 0.0
    services = draw.gamma(shape, service / shape, studies) if spread else np.full(studies, service)
    free = [0.0] * devices
    waits = []
    for arrival, seconds in zip(arrivals, services, strict=True):
        start = max(float(arrival), heapq.heappop(free))
        heapq.heappush(free, start + float(seconds))
        waits.append(start - float(arrival))
    return statistics.fmean(waits), float(np.quantile(waits, 0.95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", type=float, default=2.0, help="seconds of a device for a study")
    parser.add_argument("--spread", type=float, default=0.5)
    parser.add_argument("--price", type=float, default=3.0, help="of a device's hour, an assumption")
    parser.add_argument("--apart", type=float, nargs="+", default=[600, 60, 10, 5, 3, 1, 0.2])
    parser.add_argument("--studies", type=int, default=100_000, help="simulated in each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(f"{given.service:g} s a study ± {given.spread:.0%}, {given.price:g} a device hour")
    print("| a study every | devices | used | p95 wait, formula | p95, simulated | mean, simulated | price of 1,000 |")
    print("|" + " --- |" * 7)
    rows = []
    for apart in given.apart:
        devices = max(1, math.ceil(given.service / apart / USED))
        used = given.service / apart / devices
        formula = p95_wait(apart, given.service, given.spread, devices)
        mean, p95 = simulated(apart, given.service, given.spread, devices, given.studies, given.seed)
        price = 1000 * apart / 3600 * devices * given.price
        print(f"| {apart:g} s | {devices} | {used:.0%} | {formula:.1f} s | {p95:.1f} s | {mean:.2f} s | {price:,.2f} |")
        rows.append({"apart": apart, "devices": devices, "used": used, "p95": p95, "formula": formula, "price": price})
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
