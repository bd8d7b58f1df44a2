"""All benchmarks one after the other, and one table of which met their bars.

    python tests/benchmarks/every.py [--write FILE] [--only NAME …]

--write: put what they printed, with machine and date, between the markers of a Markdown file. Exit code 1 when a bar
was missed. A busy machine spoils them: run it alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BENCHMARKS = {
    "ingest": ["ingest_speed.py"],
    "latency": ["store_latency.py"],
    "inference": ["study_speed.py"],
    "preparation": ["preparation_speed.py"],
    "explanation": ["explanation_speed.py"],
}
KEPT = ("median", "ratio", "peak", "seconds", "processor", "study", "many_slices", "large")
BEGIN, END = "<!-- make bench -->", "<!-- end of make bench -->"


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    given = parser.parse_args()
    printed, ends = [], {}
    for name in given.only:
        command = [sys.executable, str(HERE / BENCHMARKS[name][0]), *BENCHMARKS[name][1:]]
        begin = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        ends[name] = (done.returncode, time.perf_counter() - begin)
        printed.append(f"$ python tests/benchmarks/{' '.join(BENCHMARKS[name])}\n{shortened(done.stdout).rstrip()}")
        print(printed[-1], "\n", flush=True)
    words = {0: "met", 1: "MISSED"}
    rows = [f"{name:<14}{words.get(code, 'FAILED'):<10}{seconds:6.0f} s" for name, (code, seconds) in ends.items()]
    summary = "\n".join([f"{'benchmark':<14}{'bars':<10}{'took':>8}", *rows])
    print(summary)
    if given.write:
        write(given.write, "\n\n".join([*printed, summary]))
    return int(any(code for code, _ in ends.values()))


def shortened(text: str) -> str:
    """The output, of a JSON object in it the medians, ratios and peaks alone."""

    def lines(found: re.Match[str]) -> str:
        kept = {key: value for key, value in json.loads(found[0]).items() if key.startswith(KEPT)}
        return "\n".join(f"{key}: {json.dumps(_rounded(value))}" for key, value in kept.items()) + "\n"

    return re.sub(r"^\{\n.*?^\}$", lines, text, flags=re.DOTALL | re.MULTILINE)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


def write(file: Path, results: str) -> None:
    """Put the results between the file's markers."""
    machine = f"{os.cpu_count()} cores of {_processor()}, {platform.platform()}, {datetime.date.today()}"
    block = f"{BEGIN}\n`make bench` on {machine}:\n\n```\n{results}\n```\n{END}"
    text = file.read_text(encoding="utf-8")
    if BEGIN not in text:
        raise SystemExit(f"{file} has no line {BEGIN}")
    file.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: block, text, flags=re.DOTALL), encoding="utf-8")


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
