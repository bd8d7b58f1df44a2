"""The store of prepared studies: shards of safetensors, their index, and what is known of each study.

    store.json      kind of store and how it was made     shards/NNNNNN.safetensors   arrays of up to 64 studies
    shards.jsonl    name, size and SHA-256 of each shard  index.jsonl   one line a study: record, shard, lengths
    labels.csv, reports.jsonl, truth.jsonl                refused.jsonl   pseudonyms of studies not used, and why

There are two kinds. A *tokens* store holds the latents of one encoder: what the study model is trained on. A *patches*
store holds a sample of kept patches: what the tokenizer is trained on. Neither holds a UID, a name or a date of a
patient; a study goes by its pseudonym.

A study is in the store once its line is in the index, and the index names only what is durable. Whatever ends a writer,
the store opens with the studies of all finished shards; lines that were cut short are dropped by the next writer.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from training.base.cohort import (
    StudyLabels,
    StudyRecord,
    StudyReport,
    read_labels,
    record_from_json,
    write_labels,
)
from training.base.errors import BadTrainingData, NoSpace
from training.prepare.scrub import without_numbers

VERSION = 1
TOKENS, PATCHES = "tokens", "patches"
STUDIES_A_SHARD = 64
BYTES_A_SHARD = 64 << 20
_OPEN_SHARDS = 64
_SHARD_NAME = re.compile(r"\d{6}\.safetensors")
_STUDY_NAME = re.compile(r"[0-9a-f]{16}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class TokenizedSeries:
    """One series as the study model takes it; the attributes are named as those of `PreparedSeries`.

    latents: (U, C, z, y, x) float16, the encoder's output for each distinct kept patch, ascending by id.
    token_ids: (T,) int64 in the model's order, patches may repeat. coordinates: (T, 3) int64, first voxel (z, y, x) of
    each token in the padded volume. thin_axis: 0, 1 or 2.
    shares: (U, n) float16, how much of each patch every located finding of the study covers, 0…1; None where nobody
    knows where findings lie.
    """

    name: str
    latents: npt.NDArray[np.float16]
    token_ids: npt.NDArray[np.int64]
    coordinates: npt.NDArray[np.int64]
    thin_axis: int
    shares: npt.NDArray[np.float16] | None = None

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(T,) the row of `latents` of every token."""
        return np.unique(self.token_ids, return_inverse=True)[1]


@dataclass(frozen=True)
class TokenizedStudy:
    """One study as the study model takes it. study: its pseudonym.

    located: the labels that the columns of the series' shares are of, diagnoses and the priority that a finding is the
    reason for; None where nobody knows where findings lie.
    """

    study: str
    description: str
    series: tuple[TokenizedSeries, ...]
    located: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SeriesSize:
    """What the index says of a series: its name, thin axis, number of distinct patches and of tokens."""

    name: str
    thin_axis: int
    patches: int
    tokens: int


@dataclass(frozen=True)
class StudyEntry:
    """What a writer takes. content: tokens, or (N, 4, 32, 32) float16 patches with the thin axis first."""

    record: StudyRecord
    content: TokenizedStudy | npt.NDArray[np.float16]
    labels: StudyLabels | None = None
    report: StudyReport | None = None
    truth: str = ""


@dataclass(frozen=True)
class _Indexed:
    record: StudyRecord
    shard: str
    description: str
    series: tuple[SeriesSize, ...]
    located: tuple[str, ...] | None


