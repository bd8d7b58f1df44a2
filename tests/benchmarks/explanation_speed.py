"""Seconds of one explanation at the released widths: LIME and the gradient, of one finding on one series.

    python tests/benchmarks/explanation_speed.py [--tokens N] [--samples N] [--rounds N] [--threads N]

Weights and patches are random, but the arithmetic is the released model's. Encoding the tokens comes first and is told
apart: several findings share it. fp32 and bf16 take turns. Exit code 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.bundle import build_model, load_bundle
from prima_core.explanation import SAMPLES, Explainer, Question
from prima_core.prima import Prima
from prima_core.random_weights import released, write_random_bundle

MOST_SECONDS = 15.0
OTHER_SERIES = 3  # whose embeddings every mask's study has beside the masked one


def study(tokens: int) -> PreparedStudy:
    """One series of so many tokens, and some small ones."""
    draw = np.random.default_rng(0)

    def series(number: int, count: int) -> PreparedSeries:
        ids = np.arange(count)
        cells = np.stack(np.unravel_index(ids, (8, 8, 64)), axis=1) * np.array([4, 32, 32])
        patches = draw.random((count, 4, 32, 32), np.float32)
        return PreparedSeries(f"1.{number}", f"T{number}", patches, ids, cells, 0, count, ())

    return PreparedStudy("1", "MR head", (series(1, tokens), *(series(2 + n, 8) for n in range(OTHER_SERIES))))


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.tokens} tokens, {given.samples} samples, {given.threads} threads, {platform.processor() or 'cpu'}")
    with tempfile.TemporaryDirectory() as folder:
        write_random_bundle(Path(folder) / "bundle", released())
        bundle = load_bundle(Path(folder) / "bundle")
        models = {precision: build_model(bundle, "cpu", precision) for precision in ("fp32", "bf16")}
        spent: dict[str, list[tuple[float, float, float]]] = {precision: [] for precision in models}
        for _ in range(given.rounds):
            for precision, model in models.items():
                spent[precision].append(explain(model, study(given.tokens), given.samples))
    slow = False
    for precision, rounds in spent.items():
        encode, lime, gradient = (statistics.median(column) for column in zip(*rounds, strict=True))
        slow |= encode + lime > MOST_SECONDS
        print(f"{precision}: {encode + lime:.1f} s: encoding {encode:.1f}, LIME {lime:.1f}; gradient {gradient:.2f} s")
    print(f"medians of {given.rounds}; at most {MOST_SECONDS:.0f} s are wanted")
    return int(slow)


def explain(model: Prima, prepared: PreparedStudy, samples: int) -> tuple[float, float, float]:
    """Seconds for encoding the study, LIME and the gradient."""
    head = model.heads.shapes[0]
    questions = [Question(head.task, head.outputs[0])]
    begin = time.perf_counter()
    explainer = Explainer(model, prepared)
    encoded = time.perf_counter()
    explainer.lime(0, questions, samples)
    masked = time.perf_counter()
    explainer.gradient(0, questions)
    return encoded - begin, masked - encoded, time.perf_counter() - masked


if __name__ == "__main__":
    sys.exit(main())
