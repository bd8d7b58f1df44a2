"""Milliseconds from the first byte of a C-STORE to its answer, with the machine idle and beside running inference.

    python tests/benchmarks/store_latency.py [--images N] [--per-second N] [--only NAME …] [--json FILE]

One association sends MR images of 150 KB at a steady pace. Inference: a process of its own, at a worker's priority,
encodes patches with the tokenizer at its released widths on all cores without a pause. Exit code 1 when the node's 99th
percentile beside inference is above the bar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid
from pynetdicom.dsutils import encode

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from ingest_speed import COLUMNS, PEERS, ROWS

from support.dicom_factory import StudyFacts, mr_slices
from support.peers import data_pdu
from support.raw_sender import RawSender, store_request

MOST_MILLISECONDS = 50.0
FRAGMENT = 16_000  # within the PDU that every peer takes
BATCH = 64


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--per-second", type=float, default=30.0)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=["node", "storescp", "orthanc"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--infer", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.infer:
        infer()
    print(f"{given.images} images at {given.per_second:.0f}/s; {os.cpu_count()} cores, {platform.platform()}")
    os.environ["TCP_NODELAY"] = "1"  # DCMTK, in all peers
    found: dict[str, list[float]] = {}
    for beside, busy in (("idle", nullcontext), ("beside inference", inference)):
        with busy():
            for name in given.only:
                with tempfile.TemporaryDirectory(dir=Path.home()) as made, PEERS[name](Path(made) / "peer") as peer:
                    found[f"{name}, {beside}"] = latencies(peer.port, peer.ae_title, given.images, given.per_second)
    for name, times in found.items():
        p50, p99 = percentile(times, 50), percentile(times, 99)
        print(f"{name:<28} median {p50:6.1f} ms, p99 {p99:6.1f} ms, longest {max(times):6.1f} ms")
    if given.json:
        given.json.write_text(json.dumps({"machine": platform.platform(), "milliseconds": found}, indent=1))
    return int(percentile(found.get("node, beside inference", [0.0]), 99) > MOST_MILLISECONDS)


def latencies(port: int, ae_title: str, count: int, per_second: float) -> list[float]:
    """Milliseconds of each C-STORE."""
    voxels = np.random.default_rng(0).integers(0, 2000, (1, ROWS, COLUMNS)).astype(np.uint16)
    image = mr_slices(voxels, StudyFacts())[0]
    times = []
    with RawSender(port, called=ae_title) as sender:
        due = time.perf_counter()
        for _ in range(count):
            image.SOPInstanceUID = generate_uid()
            message = data_pdu(3, store_request(image.SOPInstanceUID)) + fragments(encode(image, True, True) or b"")
            time.sleep(max(0.0, due - time.perf_counter()))
            due += 1 / per_second
            begin = time.perf_counter()
            sender.connection.sendall(message)
            answer = sender.answer()
            times.append(1000 * (time.perf_counter() - begin))
            if answer is None or answer.Status != 0:
                raise RuntimeError("an image was not stored")
        sender.release()
    return times


def fragments(data: bytes) -> bytes:
    """The data set in PDUs."""
    stream, parts = BytesIO(data), []
    while part := stream.read(FRAGMENT):
        parts.append(data_pdu(2 if stream.tell() == len(data) else 0, part))
    return b"".join(parts)


@contextmanager
def inference() -> Iterator[None]:
    """Runs while the block lasts."""
    process = subprocess.Popen([sys.executable, __file__, "--infer"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()


def infer() -> None:
    """Encode patches until killed; says so once it does."""
    import torch

    from dicom_node.service import yield_to_receiver
    from prima_core.bundle import build_model, load_bundle
    from prima_core.random_weights import released, write_random_bundle

    yield_to_receiver()
    with tempfile.TemporaryDirectory() as folder:
        write_random_bundle(Path(folder) / "bundle", released())
        model = build_model(load_bundle(Path(folder) / "bundle"), "cpu", "fp32")
    patches = torch.rand(BATCH, 4, 32, 32)
    with torch.inference_mode():
        while True:
            model.tokenizer(patches, 0)
            print("inference runs", flush=True)


def percentile(times: list[float], percent: int) -> float:
    """By linear interpolation."""
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1] if len(times) > 1 else times[0]


if __name__ == "__main__":
    raise SystemExit(main())
