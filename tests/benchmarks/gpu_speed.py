"""What a study costs on a GPU, where there is one: precisions, batches, and what could make it faster.

    python tests/benchmarks/gpu_speed.py [--tokens N] [--repeats N] [--json FILE]

Random weights of the released widths and random patches, nothing on disk. Every figure is a median of runs behind a
device that was waited for. Printed beside each other:

- the rate of large matrix products and of copies from locked and from ordinary memory: the device's own ceilings;
- a study alone and eight at once in every precision: seconds by stage, the tokenizer's share of the matrix rate, peak
  memory, and how far the study embedding is from fp32 on the CPU;
- the plain program (the library's convolutions in contiguous float32, in its own default of TF32, 8 patches at once);
- the tokenizer in bf16 by chunk size, with cuDNN trying its algorithms out, compiled, as a CUDA graph, and with
  patches copied from ordinary memory;
- the study model compiled.

Prints that there is no GPU where there is none, and ends with 0: nothing was missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_baseline import load_plain
from study_flops import of_study

from prima_core.base.device import Runtime
from prima_core.base.types import PreparedSeries, PreparedStudy, StudyPrediction
from prima_core.bundle import Bundle, build_model, load_bundle
from prima_core.prima import Prima
from prima_core.random_weights import released, write_random_bundle
from prima_core.volume_tokenizer import PatchSet

CHUNKS = (16, 32, 64, 128, 256, 512)
SERIES = 8
TOGETHER = 8
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PLAIN_CHUNK = 8


def study(tokens: int, seed: int = 0) -> PreparedStudy:
    """Series of every thin axis, as long as each other but for one token."""
    draw = np.random.default_rng(seed)

    def series(number: int) -> PreparedSeries:
        axis, count = number % 3, tokens // SERIES + (number < tokens % SERIES)
        ids = np.arange(count)
        return PreparedSeries(
            series_instance_uid=f"1.{seed}.{number}",
            name=f"AX_T{number}",
            patches=draw.random((count, *(4 if a == axis else 32 for a in range(3))), np.float32),
            token_ids=ids,
            coordinates=np.stack(np.unravel_index(ids, (8, 8, 512)), axis=1) * 32,
            thin_axis=axis,
            tokens_total=count,
            sop_instance_uids=(),
        )

    return PreparedStudy(f"1.{seed}", "MR head", tuple(map(series, range(SERIES))))


def say(found: dict[str, Any]) -> None:
    """What is known so far, should the machine be taken away."""
    print(json.dumps(found), file=sys.stderr, flush=True)


def median(function: Callable[[], Any], repeats: int) -> float:
    """Seconds, after two turns that are not counted."""
    seconds = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[2:])


def ceilings(repeats: int) -> dict[str, float]:
    """TFLOP/s of a product of 8192 × 8192 matrices in each type, and GB/s of copies to the device."""
    found = {}
    for name, dtype in DTYPES.items():
        one, other = (torch.randn(8192, 8192, device="cuda").to(dtype) for _ in range(2))
        found[f"{name}, TFLOP/s"] = 2 * 8192**3 / median(lambda a=one, b=other: a @ b, repeats) / 1e12
    rows = torch.empty(64 << 20)
    locked = rows.pin_memory()
    for name, source in (("ordinary", rows), ("locked", locked)):
        found[f"from {name} memory, GB/s"] = rows.nbytes / median(lambda s=source: s.to("cuda"), repeats) / 1e9
    return found


def whole(model: Prima, studies: Sequence[PreparedStudy], repeats: int, flops: float) -> dict[str, float]:
    """Medians of a prediction of all studies, per study. flops: of a study's tokenizer."""
    torch.cuda.reset_peak_memory_stats()
    laps: list[dict[str, float]] = []

    def predict() -> None:
        first = model.predict(studies)[0]
        assert isinstance(first, StudyPrediction)
        laps.append(dict(first.seconds))

    count = len(studies)
    found = {"seconds": median(predict, repeats) / count}
    found |= {stage: statistics.median(lap[stage] for lap in laps[2:]) / count for stage in laps[0]}
    found["tokenizer, TFLOP/s"] = flops / found["tokenize"] / 1e12
    found["peak_bytes"] = float(torch.cuda.max_memory_allocated())
    return found


def distance(model: Prima, of: StudyPrediction, given: PreparedStudy) -> float:
    """1 − cosine similarity of the study embeddings."""
    ours, theirs = model.predict_one(given).study_embedding.astype(np.float64), of.study_embedding.astype(np.float64)
    return float(1 - ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))