class TokenStore:
    """A store opened for reading; arrays are read from the mapped shards when they are asked for. Can be pickled.

    records: of all studies, by pseudonym. about: how the store was made, such as its encoder's shape and SHA-256.
    """

    def __init__(self, folder: Path) -> None:
        """Raises BadTrainingData when it is no store, or names the shard that is missing or of another size."""
        self.folder = folder
        self.about = _read_about(folder)
        self.kind: str = self.about["kind"]
        self._shards = {line["shard"]: line for line in _lines(folder / "shards.jsonl")}
        self._index = _read_index(folder, self._shards)
        self.records: tuple[StudyRecord, ...] = tuple(self._index[study].record for study in sorted(self._index))
        for shard in sorted({entry.shard for entry in self._index.values()}):
            self._check_size(shard)
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._sound: set[str] = set()

    def __len__(self) -> int:
        return len(self.records)

    def __contains__(self, study: object) -> bool:
        return study in self._index

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def sizes(self, study: str) -> tuple[SeriesSize, ...]:
        """Names and lengths of a study's series, from the index alone."""
        return self._entry(study).series

    def located(self, study: str) -> tuple[str, ...] | None:
        """The diagnoses whose place in the study's images is known; None where nobody looked for one."""
        return self._entry(study).located

    def read(self, study: str) -> TokenizedStudy:
        """One study of a tokens store. Raises BadTrainingData, which names a damaged shard."""
        entry = self._entry(study)
        self._must_be(TOKENS)
        series = tuple(
            TokenizedSeries(
                name=size.name,
                latents=self._array(entry.shard, f"{study}.{number}.latents"),
                token_ids=self._array(entry.shard, f"{study}.{number}.token_ids").astype(np.int64),
                coordinates=self._array(entry.shard, f"{study}.{number}.coordinates").astype(np.int64),
                thin_axis=size.thin_axis,
                shares=None if entry.located is None else self._array(entry.shard, f"{study}.{number}.shares"),
            )
            for number, size in enumerate(entry.series)
        )
        return TokenizedStudy(study, entry.description, series, entry.located)

    def patches(self, study: str) -> npt.NDArray[np.float16]:
        """(N, 4, 32, 32) of a patches store, thin axis first, 0…1. Raises BadTrainingData."""
        entry = self._entry(study)
        self._must_be(PATCHES)
        return self._array(entry.shard, f"{study}.patches")

    def labels(self) -> dict[str, StudyLabels]:
        """The labels of every study that has some."""
        path = self.folder / "labels.csv"
        known = read_labels(path) if path.exists() else {}
        return {study: labels for study, labels in known.items() if study in self._index}

    def reports(self) -> dict[str, StudyReport]:
        """The reports of every study that has one."""
        return {line["study"]: StudyReport(tuple(line["items"])) for line in self._known("reports.jsonl")}

    def truth(self) -> dict[str, str]:
        """What a simulation knows of its studies, as JSON."""
        return {line["study"]: line["truth"] for line in self._known("truth.jsonl")}

    def verify(self) -> None:
        """Read every shard and compare its SHA-256. Raises BadTrainingData that names all damaged ones."""
        if damaged := [name for name, line in self._shards.items() if self._digest(name) != line["sha256"]]:
            raise BadTrainingData(f"{self.folder}: damaged shards: {', '.join(damaged)}; copy them again")

    def _known(self, file: str) -> Iterator[dict[str, Any]]:
        path = self.folder / file
        return (line for line in _lines(path) if line["study"] in self._index) if path.exists() else iter(())

    def _entry(self, study: str) -> _Indexed:
        try:
            return self._index[study]
        except KeyError:
            raise BadTrainingData(f"{self.folder}: study {study} is not in the store") from None

    def _must_be(self, kind: str) -> None:
        if self.kind != kind:
            raise BadTrainingData(f"{self.folder}: a store of {self.kind}, not of {kind}")

    def _check_size(self, shard: str) -> None:
        path = self.folder / "shards" / shard
        found = path.stat().st_size if path.is_file() else None
        if found != self._shards[shard]["bytes"]:
            state = "is missing" if found is None else f"has {found} bytes instead of {self._shards[shard]['bytes']}"
            raise BadTrainingData(f"{self.folder}: shard {shard} {state}; copy it again or prepare the store anew")

    def _check_content(self, shard: str) -> None:
        """Once, when it is first read: a flipped bit would be trained on."""
        if shard not in self._sound and self._digest(shard) != self._shards[shard]["sha256"]:
            raise BadTrainingData(f"{self.folder}: shard {shard} is damaged; copy it again or prepare the store anew")
        self._sound.add(shard)

    def _digest(self, shard: str) -> str:
        with (self.folder / "shards" / shard).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _array(self, shard: str, name: str) -> npt.NDArray[Any]:
        try:
            if shard not in self._open:
                self._check_content(shard)
                self._open[shard] = safe_open(self.folder / "shards" / shard, framework="np")
                if len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)
            array: npt.NDArray[Any] = self._open[shard].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise BadTrainingData(f"{self.folder}: shard {shard} is damaged: {error}") from error
        self._open.move_to_end(shard)
        return array


