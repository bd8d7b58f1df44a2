"""Images a second by C-STORE, durable before Success, beside DCMTK's storescp and Orthanc.

    python tests/benchmarks/ingest_speed.py [--images N] [--associations N …] [--rounds N] [--only NAME …] [--json FILE]

DCMTK's dcmsend sends MR images of 150 KB, one process an association. The peers take turns, each round on an empty
folder of its own, which stays until the end: for minutes after files were deleted, ext4 without a journal takes many
times longer to create others (one by one it passes over what was deleted lately). So wait five minutes after tests ran;
how long creating a file takes now is printed. `storescp --fork` is told no fsync and does none; the disk's own rate (a
file of that size and its folder, synced) is measured in the same run. Exit code 1 when a bar is missed.
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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from dicom_node.base.config import IntakeSection
from dicom_node.base.durable import sync_folder
from dicom_node.base.events import Event
from dicom_node.intake.spool import Spool
from support.dicom_factory import SeriesFacts, StudyFacts, mr_slices
from support.orthanc import Orthanc
from support.peers import AE_TITLE, configuration_for, dcmtk, free_port, listening, receiver_process, wait_until

ROWS, COLUMNS = 272, 276  # 150 KB
SERIES = 8
PROCESSES = IntakeSection().processes  # as the node comes
#: Least rate of `node` relative to a peer, by number of associations.
BARS = {("orthanc", 1): 1.8, ("orthanc", 4): 1.8, ("orthanc", 16): 1.4, ("storescp", 1): 0.8, ("storescp", 4): 0.8}


@dataclass(frozen=True)
class Peer:
    """A running receiver: where it listens, its AE title, and how many objects it has."""

    port: int
    ae_title: str
    stored: Callable[[], int]


@contextmanager
def node(folder: Path, **intake: object) -> Iterator[Peer]:
    """The node's receiver, once all of its processes serve."""
    configuration = configuration_for(folder, free_port(), **{"processes": PROCESSES} | intake)
    with receiver_process(folder, configuration, "info", **intake):
        ready, helpers = f'"number": {Event.HELPER_READY.number}', configuration.intake.processes - 1
        wait_until(lambda: (folder / "receiver.log").read_text().count(ready) >= helpers, "all processes serve")
        spool = Spool(configuration.node.spool)
        yield Peer(configuration.node.port, AE_TITLE, lambda: sum(1 for _ in spool.paths()))


@contextmanager
def storescp(folder: Path) -> Iterator[Peer]:
    """DCMTK's, a process for each association."""
    port, received = free_port(), folder / "received"
    received.mkdir(parents=True)
    environment = {"PATH": "/usr/bin", "TCP_NODELAY": "1"}
    process = subprocess.Popen([dcmtk("storescp"), "--fork", "-od", str(received), str(port)], env=environment)
    try:
        wait_until(lambda: listening(port))
        yield Peer(port, "STORESCP", lambda: sum(1 for _ in received.iterdir()))
    finally:
        process.kill()
        process.wait()


@contextmanager
def orthanc(folder: Path) -> Iterator[Peer]:
    """Orthanc with its own SQLite index and its defaults."""
    with Orthanc(folder / "orthanc", free_port()) as pacs:
        storage = folder / "orthanc" / "storage"
        # Each instance is two attachments: the file and its JSON summary.
        yield Peer(pacs.port, "ORTHANC", lambda: sum(1 for one in storage.glob("??/??/*") if b"DICM" in _head(one)))


