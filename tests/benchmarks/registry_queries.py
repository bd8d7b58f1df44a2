"""Milliseconds of everything that the node asks of its registry, with a million studies on record and with few.

    python tests/benchmarks/registry_queries.py [--studies 1000000] [--against 10000] [--rounds 5] [--json FILE]

Both registries are filled by SQL; each action is the node's own code (`tests/support/large_registry.py`), done in turn
on one and on the other, so that a busy machine slows both. Prints medians and their ratio. Exit code 1 when an action
takes more than a tenth of a second in the large registry and more than four times as long as in the small one; what is
done once a start ("metrics, first") is printed and not judged. SQLite needs 2.5 GB and some minutes for a million;
`--url` names an empty PostgreSQL database for the large one, and `--against 0` leaves the small one out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))

from dicom_node.base.events import configure_logging
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from support.large_registry import fill, steady_state

MOST_MS, MOST_RATIO = 100.0, 4.0
ONCE = "metrics, first"

Times = dict[str, list[float]]


def made(folder: Path, url: str | None, count: int) -> Registry:
    """A filled registry."""
    folder.mkdir(parents=True, exist_ok=True)
    address = url or f"sqlite:///{folder / 'registry.sqlite'}"
    migrate(address)
    registry = Registry(address)
    begin = time.perf_counter()
    fill(registry, count)
    print(f"{count} studies filled in {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return registry


def measure(registry: Registry, folder: Path, number: int, times: Times) -> None:
    """One round."""
    for name, act in steady_state(registry, folder, number):
        begin = time.perf_counter()
        act()
        times[name].append(1000 * (time.perf_counter() - begin))


def compared(large: Times, small: Times) -> list[dict[str, Any]]:
    """A line for each action."""
    lines = []
    for name, taken in large.items():
        median = statistics.median(taken)
        before = statistics.median(small[name]) if small.get(name) else None
        ratio = None if not before else median / before
        slow = median > MOST_MS and (ratio is None or ratio > MOST_RATIO) and name != ONCE
        lines.append({"what": name, "ms": median, "small_ms": before, "ratio": ratio, "slow": slow})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument("--against", type=int, default=10_000, help="studies of the small registry; 0: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--url", help="an empty PostgreSQL database for the large registry")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    configure_logging("error")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    large, small = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    with tempfile.TemporaryDirectory(prefix="prima-registry-") as name:
        folder = Path(name)
        little = made(folder / "small", None, options.against) if options.against else None
        great = made(folder / "large", options.url, options.studies)
        for number in range(1, options.rounds + 1):
            if little is not None:
                measure(little, folder / "small", number, small)
            measure(great, folder / "large", number, large)
    lines = compared(large, small)
    print(f"{'':<52}{options.against:>12}{options.studies:>12}{'ratio':>8}")
    for line in lines:
        before = "" if line["small_ms"] is None else f"{line['small_ms']:.1f} ms"
        ratio = "" if line["ratio"] is None else f"{line['ratio']:.1f}"
        print(f"{line['what']:<52}{before:>12}{line['ms']:>9.1f} ms{ratio:>8}{'  SLOW' if line['slow'] else ''}")
    if options.json is not None:
        options.json.write_text(json.dumps({"studies": options.studies, "lines": lines}, indent=2))
    sys.exit(1 if any(line["slow"] for line in lines) else 0)


if __name__ == "__main__":
    main()
