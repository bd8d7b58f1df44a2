"""Seconds of one explanation at the released widths: LIME and the gradient, of one finding on one series.

    python tests/benchmarks/explanation_speed.py [--tokens N] [--samples N] [--rounds N] [--threads N] [--json FILE]

Weights and patches are random, but the arithmetic is the released model's. Encoding the tokens comes first and is told
apart: several findings share it, and in the node nobody pays for it, as the study was reported just before and its
latents were kept (`dicom_node/latent_cache.py`), which is measured as well. fp32 and bf16 take turns. Exit code 1 when
an explanation as the node makes it, with kept latents, takes longer than the bar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dicom_node.latent_cache import LatentCache
from prima_core.base.device import cpu_capabilities
from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.bundle import build_model, load_bundle
from prima_core.explanation import SAMPLES, Explainer, Question
from prima_core.prima import Prima
from prima_core.random_weights import released, write_random_bundle

MOST_SECONDS = 15.0
Spent = tuple[float, float, float, float]
PARTS = ("encode", "kept", "lime", "gradient")
OTHER_SERIES = 3  # whose embeddings every mask's study has beside the masked one


def study(tokens: int, seed: int) -> PreparedStudy:
    """One series of so many tokens, and some small ones."""
    draw = np.random.default_rng(seed)

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
    parser.add_argument("--json", type=Path, help="write the medians here as well")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.tokens} tokens, {given.samples} samples, {given.threads} threads, {platform.processor() or 'cpu'}")
    with tempfile.TemporaryDirectory() as folder:
        write_random_bundle(Path(folder) / "bundle", released())
        bundle = load_bundle(Path(folder) / "bundle")
        models = {precision: build_model(bundle, "cpu", precision) for precision in ("fp32", "bf16")}
        for precision, model in models.items():
            model.store = LatentCache(Path(folder) / precision, b"", most_bytes=1 << 30, most_seconds=86400.0)
        spent: dict[str, list[Spent]] = {precision: [] for precision in models}
        for number in range(given.rounds):
            for precision, model in models.items():
                spent[precision].append(explain(model, study(given.tokens, number), given.samples))
    document = {
        precision: {
            part: statistics.median(column) for part, column in zip(PARTS, zip(*rounds, strict=True), strict=True)
        }
        for precision, rounds in spent.items()
    }
    slow = False
    for precision, took in document.items():
        as_node = took["kept"] + took["lime"]
        slow |= as_node > MOST_SECONDS
        print(
            f"{precision}: {as_node:.1f} s: kept latents {took['kept']:.2f}, LIME {took['lime']:.1f}; "
            f"without them {took['encode'] + took['lime']:.1f} s: encoding {took['encode']:.1f}; "
            f"gradient {took['gradient']:.2f} s"
        )
    print(f"medians of {given.rounds}; at most {MOST_SECONDS:.0f} s are wanted")
    if given.json:
        machine = {"cpu": cpu_capabilities().get("cpu_name"), "threads": given.threads, "load": os.getloadavg()[0]}
        given.json.write_text(json.dumps({"machine": machine, "seconds": document}, indent=1) + "\n", "utf-8")
    return int(slow)


def explain(model: Prima, prepared: PreparedStudy, samples: int) -> Spent:
    """Seconds for encoding the study, finding what was kept of it, LIME and the gradient."""
    head = model.heads.shapes[0]
    questions = [Question(head.task, head.outputs[0])]
    begin = time.perf_counter()
    Explainer(model, prepared)
    encoded = time.perf_counter()
    explainer = Explainer(model, prepared)
    found = time.perf_counter()
    explainer.lime(0, questions, samples)
    masked = time.perf_counter()
    explainer.gradient(0, questions)
    return encoded - begin, found - encoded, masked - found, time.perf_counter() - masked


if __name__ == "__main__":
    sys.exit(main())