PEERS = {
    "node": node,
    "node, public path": lambda folder: node(folder, inline=False),
    "storescp": storescp,
    "orthanc": orthanc,
}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=880)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["TCP_NODELAY"] = "1"  # DCMTK, in all peers: without it each image waits 40 ms for an acknowledgement
    with tempfile.TemporaryDirectory(dir=Path.home()) as made:
        files = images(Path(made) / "images", given.images)
        size = files[0].stat().st_size
        print(f"{len(files)} images of {size / 1000:.0f} KB; {os.cpu_count()} cores, {platform.platform()}")
        disk = {threads: synced(Path(made) / f"disk by {threads}", size, threads) for threads in (1, 4)}
        creating = created(Path(made) / "created")
        rates_of_disk = ", ".join(f"{rate:.0f} synced files/s by {n}" for n, rate in disk.items())
        print(f"disk: {rates_of_disk}; a file is created in {creating:.0f} µs")
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(given.rounds):
            for associations in given.associations:
                for name in given.only:
                    folder = Path(tempfile.mkdtemp(dir=made))
                    with PEERS[name](folder) as peer:
                        rate = sent(peer, files, associations)
                    rates.setdefault((name, associations), []).append(rate)
    medians = {key: statistics.median(found) for key, found in rates.items()}
    print(table(medians, given.only, given.associations, rates))
    missed = [bar for bar in BARS if _ratio(medians, *bar) < BARS[bar]]
    for peer, associations in missed:
        print(f"missed: {BARS[peer, associations]} × {peer} with {associations} associations")
    if given.json:
        rows = [{"peer": name, "associations": n, "images_per_s": found} for (name, n), found in rates.items()]
        measured = {"machine": platform.platform(), "disk": disk, "create_us": creating, "rates": rows}
        given.json.write_text(json.dumps(measured, indent=1))
    return int(bool(missed))


def images(folder: Path, count: int) -> list[Path]:
    """MR images of noise, as files."""
    folder.mkdir(parents=True)
    study, draw = StudyFacts(), np.random.default_rng(0)
    files = []
    for number in range(1, SERIES + 1):
        share = len(range(number, count + 1, SERIES))
        voxels = draw.integers(0, 2000, (share, ROWS, COLUMNS)).astype(np.uint16)
        for image in mr_slices(voxels, study, SeriesFacts(number=number)):
            files.append(folder / f"{len(files):05}.dcm")
            image.save_as(files[-1], enforce_file_format=True)
    return files


def sent(peer: Peer, files: list[Path], associations: int) -> float:
    """Images a second from the first process's start to the last one's end; every image must be there."""
    environment = {"PATH": "/usr/bin", "TCP_NODELAY": "1", "DCMDICTPATH": "/usr/share/libdcmtk17/dicom.dic"}
    target = [dcmtk("dcmsend"), "-aec", peer.ae_title, "127.0.0.1", str(peer.port)]
    begin = time.perf_counter()
    senders = [
        subprocess.Popen([*target, *map(str, files[n::associations])], env=environment, stdout=subprocess.DEVNULL)
        for n in range(associations)
    ]
    failed = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - begin
    if any(failed) or peer.stored() != len(files):
        raise RuntimeError(f"sent {len(files)} images, {peer.stored()} are there, dcmsend ended with {failed}")
    return len(files) / seconds


def synced(folder: Path, size: int, threads: int, count: int = 400) -> float:
    """Files of that size a second that this disk takes with fsync of file and folder, by so many threads."""

    def write(number: int) -> None:
        mine = folder / str(number)
        mine.mkdir(parents=True)
        for n in range(count // threads):
            with (mine / str(n)).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(mine)

    content = os.urandom(size)
    workers = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return count / (time.perf_counter() - begin)


def created(folder: Path, count: int = 200) -> float:
    """Median of the microseconds in which this file system creates a file."""
    folder.mkdir()
    took = []
    for number in range(count):
        begin = time.perf_counter()
        os.close(os.open(folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        took.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(took)


def table(
    medians: dict[tuple[str, int], float],
    names: list[str],
    associations: list[int],
    rates: dict[tuple[str, int], list[float]],
) -> str:
    """Medians, the range of the rounds, and the node's ratio to each peer."""
    lines = [f"{'images/s (range; node ÷ peer)':<32}" + "".join(f"{n:>28}" for n in associations)]
    for name in names:
        cells = []
        for n in associations:
            low, high = min(rates[name, n]), max(rates[name, n])
            cells.append(f"{medians[name, n]:.0f} ({low:.0f}–{high:.0f}; {_ratio(medians, name, n):.2f})")
        lines.append(f"{name:<32}" + "".join(f"{cell:>28}" for cell in cells))
    return "\n".join(lines)


def _ratio(medians: dict[tuple[str, int], float], peer: str, associations: int) -> float:
    mine, other = medians.get(("node", associations)), medians.get((peer, associations))
    return mine / other if mine and other else float("inf")


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(132)


if __name__ == "__main__":
    raise SystemExit(main())
