"""A source → a store: worker processes fetch and encode studies in parallel, this one writes.

    result = fill_store(source, run / "store", Encoder(shape, weights))       # tokens
    result = fill_store(source, run / "patches", patches_per_series=32, limit=300)

Nothing that one study does ends the run: it is counted with its reason, even if its worker process dies of it. Killed
and called again, it goes on behind the last complete shard. Fetched files lie in a folder beside the store that only
the owner can read, and are deleted with every study and at the next start.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from prima_core.base.errors import PrimaError
from prima_core.volume.faults import unexpected
from training.base.errors import BadTrainingData, NoSpace
from training.prepare.encode import Encoder, sample_patches, tokenize
from training.prepare.source import Source
from training.prepare.store import PATCHES, TOKENS, StoreWriter, StudyEntry, write_refused

if TYPE_CHECKING:
    from prima_core.volume_tokenizer import VolumeTokenizer

_AHEAD = 2  # studies a worker, so that none waits for this process
_DIED = "the process that prepared it ended"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


@dataclass(frozen=True)
class FillResult:
    """stored: studies added now. before: studies that were in the store already. refused: reason → studies."""

    stored: int
    before: int
    refused: Mapping[str, int]


@dataclass(frozen=True)
class _Task:
    """What a worker does with a study. encoder: None samples patches."""

    source: Source
    scratch: Path
    encoder: Encoder | None
    patches_per_series: int
    seed: int


@dataclass(frozen=True)
class _Refused:
    reason: str
    full_disk: bool = False


def fill_store(
    source: Source,
    out: Path,
    encoder: Encoder | None = None,
    *,
    workers: int = 2,
    patches_per_series: int = 32,
    seed: int = 0,
    limit: int | None = None,
    quiet: bool = False,
) -> FillResult:
    """Add the source's studies (the first `limit`) to the store `out`: tokens of `encoder`, or patches without one.

    workers: processes; 0 does everything in this one. Raises BadTrainingData when the store was made otherwise, NoSpace
    when the disk is full; what was complete by then is kept.
    """
    about = {"patches_per_series": patches_per_series, "seed": seed} if encoder is None else encoder.about()
    references = {source.study(reference): reference for reference in islice(source.references(), limit)}
    with (
        _no_space_named(out),
        StoreWriter(out, PATCHES if encoder is None else TOKENS, about) as writer,
        _scratch_beside(out) as scratch,
        _one_thread_each(),
        _progress(quiet) as progress,
    ):
        waiting = {reference: study for study, reference in references.items() if study not in writer.studies}
        before = len(references) - len(waiting)
        bar = progress.add_task(f"Preparing {out.name}", total=len(references), completed=before)
        refused: dict[str, str] = {}
        task = _Task(source, scratch, encoder, patches_per_series, seed)
        with closing(_outcomes(task, waiting, workers)) as outcomes:
            for reference, outcome in outcomes:
                if reason := _taken_in(writer, outcome, waiting[reference]):
                    refused[waiting[reference]] = reason
                progress.update(bar, advance=1, description=f"Preparing {out.name}, {len(refused)} refused")
        writer.flush()
        write_refused(out, references, refused)
    return FillResult(len(waiting) - len(refused), before, dict(Counter(refused.values())))


def _taken_in(writer: StoreWriter, outcome: StudyEntry | _Refused, study: str) -> str:
    """Why a study was not taken in, or an empty string."""
    if isinstance(outcome, _Refused):
        if outcome.full_disk:
            raise OSError(errno.ENOSPC, outcome.reason)
        return outcome.reason
    if outcome.record.study != study:
        return "its source gives it another pseudonym than announced"
    try:
        writer.add(outcome)
    except BadTrainingData as error:
        return str(error)
    return ""


def _outcomes(
    task: _Task, references: Iterable[str], workers: int
) -> Generator[tuple[str, StudyEntry | _Refused], None, None]:
    """Every reference with what became of it, as they are done."""
    if not workers:
        preparer = _Preparer(task)
        yield from ((reference, preparer.prepare(reference)) for reference in references)
        return
    left = iter(references)
    while suspects := (yield from _until_a_worker_dies(task, left, workers)):
        # One of these killed its worker: each gets a process of its own, so that only that one is lost.
        for reference in suspects:
            if (yield from _until_a_worker_dies(task, iter([reference]), 1)):
                yield reference, _Refused(_DIED)


def _until_a_worker_dies(
    task: _Task, references: Iterator[str], workers: int
) -> Generator[tuple[str, StudyEntry | _Refused], None, list[str]]:
    """Outcomes until there are no more references; returns those that were on their way when a worker died."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (task,))
    pending: dict[Future[StudyEntry | _Refused], str] = {}
    try:
        while True:
            for reference in islice(references, _AHEAD * workers - len(pending)):
                pending[pool.submit(_prepare, reference)] = reference
            if not pending:
                return []
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                yield pending.pop(future), outcome
    except BrokenProcessPool:
        return list(pending.values())
    finally:
        _stop(pool)


def _stop(pool: ProcessPoolExecutor) -> None:
    """Without waiting for studies that nobody will take in any more."""
    processes = list((pool._processes or {}).values())
    results: Any = pool._result_queue
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
    # A worker that ended while it was sending leaves half a result. The pool's thread would wait for the other half for
    # ever, and the interpreter for the thread, as long as this process might be the one to send it.
    results._writer.close()


class _Preparer:
    """Fetches and encodes studies in this process."""

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._tokenizer: VolumeTokenizer | None = task.encoder.load() if task.encoder else None

    def prepare(self, reference: str) -> StudyEntry | _Refused:
        try:
            with tempfile.TemporaryDirectory(dir=self._task.scratch) as scratch:
                return self._entry(reference, Path(scratch))
        except (PrimaError, BadTrainingData) as error:
            return _Refused(str(error))
        except Exception as error:  # noqa: BLE001 - one study that nobody thought of must not end the run
            return _Refused(_reason(error), isinstance(error, OSError) and error.errno in _NO_SPACE)

    def _entry(self, reference: str, scratch: Path) -> StudyEntry:
        task = self._task
        found = task.source.fetch(reference, scratch)
        name = found.record.study
        if task.encoder is None or self._tokenizer is None:
            content: Any = sample_patches(name, found.prepared, task.patches_per_series, task.seed)
        else:
            chunk = task.encoder.tokens_per_chunk
            content = tokenize(name, found.prepared, self._tokenizer, chunk, found.findings)
        return StudyEntry(found.record, content, found.labels, found.report, found.truth)


def _reason(error: Exception) -> str:
    """Never the message, which may name a patient."""
    try:
        return unexpected(error)
    except OSError as trouble:
        return f"could not be read ({os.strerror(trouble.errno or 0)})"
    except MemoryError:
        return "needs more memory than there is"


_task: _Task


def _start_worker(task: _Task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _task  # noqa: PLW0603 - a worker is one process with one task
    _task = task


@cache
def _preparer() -> _Preparer:
    if _task.encoder:
        import torch

        torch.set_num_threads(1)
    return _Preparer(_task)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


def _prepare(reference: str) -> StudyEntry | _Refused:
    # An encoder that cannot be loaded raises here, and so ends the run; in `_start_worker` it would look like a crash.
    return _preparer().prepare(reference)


@contextmanager
def _no_space_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NoSpace(f"{out}: no space left on its disk; the command goes on when started with more") from error
        raise


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Worker processes start with one thread each for OpenMP, BLAS and ITK: two of many threads disturb each other."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _scratch_beside(out: Path) -> Iterator[Path]:
    folder = out.parent / f".{out.name}.scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        yield progress
