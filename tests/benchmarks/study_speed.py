"""Seconds from DICOM files to logits: the plain baseline beside the product in fp32 and bf16, at the released widths.

    python tests/benchmarks/study_speed.py [--rounds N] [--study DIR] [--threads N] [--chunk N] [--json FILE]

Weights are random, so findings mean nothing, but the arithmetic is the released model's. The three variants take turns
in one process, so that a busy machine slows all of them. Besides medians it prints what the shortcuts cost in accuracy:
fp32 against the baseline, bf16 against fp32 (cosine of the study embeddings, the largest change of a logit, and the
largest distance from its threshold of any finding that flips). Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_baseline import load_plain, plain_predict

from prima_core.base.device import cpu_capabilities, resolve
from prima_core.bundle import Bundle, build_model, load_bundle
from prima_core.prepare import prepare_study
from prima_core.prima import Prima
from prima_core.random_weights import released, write_random_bundle

LEAST_RATIO = {"fp32": 4.0, "bf16": 8.0}
LEAST_COSINE = 0.999
PRODUCT_RUNS = 3  # of each precision for one run of the baseline
FLIP_MARGIN = 0.05  # no finding farther from its threshold may change sides between fp32 and bf16

Answer = tuple[np.ndarray, dict[str, float]]


@dataclass
class Variant:
    """One way to compute a study: its seconds, and its last answer."""

    run: Callable[[], Answer]
    seconds: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    answer: Answer = (np.empty(0, np.float32), {})


def product(model: Prima, files: Sequence[Path], stages: list[dict[str, float]]) -> Answer:
    """The product's way, with the seconds of its stages."""
    begin = time.perf_counter()
    study = prepare_study(files)
    prepared = time.perf_counter() - begin
    prediction = model.predict_one(study)
    stages.append({"prepare": prepared, **prediction.seconds})
    tasks = {"diagnosis": prediction.diagnosis, "referral": prediction.referral, "priority": prediction.priority}
    logits = {f"{task}.{name}": value for task, outputs in tasks.items() for name, value in outputs.items()}
    return prediction.study_embedding, logits


def variants(bundle: Bundle, files: Sequence[Path], chunk: int) -> dict[str, Variant]:
    """Baseline, fp32 and bf16, each with its own copy of the weights."""
    plain = load_plain(bundle)
    found = {"plain": Variant(lambda: plain_predict(plain, files, chunk))}
    for precision in ("fp32", "bf16"):
        model, stages = build_model(bundle, "cpu", precision), []
        run = lambda model=model, stages=stages: product(model, files, stages)  # noqa: E731
        found[precision] = Variant(run, stages=stages)
    return found


def measure(found: dict[str, Variant], rounds: int) -> None:
    """In turn; the product's variants, being short, more often in a round, so that they see the same weather."""
    for number in range(1, rounds + 1):
        for name in ("plain", *PRODUCT_RUNS * ("fp32", "bf16")):
            variant = found[name]
            begin = time.perf_counter()
            variant.answer = variant.run()
            variant.seconds.append(time.perf_counter() - begin)
            print(
                f"round {number}: {name} {variant.seconds[-1]:.2f} s (load {os.getloadavg()[0]:.1f})",
                file=sys.stderr,
                flush=True,
            )


def cosine(left: Answer, right: Answer) -> float:
    """Cosine of two study embeddings."""
    a, b = left[0].astype(np.float64), right[0].astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def largest_change(left: Answer, right: Answer) -> float:
    """Largest difference of a logit."""
    return max(abs(left[1][name] - right[1][name]) for name in left[1])


def flips(exact: Answer, rounded: Answer) -> dict[str, float]:
    """Findings with a threshold on whose two sides the answers lie, with the exact answer's distance from it."""
    names = [name for name in exact[1] if not name.startswith("priority.")]
    return {name: abs(exact[1][name]) for name in names if (exact[1][name] > 0) != (rounded[1][name] > 0)}


def report(found: dict[str, Variant], rounds: int, tokens: dict[str, int]) -> dict[str, Any]:
    """All results as one document."""
    plain, fp32, bf16 = (found[name].answer for name in ("plain", "fp32", "bf16"))
    median = {name: statistics.median(variant.seconds) for name, variant in found.items()}
    flipped = flips(fp32, bf16)
    return {
        "machine": {
            "cpu": cpu_capabilities().get("cpu_name"),
            "threads": torch.get_num_threads(),
            "load_1min": os.getloadavg()[0],
            "auto_precision": resolve("cpu", "auto").precision,
            "torch": torch.__version__,
        },
        "rounds": rounds,
        "tokens": tokens,
        "median_seconds": median,
        "all_seconds": {name: variant.seconds for name, variant in found.items()},
        "ratio": {name: median["plain"] / median[name] for name in LEAST_RATIO},
        "median_stages": {
            name: {
                stage: statistics.median(one[stage] for one in found[name].stages) for stage in found[name].stages[0]
            }
            for name in LEAST_RATIO
        },
        "fp32_against_plain": {"cosine": cosine(plain, fp32), "largest_logit_change": largest_change(plain, fp32)},
        "bf16_against_fp32": {
            "cosine": cosine(fp32, bf16),
            "largest_logit_change": largest_change(fp32, bf16),
            "findings": len(fp32[1]),
            "flips": flipped,
            "largest_margin_of_a_flip": max(flipped.values(), default=0.0),
        },
    }


def missed(document: dict[str, Any]) -> list[str]:
    """The bars that were not reached."""
    quality = document["bf16_against_fp32"]
    found = [
        f"{name}: {document['ratio'][name]:.2f} times the baseline, wanted {bar}"
        for name, bar in LEAST_RATIO.items()
        if document["ratio"][name] < bar
    ]
    if quality["cosine"] < LEAST_COSINE:
        found.append(f"bf16: cosine {quality['cosine']:.6f}, wanted {LEAST_COSINE}")
    if quality["largest_margin_of_a_flip"] > FLIP_MARGIN:
        found.append(f"bf16: a finding {quality['largest_margin_of_a_flip']:.3f} from its threshold flipped")
    return found


def main() -> int:
    """Run, print, judge."""
    shared = Path(os.environ.get("PRIMA_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--study", type=Path, default=shared / "data" / "prima_golden" / "GOLD0001.study")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--chunk",
        type=int,
        default=sys.maxsize,
        help="tokens a call of the baseline's encoder takes; default: a series",
    )
    parser.add_argument("--json", type=Path, help="write the whole result here as well")
    options = parser.parse_args()
    files = sorted(path for path in options.study.rglob("*") if path.is_file())
    if not files:
        parser.error(f"no files under {options.study}")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        bundle = load_bundle(write_random_bundle(Path(folder) / "bundle", released()).directory)
        found = variants(bundle, files, options.chunk)
    study = prepare_study(files)
    tokens = {
        "total": sum(series.tokens_total for series in study.series),
        "kept": study.tokens_kept,
        "encoded": sum(len(series.patches) for series in study.series),
    }
    measure(found, options.rounds)
    document = report(found, options.rounds, tokens)
    text = json.dumps(document, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")
    for line in (bars := missed(document)):
        print(f"missed: {line}", file=sys.stderr)
    return 1 if bars else 0


if __name__ == "__main__":
    sys.exit(main())