@torch.inference_mode()
def plain(bundle: Bundle, given: PreparedStudy, repeats: int) -> float:
    """Seconds of the kept patches alone, of a program that takes what torch gives."""
    model = load_plain(bundle).to("cuda")
    torch.backends.cudnn.allow_tf32 = True

    def encode(series: PreparedSeries) -> None:
        for part in torch.from_numpy(series.patches).split(PLAIN_CHUNK):
            model.tokenizer.encoder(part.to("cuda").repeat_interleave(2, dim=1 + series.thin_axis)[:, None])

    try:
        return median(lambda: [encode(series) for series in given.series], repeats)
    finally:
        torch.backends.cudnn.allow_tf32 = False


class OrdinaryMemory(Runtime):
    """Copies patches as they lie."""

    def take(self, rows: Any) -> torch.Tensor:
        return torch.from_numpy(rows).to(self.device)


@contextmanager
def trying_out() -> Iterator[None]:
    """cuDNN measures its algorithms for every new shape."""
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


def as_graph(model: Prima, chunk: int) -> Callable[[], None]:
    """One full chunk of the encoder, captured; what a replay costs beside a call."""
    doubled = torch.rand(chunk, 1, 8, 32, 32, device="cuda").to(torch.bfloat16, memory_format=torch.channels_last_3d)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model.tokenizer.encoder(doubled)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model.tokenizer.encoder(doubled)
    return graph.replay


@torch.inference_mode()
def variants(bundle: Bundle, given: PreparedStudy, repeats: int) -> dict[str, float]:
    """Seconds of the tokens of one study in bf16, otherwise than the product does it."""
    model = build_model(bundle, "cuda", "bf16")
    sets = [PatchSet(series.patches, series.thin_axis) for series in given.series]
    encode = model.tokenizer.encode
    found = {"as it is": median(lambda: encode(sets), repeats)}
    for chunk in CHUNKS:
        found[f"chunks of {chunk}"] = median(lambda chunk=chunk: encode(sets, tokens_per_chunk=chunk), repeats)
    with trying_out():
        found["cuDNN tries out"] = median(lambda: encode(sets), repeats)
    model.tokenizer._runtime = OrdinaryMemory(model.runtime.device, "bf16")
    found["from ordinary memory"] = median(lambda: encode(sets), repeats)
    model.tokenizer._runtime = model.runtime
    say(found)
    one = torch.rand(64, 4, 32, 32, device="cuda")
    found["64 patches, called"] = median(lambda: model.tokenizer(one, 0), repeats)
    found["64 patches, CUDA graph"] = median(as_graph(model, 64), repeats)
    say(found)
    model.tokenizer.encoder = torch.compile(model.tokenizer.encoder, dynamic=True)  # type: ignore[assignment]
    found["compiled"] = median(lambda: encode(sets), repeats)
    say(found)
    latents = model.latents([given])
    study_model = lambda: model.study_embeddings([given], model.series_embeddings([given], latents))  # noqa: E731
    found["study model"] = median(study_model, repeats)
    model.sequence_vit = torch.compile(model.sequence_vit, dynamic=True)  # type: ignore[assignment]
    found["study model, sequence ViT compiled"] = median(study_model, repeats)
    return found


def measured(tokens: int, repeats: int) -> dict[str, Any]:
    """The whole document."""
    document: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "tokens": tokens}
    studies = [study(tokens, seed) for seed in range(TOGETHER)]
    with tempfile.TemporaryDirectory() as folder:
        bundle = load_bundle(write_random_bundle(Path(folder) / "bundle", released()).directory)
        with torch.device("meta"):
            cost = of_study(Prima(released(), {}), tokens)
        reference = build_model(bundle, "cpu", "fp32").predict_one(studies[0])
        document["ceilings"] = ceilings(repeats)
        say(document)
        document["plain, tokens"] = plain(bundle, studies[0], repeats)
        say(document)
        for precision in DTYPES:
            model = build_model(bundle, "cuda", precision)
            document[precision] = {
                "alone": whole(model, studies[:1], repeats, cost.tokenizer),
                "together": whole(model, studies, repeats, cost.tokenizer),
                "1 - cosine": distance(model, reference, studies[0]),
            }
            say(document)
            del model
            torch.cuda.empty_cache()
        document["variants"] = variants(bundle, studies[0], repeats)
    return document


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=337)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the whole result here as well")
    options = parser.parse_args()
    document: dict[str, Any] = {"gpu": None}
    if torch.cuda.is_available():
        document = measured(options.tokens, options.repeats)
        print(json.dumps(document, indent=1))
    else:
        print("there is no GPU on this machine: nothing was measured")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
