"""The audit trail on disk: files that are only appended to, by any of the node's processes, one at a time.

`head` says what was written last. It is the lock that writers take, and what makes a cut end visible. A file is named
after its first record; another begins when it is large enough or its day (UTC) is over, and the chain goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.audit.chain import START, Fault, Record, faults, new_record, read_record
from dicom_node.base.durable import PRIVATE_FILE, make_folder, sync_folder
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.tls import check_private

HEAD = "head"
MIN_KEY_BYTES = 32


@dataclass(frozen=True)
class Head:
    """The end of the chain: the last record's number and digest, its file, how long that is, and its day."""

    number: int = 0
    digest: str = START
    file: str = ""
    size: int = 0
    day: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a check found. records: how many there are."""

    records: int
    files: int
    keyed: bool
    faults: tuple[Fault, ...]


class Trail:
    """One node's audit trail in a folder. Several processes may append."""

    def __init__(self, folder: Path, key: bytes | None, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._key = key
        self._max_bytes = max_bytes
        self._clock = clock

    def append(self, messages: Sequence[str]) -> None:
        """Write records; they are on the disk when this returns. Raises OSError: then try again, all of them.

        messages: XML without line breaks.
        """
        make_folder(self.folder)
        with self._locked(fcntl.LOCK_EX) as lock:
            head = self._true_head(_read_head(lock))
            records = []
            digest = head.digest
            for number, message in enumerate(messages, start=head.number + 1):
                records.append(new_record(number, digest, message.encode(), self._key))
                digest = records[-1].digest
            if records:
                _write_head(lock, self._write(head, records))

    def verify(self, first: int = 1) -> Verdict:
        """Check the whole chain as it is now, while others append. first: number of the oldest record that should still
        be here.
        """
        with self._locked(fcntl.LOCK_SH) as lock:
            head = _read_head(lock)
            files = [(file, file.stat().st_size) for file in self.files()]
        last = (head.number, head.digest) if head is not None else None
        seen = _Seen()
        found = list(faults(seen.noted(_lines(files)), self._key, first, last))
        if self._key is None and seen.keyed:
            raise ConfigurationError("audit.key_file: the records have a key; without it nothing can be said of them")
        if self._key is not None and seen.last is not None and not seen.last.keyed:
            found.append(Fault(seen.last.number, "has no key although the site has one"))
        return Verdict(seen.records, len(files), self._key is not None, tuple(found))

    def files(self) -> list[Path]:
        """All files, oldest first."""
        return sorted(self.folder.glob("*.log"))

    @contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        flags = os.O_RDONLY if how == fcntl.LOCK_SH else os.O_RDWR | os.O_CREAT
        try:
            lock = os.open(self.folder / HEAD, flags, PRIVATE_FILE)
        except FileNotFoundError:
            yield -1
            return
        try:
            fcntl.flock(lock, how)
            yield lock
        finally:
            os.close(lock)

    def _true_head(self, head: Head | None) -> Head:
        """The head, and what was written after it by a process that died before it said so.

        Half a line at the end was never a record and is taken away. What is missing stays missing, for a check to find.
        """
        files = self.files()
        if head is None:
            return self._head_from(files[-1], 0, Head()) if files else Head()
        newest = files[-1] if files else None
        if newest is None or newest.name < head.file:
            return Head(head.number, head.digest)  # its file is gone: the next record begins another
        if newest.name == head.file and newest.stat().st_size == head.size:
            return head
        if newest.name == head.file and newest.stat().st_size < head.size:
            return Head(head.number, head.digest)
        return self._head_from(newest, head.size if newest.name == head.file else 0, head)

    def _head_from(self, file: Path, start: int, head: Head) -> Head:
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)
        number, digest = head.number, head.digest
        for line in content[start:whole].splitlines():
            record = read_record(line)
            if record is not None and record.number >= number:
                number, digest = record.number, record.digest
        day = datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat()
        return Head(number, digest, file.name, whole, day)

    def _write(self, head: Head, records: Sequence[Record]) -> Head:
        today = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        is_new = not head.file or head.day != today or head.size >= self._max_bytes
        path = self.folder / (f"{records[0].number:012d}.log" if is_new else head.file)
        content = b"".join(record.line for record in records)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_FILE)
        with open(descriptor, "ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
            if is_new and os.geteuid() == 0:  # a person's command: the node's own user must go on in this file
                owner = self.folder.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        if is_new:
            sync_folder(self.folder)
        return Head(records[-1].number, records[-1].digest, path.name, size, today)


class _Seen:
    """What a check came by: how many records, whether one has a key, and the last."""

    def __init__(self) -> None:
        self.records = 0
        self.keyed = False
        self.last: Record | None = None

    def noted(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The same lines."""
        for line in lines:
            if (record := read_record(line)) is not None:
                self.records += 1
                self.keyed |= record.keyed
                self.last = record
            yield line


def _lines(files: Iterable[tuple[Path, int]]) -> Iterator[bytes]:
    """The lines of each file's first bytes, one at a time: a trail is larger than the memory."""
    for file, size in files:
        with file.open("rb") as stream:
            while line := stream.readline(size - stream.tell()):
                yield line.removesuffix(b"\n")


def read_key(path: Path | None) -> bytes | None:
    """The key of the chain; None without a file. Raises ConfigurationError on one that is no use, or not private."""
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
        check_private(path)
    except OSError as error:
        raise ConfigurationError(f"audit.key_file {path}: {error.strerror}") from error
    if len(key) < MIN_KEY_BYTES:
        raise ConfigurationError(f"audit.key_file {path}: fewer than {MIN_KEY_BYTES} bytes; `openssl rand -hex 32`")
    return key


def _read_head(lock: int) -> Head | None:
    """None where there is none, or a power cut left half of it."""
    if lock < 0:
        return None
    try:
        return Head(**json.loads(os.pread(lock, 4096, 0).rstrip(b"\0 \n")))
    except (ValueError, TypeError):
        return None


def _write_head(lock: int, head: Head) -> None:
    # In place and always as long, so that the lock stays this very file.
    os.pwrite(lock, json.dumps(asdict(head)).encode().ljust(512), 0)
    os.fsync(lock)
