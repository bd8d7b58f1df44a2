"""How near the tokenizer comes to the processor's best, and where the rest of its time goes: a table.

    python tests/benchmarks/tokenizer_share.py [--tokens N] [--repeats N] [--json FILE]

On one core, at the released widths, in processor seconds, so that a busy machine disturbs less. For each precision:
milliseconds a token; the rate of the best matrix product in the same type, in the convolutions' own shapes (rows: the
voxels of a chunk; inner: 27 taps × 256 channels; columns: 256); which share of it the tokenizer reaches, counted as
direct convolution, which is above 1 where Winograd's algorithm leaves multiplications out, and counted by what its
products really multiply; and the profiler's operators by their own time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from prima_core.base.device import cpu_capabilities, has_int8
from prima_core.base.winograd import TILE_BY_DTYPE
from prima_core.bundle import build_model, load_bundle
from prima_core.prima import Prima
from prima_core.random_weights import released, write_random_bundle
from prima_core.volume_tokenizer import TOKENS_PER_CHUNK

CHANNELS, TAPS = 256, 27
LEVELS = {(4, 16, 16): 4, (2, 8, 8): 4}  # grid of a token, convolutions on it
DIRECT = sum(2 * count * int(np.prod(grid)) * TAPS * CHANNELS**2 for grid, count in LEVELS.items())
SHOWN = 10
MOST_FREQUENCIES = 36  # of a tile: a matrix product of so few rows is a transform


def least(function: Callable[[], Any], repeats: int) -> float:
    """Processor seconds of this thread, the least of the repeats."""
    function()
    seconds = []
    for _ in range(repeats):
        begin = time.thread_time()
        function()
        seconds.append(time.thread_time() - begin)
    return min(seconds)


def winograd(dtype: torch.dtype) -> float:
    """Operations a token that are left of the residual convolutions, taps outside the volume not counted."""
    height, width = TILE_BY_DTYPE[dtype]
    found = 0.0
    for (planes, rows, columns), count in LEVELS.items():
        tiles = rows * columns / (height * width)
        found += 2 * count * tiles * (height + 2) * (width + 2) * (3 * planes - 2) * CHANNELS**2
    return found


def best_product(dtype: torch.dtype, tokens: int, repeats: int) -> float:
    """Operations a second of one matrix product, the best of the convolutions' shapes."""
    rates = []
    for grid in LEVELS:
        rows = tokens * int(np.prod(grid))
        x, y = torch.rand(rows, TAPS * CHANNELS), torch.rand(TAPS * CHANNELS, CHANNELS)
        if dtype == torch.int8:
            a, b = ((100 * one).to(dtype) for one in (x, y))
            seconds = least(lambda a=a, b=b: torch._int_mm(a, b), repeats)  # type: ignore[misc]
        else:
            a, b = x.to(dtype), y.to(dtype)
            seconds = least(lambda a=a, b=b: a @ b, repeats)  # type: ignore[misc]
        rates.append(2 * rows * TAPS * CHANNELS**2 / seconds)
    return max(rates)


def operators(model: Prima, patches: torch.Tensor) -> list[tuple[str, float, int]]:
    """Name, share of the time and calls of the operators that take most."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        model.tokenizer(patches, 0)
    spent: dict[str, list[float]] = {}
    for row in profiled.key_averages(group_by_input_shape=True):
        rows = row.input_shapes[0][0] if row.key == "aten::mm" else 0
        name = f"{row.key} (to and from frequencies)" if 0 < rows <= MOST_FREQUENCIES else row.key
        total = spent.setdefault(name, [0.0, 0])
        total[0] += row.self_cpu_time_total
        total[1] += row.count
    whole = sum(seconds for seconds, _ in spent.values())
    most = sorted(spent.items(), key=lambda one: -one[1][0])[:SHOWN]
    return [(name, seconds / whole, int(calls)) for name, (seconds, calls) in most]


def measured(model: Prima, precision: str, tokens: int, repeats: int) -> dict[str, Any]:
    """All figures of one precision."""
    patches = torch.rand(tokens, 4, 32, 32)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[precision]
    seconds = least(lambda: model.tokenizer(patches, 0), repeats) / tokens
    best = best_product(dtype, tokens, repeats)
    multiplied = DIRECT if precision == "int8" else winograd(dtype)
    return {
        "ms_a_token": 1e3 * seconds,
        "best_product_gflops": best / 1e9,
        "share_as_direct_convolution": DIRECT / seconds / best,
        "share_by_what_is_multiplied": multiplied / seconds / best,
        "operators": operators(model, patches),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=TOKENS_PER_CHUNK["cpu"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the whole result here as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": {"cpu": cpu_capabilities().get("cpu_name"), "torch": torch.__version__}}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        bundle = load_bundle(write_random_bundle(Path(folder) / "bundle", released()).directory)
        for precision in ("fp32", "bf16", *(["int8"] if has_int8() else [])):
            model = build_model(bundle, "cpu", precision)
            found[precision] = one = measured(model, precision, options.tokens, options.repeats)
            print(
                f"{precision}: {one['ms_a_token']:.1f} ms a token; "
                f"best product {one['best_product_gflops']:.0f} GFLOP/s; "
                f"as direct convolution {one['share_as_direct_convolution']:.2f} of it, "
                f"by what is multiplied {one['share_by_what_is_multiplied']:.2f}"
            )
            for name, share, calls in one["operators"]:
                print(f"    {share:6.1%}  {calls:5d} ×  {name}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
