"""Seconds from DICOM files to logits: the plain baseline beside the product in fp32 and bf16, at the released widths.

    python tests/benchmarks/study_speed.py [--rounds N] [--study DIR] [--threads N] [--chunk N] [--json FILE]

Weights are random, so findings mean nothing, but the arithmetic is the released model's. Each variant is a process of
its own, for the sake of its peak memory, and they take turns, so that a busy machine slows all of them. Besides medians
it prints what the shortcuts cost in accuracy: fp32 against the baseline, bf16 against fp32 (cosine of the study
embeddings, the largest change of a logit, and the largest distance from its threshold of any finding that flips), and
int8 too where the CPU computes it, for which no ratio is asked. Processor seconds are told beside those of the clock.
`tokenizer_share.py` says where the tokenizer's time goes. Exit code 1 when a bar is missed.
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
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import Memory
from plain_baseline import load_plain, plain_predict

from prima_core.base.device import cpu_capabilities, has_int8, resolve
from prima_core.bundle import build_model, load_bundle
from prima_core.prepare import prepare_study
from prima_core.prima import Prima
from prima_core.random_weights import released, write_random_bundle

LEAST_RATIO = {"fp32": 5.0, "bf16": 10.0}
MOST_MEMORY = 0.5  # of the baseline's peak of anonymous memory
MEMORY = ("resident", "anonymous")
LEAST_COSINE = 0.999
PRODUCT_RUNS = 3  # of each precision for one run of the baseline
FLIP_MARGIN = 0.05  # no finding farther from its threshold may change sides between fp32 and bf16

Answer = tuple[np.ndarray, dict[str, float]]


@dataclass(frozen=True)
class Turn:
    """One study by one variant. stages: seconds, of the product's.

    resident, anonymous: peaks of the process's memory meanwhile, bytes. Weights that are mapped from their files are
    resident and not anonymous: the system may drop them and read them again.
    """

    seconds: float
    processor: float
    resident: int
    anonymous: int
    answer: Answer
    stages: dict[str, float]


@dataclass
class Variant:
    """A process that computes the study whenever it is asked to, and its turns."""

    process: multiprocessing.process.BaseProcess
    asked: Connection
    turns: list[Turn] = field(default_factory=list)

    def run(self) -> Turn:
        """Have it compute the study once."""
        self.asked.send(True)
        turn: Turn = self.asked.recv()
        self.turns.append(turn)
        return turn

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(turn.seconds for turn in self.turns)

    def peak(self, memory: str) -> int:
        """Of all turns, bytes. memory: resident or anonymous."""
        return max(getattr(turn, memory) for turn in self.turns)


def product(model: Prima, files: Sequence[Path], stages: dict[str, float]) -> Answer:
    """The product's way, with the seconds of its stages."""
    begin = time.perf_counter()
    study = prepare_study(files)
    prepared = time.perf_counter() - begin
    prediction = model.predict_one(study)
    stages.update({"prepare": prepared, **prediction.seconds})
    tasks = {"diagnosis": prediction.diagnosis, "referral": prediction.referral, "priority": prediction.priority}
    logits = {f"{task}.{name}": value for task, outputs in tasks.items() for name, value in outputs.items()}
    return prediction.study_embedding, logits


def serve(name: str, folder: Path, files: Sequence[Path], chunk: int, threads: int, asked: Connection) -> None:
    """A variant's process: load the model, then a turn whenever asked."""
    torch.set_num_threads(threads)
    stages: dict[str, float] = {}
    bundle = load_bundle(folder)
    if name == "plain":
        plain = load_plain(bundle)
        compute: Callable[[], Answer] = lambda: plain_predict(plain, files, chunk)  # noqa: E731
    else:
        model = build_model(bundle, "cpu", name)
        compute = lambda: product(model, files, stages)  # noqa: E731
    asked.send(True)
    while asked.recv():
        with Memory() as memory:
            begin, spent = time.perf_counter(), time.process_time()
            answer = compute()
            seconds, spent = time.perf_counter() - begin, time.process_time() - spent
        asked.send(Turn(seconds, spent, memory.resident, memory.anonymous, answer, dict(stages)))


