"""Seconds and memory from DICOM files to tokens: the plain baseline beside the product, in turn.

    python tests/benchmarks/preparation_speed.py [--rounds N] [--study DIR] [--no-large] [--json FILE]

Both read, decode and resample by the same code; the baseline then cuts all patches and fills holes on voxels. The
tokens must be the same to the last bit. The product's stages are told apart. Processor seconds are told beside those of
the clock: on a busy machine their ratio says more. Then two large studies, made for it, are prepared, each in a process
of its own, whose peak memory is the figure: 2,000 slices in ten series, and an enhanced multi-frame object of 210 MB
beside a small series. Series are prepared one after the other, so at most two copies of the largest decoded volume are
held (SimpleITK's and the array it is made from) beside what is kept of the others. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from memory import Memory
from plain_baseline import plain_prepare

from prima_core.base.device import cpu_capabilities
from prima_core.prepare import prepare_study
from prima_core.scope import select_series
from prima_core.volume.geometry import read_volume
from prima_core.volume.headers import read_headers
from prima_core.volume.patches import patch_grid
from prima_core.volume.selection import kept_patches
from prima_core.volume.series import choose_volume

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, write_enhanced, write_series

LEAST_RATIO = 20.0
SPARE_BYTES = 150 << 20  # beside the volumes and what is kept: headers, the libraries' own buffers
PRODUCT_RUNS = 5  # for one run of the baseline


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a function returns, and its seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - clock, time.process_time() - processor


def compare(files: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Medians of both ways in turn, and whether their tokens are the same."""
    seconds: dict[str, list[tuple[float, float]]] = {"plain": [], "product": []}
    prepare_study(files)  # what is loaded and looked up once
    for _ in range(rounds):
        plain, *spent = timed(lambda: plain_prepare(files))
        seconds["plain"].append((spent[0], spent[1]))
        for _ in range(PRODUCT_RUNS):
            study, *spent = timed(lambda: prepare_study(files))
            seconds["product"].append((spent[0], spent[1]))
    same = all(
        np.array_equal(one.patches, other.patches) and np.array_equal(one.token_ids, other.token_ids)
        for one, (other, _) in zip(study.series, plain, strict=True)
    )
    median = {
        name: {"clock": statistics.median(clock), "processor": statistics.median(processor)}
        for name, rows in seconds.items()
        for clock, processor in [tuple(zip(*rows, strict=True))]
    }
    return {
        "files": len(files),
        "median_seconds": median,
        "ratio": {kind: median["plain"][kind] / median["product"][kind] for kind in ("clock", "processor")},
        "same_tokens": same,
        "stages": stages(files),
    }


def stages(files: Sequence[Path]) -> dict[str, float]:
    """Processor seconds of the product's stages."""
    spent: dict[str, float] = {}
    headers, _, spent["headers"] = timed(lambda: read_headers(files))
    stacks, _, spent["select"] = timed(lambda: [choose_volume(s.images) for s in select_series(headers).series])
    volumes, _, spent["decode, resample, reorient"] = timed(lambda: [read_volume(stack) for stack in stacks])
    grids, _, spent["patches"] = timed(lambda: [patch_grid(one.voxels, one.thin_axis) for one in volumes])
    kept, _, spent["selection"] = timed(lambda: [kept_patches(one.fill, one.grid) for one in grids])
    _, _, spent["gather"] = timed(lambda: [g.gather(np.unique(ids)) for g, ids in zip(grids, kept, strict=True)])
    return spent


def many_slices(folder: Path) -> int:
    """Ten series of 200 slices of 256 × 256. Returns the bytes of the largest decoded volume."""
    study, voxels = StudyFacts(), head_phantom(200, 256, 256)
    for number in range(1, 11):
        facts = SeriesFacts(number=number, description=f"AX T{number}", gap=1.0, origin=(-128.0, -128.0, -100.0))
        write_series(folder / str(number), voxels, study, facts)
    return voxels.nbytes


def large_object(folder: Path) -> int:
    """400 frames of 512 × 512 in one object, and a small series. Returns the bytes of the largest decoded volume."""
    study, voxels = StudyFacts(), head_phantom(400, 512, 512)
    facts = SeriesFacts(number=1, description="AX T1", spacing=(0.5, 0.5), gap=0.5, origin=(-128.0, -128.0, -100.0))
    write_enhanced(folder / "1", voxels, study, facts)
    small = SeriesFacts(number=2, description="AX T2", spacing=(2.0, 2.0), origin=(-128.0, -128.0, -32.0))
    write_series(folder / "2", head_phantom(16), study, small)
    return voxels.nbytes


def prepared_apart(folder: Path, answer: Connection) -> None:
    """Prepare a study in this process alone, and say what it took."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with Memory() as before:
        pass
    with Memory() as memory:
        study, clock, processor = timed(lambda: prepare_study(files))
    answer.send(
        {
            "files": len(files),
            "clock": clock,
            "processor": processor,
            "series": len(study.series),
            "tokens_kept": study.tokens_kept,
            "kept_bytes": sum(series.patches.nbytes for series in study.series),
            "peak_bytes": memory.resident - before.resident,
        }
    )


def large(make: Callable[[Path], int]) -> dict[str, Any]:
    """A large study's figures. bound_bytes: what its peak may be."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        decoded = make(Path(folder))
        process = context.Process(target=prepared_apart, args=(Path(folder), there))
        process.start()
        found: dict[str, Any] = here.recv()
        process.join()
    return found | {"bound_bytes": 2 * decoded + found["kept_bytes"] + SPARE_BYTES}


def main() -> int:
    """Run, print, judge."""
    shared = Path(os.environ.get("PRIMA_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--study", type=Path, default=shared / "data" / "prima_golden" / "GOLD0001.study")
    parser.add_argument("--no-large", action="store_true", help="leave the large studies out")
    parser.add_argument("--json", type=Path, help="write the whole result here as well")
    options = parser.parse_args()
    files = sorted(path for path in options.study.rglob("*") if path.is_file())
    document: dict[str, Any] = {
        "machine": {"cpu": cpu_capabilities().get("cpu_name"), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "study": compare(files, options.rounds),
    }
    if not options.no_large:
        document["large"] = {make.__name__: large(make) for make in (many_slices, large_object)}
    text = json.dumps(document, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")
    found = document["study"]
    bars = [] if found["ratio"]["clock"] >= LEAST_RATIO else [f"{found['ratio']['clock']:.1f} times, not {LEAST_RATIO}"]
    bars += [] if found["same_tokens"] else ["the tokens are not those of the baseline"]
    bars += [
        f"{name}: peak of {one['peak_bytes'] >> 20} MB, not {one['bound_bytes'] >> 20}"
        for name, one in document.get("large", {}).items()
        if one["peak_bytes"] > one["bound_bytes"]
    ]
    for line in bars:
        print(f"missed: {line}", file=sys.stderr)
    return int(bool(bars))


if __name__ == "__main__":
    sys.exit(main())