class StoreWriter:
    """Adds studies to a store; only one writer at a time. Use as a context manager: whatever ends it, what is complete
    is written.

    Memory: one shard.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        about: Mapping[str, Any],
        *,
        studies_a_shard: int = STUDIES_A_SHARD,
        bytes_a_shard: int = BYTES_A_SHARD,
    ) -> None:
        """A new store, or one to go on with. about: plain JSON that says how the studies are made.

        Raises BadTrainingData when the store was made otherwise, is damaged or is being written just now.
        """
        self._folder = folder
        self._most = studies_a_shard, bytes_a_shard
        self._waiting: list[StudyEntry] = []
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder)
        try:
            self._open(json.loads(json.dumps({"version": VERSION, "kind": kind, **about})))
        except BaseException:
            self._lock.close()
            raise

    def _open(self, about: dict[str, Any]) -> None:
        path = self._folder / "store.json"
        if not path.exists():
            _replace(path, json.dumps(about, indent=1).encode() + b"\n")
            for name in ("shards.jsonl", "index.jsonl"):
                _replace(self._folder / name, b"")
        if differing := sorted(key for key in about | _read_about(self._folder) if not self._agrees(key, about)):
            raise BadTrainingData(
                f"{self._folder}: made with another {differing[0]} than asked for now; choose another folder"
            )
        self._kind: str = about["kind"]
        for name in ("shards.jsonl", "index.jsonl", "reports.jsonl", "truth.jsonl"):
            _drop_torn_line(self._folder / name)
        store = TokenStore(self._folder)
        self.studies = {record.study for record in store.records}
        self._labels = store.labels()
        self._drop_strays(store)

    def _agrees(self, key: str, about: Mapping[str, Any]) -> bool:
        return bool(about.get(key) == _read_about(self._folder).get(key))

    def _drop_strays(self, store: TokenStore) -> None:
        """What a killed writer left: shards, reports and truths whose studies the index does not name."""
        used = {store._index[study].shard for study in self.studies}
        kept = [line for line in _lines(self._folder / "shards.jsonl") if line["shard"] in used]
        _replace(self._folder / "shards.jsonl", _as_lines(kept))
        for path in (self._folder / "shards").iterdir():
            if path.name not in used:
                path.unlink()
        for name in ("reports.jsonl", "truth.jsonl"):
            if (path := self._folder / name).exists():
                _replace(path, _as_lines(line for line in _lines(path) if line["study"] in self.studies))
        self._number = 1 + max((int(name.partition(".")[0]) for name in used), default=-1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or not issubclass(kind, NoSpace):
                self.flush()
        finally:
            self._lock.close()

    def add(self, entry: StudyEntry) -> None:
        """Take a study in. Raises NoSpace; BadTrainingData for one that is there already or cannot be stored."""
        study = entry.record.study
        if not _STUDY_NAME.fullmatch(study) or not _STUDY_NAME.fullmatch(entry.record.patient):
            raise BadTrainingData("a study or patient goes by something that is no pseudonym")
        if study in self.studies or any(study == other.record.study for other in self._waiting):
            raise BadTrainingData("the study is there twice")
        if isinstance(entry.content, TokenizedStudy) != (self._kind == TOKENS):
            raise BadTrainingData(f"the store takes {self._kind}")
        _check_sound(entry.content)
        self._waiting.append(entry)
        if len(self._waiting) >= self._most[0] or sum(map(_bytes, self._waiting)) >= self._most[1]:
            self.flush()

    def flush(self) -> None:
        """Make everything durable that was taken in. Raises NoSpace."""
        if not self._waiting:
            return
        try:
            self._write_shard()
        except OSError as error:
            if error.errno in _FULL:
                lost = len(self._waiting)
                raise NoSpace(
                    f"{self._folder}: no space left: {len(self.studies)} studies are kept, {lost} are prepared again "
                    "when the command is started again with more space"
                ) from error
            raise

    def _write_shard(self) -> None:
        """Shard, then its line, then what is known of its studies, then their lines in the index."""
        shard = f"{self._number:06d}.safetensors"
        data = save(_arrays(self._waiting))
        _replace(self._folder / "shards" / shard, data)
        line = {"shard": shard, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self._append("shards.jsonl", [line])
        self._append(
            "reports.jsonl",
            [
                {"study": entry.record.study, "items": [without_numbers(item) for item in entry.report.items]}
                for entry in self._waiting
                if entry.report
            ],
        )
        self._append(
            "truth.jsonl",
            [{"study": entry.record.study, "truth": entry.truth} for entry in self._waiting if entry.truth],
        )
        self._write_labels()
        self._append("index.jsonl", [_index_line(entry, shard) for entry in self._waiting])
        self.studies |= {entry.record.study for entry in self._waiting}
        self._waiting = []
        self._number += 1

    def _write_labels(self) -> None:
        added = {entry.record.study: entry.labels for entry in self._waiting if entry.labels is not None}
        if not added:
            return
        self._labels |= added
        path = self._folder / "labels.csv"
        scratch = path.with_suffix(".part")
        write_labels(scratch, self._labels)
        _sync(scratch)
        scratch.replace(path)
        _sync(self._folder)

    def _append(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        data = _as_lines(lines)
        if not data:
            return
        with (self._folder / name).open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise


def write_refused(folder: Path, asked: Iterable[str], refused: Mapping[str, str]) -> None:
    """Study → why it was not used, in place of what was written before of the studies that were asked for."""
    path, again = folder / "refused.jsonl", set(asked)
    others = [line for line in _lines(path) if line["study"] not in again] if path.exists() else []
    now = [{"study": study, "reason": reason} for study, reason in refused.items()]
    _replace(path, _as_lines([*others, *now]))


def _arrays(entries: Iterable[StudyEntry]) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for entry in entries:
        study, content = entry.record.study, entry.content
        if not isinstance(content, TokenizedStudy):
            arrays[f"{study}.patches"] = np.ascontiguousarray(content, np.float16)
            continue
        for number, series in enumerate(content.series):
            arrays[f"{study}.{number}.latents"] = np.ascontiguousarray(series.latents, np.float16)
            arrays[f"{study}.{number}.token_ids"] = np.ascontiguousarray(series.token_ids, np.int32)
            arrays[f"{study}.{number}.coordinates"] = np.ascontiguousarray(series.coordinates, np.int32)
            if series.shares is not None:
                arrays[f"{study}.{number}.shares"] = np.ascontiguousarray(series.shares, np.float16)
    return arrays


def _index_line(entry: StudyEntry, shard: str) -> dict[str, Any]:
    content = entry.content
    line: dict[str, Any] = {"study": entry.record.study, "shard": shard, "record": entry.record.as_json()}
    if not isinstance(content, TokenizedStudy):
        return line | {"description": "", "series": []}
    series = [
        {
            "name": without_numbers(s.name),
            "thin_axis": s.thin_axis,
            "patches": len(s.latents),
            "tokens": len(s.token_ids),
        }
        for s in content.series
    ]
    located = {} if content.located is None else {"located": list(content.located)}
    return line | {"description": without_numbers(content.description), "series": series} | located


def _check_sound(content: TokenizedStudy | npt.NDArray[np.float16]) -> None:
    if not isinstance(content, TokenizedStudy):
        if content.shape[1:] != (4, 32, 32) or not np.isfinite(content).all():
            raise BadTrainingData("patches that are not finite or not of 4 × 32 × 32 voxels")
        return
    for series in content.series:
        if not np.isfinite(series.latents).all():
            raise BadTrainingData("the encoder gives values that float16 cannot hold")
        if len(np.unique(series.token_ids)) != len(series.latents):
            raise BadTrainingData("a series whose tokens do not fit its latents")
        expected = None if content.located is None else (len(series.latents), len(content.located))
        if (None if series.shares is None else series.shares.shape) != expected:
            raise BadTrainingData("a series whose shares do not fit what was located")


def _bytes(entry: StudyEntry) -> int:
    content = entry.content
    return sum(s.latents.nbytes for s in content.series) if isinstance(content, TokenizedStudy) else content.nbytes


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / "store.json"
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadTrainingData(f"{folder}: not a store of prepared studies ({type(error).__name__})") from error
    if not isinstance(about, dict) or about.get("version") != VERSION or about.get("kind") not in (TOKENS, PATCHES):
        raise BadTrainingData(f"{path}: not a store that this release reads")
    return about


def _read_index(folder: Path, shards: Mapping[str, Any]) -> dict[str, _Indexed]:
    index: dict[str, _Indexed] = {}
    path = folder / "index.jsonl"
    for number, line in enumerate(_lines(path), 1):
        try:
            sizes = tuple(SeriesSize(**series) for series in line["series"])
            located = tuple(line["located"]) if "located" in line else None
            entry = _Indexed(record_from_json(line["record"]), line["shard"], line["description"], sizes, located)
            study = line["study"]
        except (KeyError, TypeError) as error:
            raise BadTrainingData(f"{path}, line {number}: not a line of an index") from error
        if study in index or entry.shard not in shards or not _SHARD_NAME.fullmatch(entry.shard):
            raise BadTrainingData(f"{path}, line {number}: the study is named twice or its shard is unknown")
        index[study] = entry
    return index


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines; one that was cut short when its writer ended is no line yet. Raises BadTrainingData."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadTrainingData(f"{path}: {error.strerror}") from error
    for number, text in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise BadTrainingData(f"{path}, line {number}: not JSON") from error
        if not isinstance(line, dict):
            raise BadTrainingData(f"{path}, line {number}: not an object")
        yield line


def _as_lines(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _drop_torn_line(path: Path) -> None:
    if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def _replace(path: Path, data: bytes) -> None:
    """All of the file's new content appears under its name, durable, or nothing."""
    scratch = path.with_name(path.name + ".part")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(folder: Path) -> Any:
    file = (folder / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BadTrainingData(f"{folder}: is being written by another process") from None
    return file