def start(name: str, folder: Path, files: Sequence[Path], chunk: int, threads: int) -> Variant:
    """Returns once the variant is ready."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(name, folder, files, chunk, threads, there), daemon=True)
    process.start()
    here.recv()
    return Variant(process, here)


def measure(found: dict[str, Variant], rounds: int) -> None:
    """In turn; the product's variants, being short, more often in a round, so that they see the same weather."""
    for number in range(1, rounds + 1):
        for name in ("plain", *PRODUCT_RUNS * [name for name in found if name != "plain"]):
            turn = found[name].run()
            load = os.getloadavg()[0]
            memory = f"{turn.anonymous / 1e9:.2f} GB"
            print(
                f"round {number}: {name} {turn.seconds:.2f} s, {memory} (load {load:.1f})", file=sys.stderr, flush=True
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


def report(found: dict[str, Variant], rounds: int, tokens: dict[str, int], threads: int) -> dict[str, Any]:
    """All results as one document."""
    plain, fp32 = (found[name].turns[-1].answer for name in ("plain", "fp32"))
    median = {name: variant.median for name, variant in found.items()}
    processor = {name: statistics.median(turn.processor for turn in variant.turns) for name, variant in found.items()}
    product = [name for name in found if name != "plain"]
    return {
        "machine": {
            "cpu": cpu_capabilities().get("cpu_name"),
            "threads": threads,
            "load_1min": os.getloadavg()[0],
            "auto_precision": resolve("cpu", "auto").precision,
            "torch": torch.__version__,
        },
        "rounds": rounds,
        "tokens": tokens,
        "median_seconds": median,
        "median_processor_seconds": processor,
        "all_seconds": {name: [turn.seconds for turn in variant.turns] for name, variant in found.items()},
        "ratio": {name: median["plain"] / median[name] for name in product},
        "ratio_of_processor_seconds": {name: processor["plain"] / processor[name] for name in product},
        "peak_bytes": {name: {kind: variant.peak(kind) for kind in MEMORY} for name, variant in found.items()},
        "memory_of_baseline": {
            name: {kind: found[name].peak(kind) / found["plain"].peak(kind) for kind in MEMORY} for name in product
        },
        "median_stages": {
            name: {
                stage: statistics.median(turn.stages[stage] for turn in found[name].turns)
                for stage in found[name].turns[0].stages
            }
            for name in product
        },
        "fp32_against_plain": {"cosine": cosine(plain, fp32), "largest_logit_change": largest_change(plain, fp32)},
        "against_fp32": {name: quality(fp32, found[name].turns[-1].answer) for name in product if name != "fp32"},
    }


def quality(exact: Answer, rounded: Answer) -> dict[str, Any]:
    """What a short precision costs."""
    flipped = flips(exact, rounded)
    return {
        "cosine": cosine(exact, rounded),
        "largest_logit_change": largest_change(exact, rounded),
        "findings": len(exact[1]),
        "flips": flipped,
        "largest_margin_of_a_flip": max(flipped.values(), default=0.0),
    }


def missed(document: dict[str, Any]) -> list[str]:
    """The bars that were not reached."""
    found = [
        f"{name}: {document['ratio'][name]:.2f} times the baseline, wanted {bar}"
        for name, bar in LEAST_RATIO.items()
        if document["ratio"][name] < bar
    ]
    found += [
        f"{name}: {share['anonymous']:.2f} of the baseline's peak memory, wanted less than {MOST_MEMORY}"
        for name, share in document["memory_of_baseline"].items()
        if share["anonymous"] >= MOST_MEMORY
    ]
    for name, short in document["against_fp32"].items():
        if short["cosine"] < LEAST_COSINE:
            found.append(f"{name}: cosine {short['cosine']:.6f}, wanted {LEAST_COSINE}")
        if short["largest_margin_of_a_flip"] > FLIP_MARGIN:
            found.append(f"{name}: a finding {short['largest_margin_of_a_flip']:.3f} from its threshold flipped")
    return found


def main() -> int:
    """Run, print, judge."""
    shared = Path(os.environ.get("PRIMA_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=1)
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
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_random_bundle(Path(folder) / "bundle", released()).directory
        names = ["plain", "fp32", "bf16", *(["int8"] if has_int8() else [])]
        found = {name: start(name, bundle, files, options.chunk, options.threads) for name in names}
    study = prepare_study(files)
    tokens = {
        "total": sum(series.tokens_total for series in study.series),
        "kept": study.tokens_kept,
        "encoded": sum(len(series.patches) for series in study.series),
    }
    measure(found, options.rounds)
    document = report(found, options.rounds, tokens, options.threads)
    text = json.dumps(document, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")
    for line in (bars := missed(document)):
        print(f"missed: {line}", file=sys.stderr)
    return 1 if bars else 0


if __name__ == "__main__":
    sys.exit(main())
