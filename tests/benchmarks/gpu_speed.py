"""Seconds of the tokenizer and of a whole study on a GPU, where there is one: precision, chunk size, compilation.

    python tests/benchmarks/gpu_speed.py [--tokens N] [--repeats N] [--json FILE]

Random weights of the released widths and random patches. Prints that there is no GPU where there is none, and ends
with 0: nothing was missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.bundle import build_model, load_bundle
from prima_core.prima import Prima
from prima_core.random_weights import released, write_random_bundle
from prima_core.volume_tokenizer import PatchSet

CHUNKS = (32, 64, 128, 256, 512)
SERIES = 3


def study(tokens: int) -> PreparedStudy:
    """Three series, of one thin axis each."""
    draw, each = np.random.default_rng(0), tokens // SERIES

    def series(axis: int) -> PreparedSeries:
        patches = draw.random((each, *(4 if a == axis else 32 for a in range(3))), np.float32)
        ids = np.arange(each)
        cells = np.stack(np.unravel_index(ids, (8, 8, 64)), axis=1) * 32
        return PreparedSeries(f"1.{axis}", f"T{axis}", patches, ids, cells, axis, each, ())

    return PreparedStudy("1", "MR head", tuple(series(axis) for axis in range(SERIES)))


def median(model: Prima, function: Callable[[], Any], repeats: int) -> float:
    """Seconds, after two turns that are not counted."""
    seconds = []
    for _ in range(repeats + 2):
        begin = time.perf_counter()
        function()
        model.runtime.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[2:])


@torch.inference_mode()
def measured(model: Prima, tokens: int, repeats: int) -> dict[str, float]:
    """Seconds of a study, of its tokens by chunk size, and of these with a compiled encoder; peak memory in bytes."""
    one = study(tokens)
    sets = [PatchSet(series.patches, series.thin_axis) for series in one.series]
    torch.cuda.reset_peak_memory_stats()
    found = {"study": median(model, lambda: model.predict_one(one), repeats)}
    found["peak_bytes"] = float(torch.cuda.max_memory_allocated())
    for chunk in CHUNKS:
        encode = lambda chunk=chunk: model.tokenizer.encode(sets, tokens_per_chunk=chunk)  # noqa: E731
        found[f"tokens, chunks of {chunk}"] = median(model, encode, repeats)
    model.tokenizer.encoder = torch.compile(model.tokenizer.encoder)  # type: ignore[assignment]
    found["tokens, compiled"] = median(model, lambda: model.tokenizer.encode(sets), repeats)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=337)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the whole result here as well")
    options = parser.parse_args()
    document: dict[str, Any] = {"gpu": None}
    if torch.cuda.is_available():
        document["gpu"] = torch.cuda.get_device_name()
        with tempfile.TemporaryDirectory() as folder:
            bundle = load_bundle(write_random_bundle(Path(folder) / "bundle", released()).directory)
            for precision in ("fp32", "bf16", "fp16"):
                document[precision] = measured(build_model(bundle, "cuda", precision), options.tokens, options.repeats)
        print(json.dumps(document, indent=1))
    else:
        print("there is no GPU on this machine: nothing was measured")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
