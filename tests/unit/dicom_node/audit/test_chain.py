"""The audit trail's chain and files: whatever is done to a record is found, and where."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from dicom_node.audit.chain import new_record, read_record
from dicom_node.audit.trail import HEAD, Trail, read_key
from dicom_node.base.errors import ConfigurationError

KEY = b"k" * 32
DAY_SECONDS = 86400.0


def filled(folder: Path, key: bytes | None = KEY, count: int = 6, max_bytes: int = 1 << 20) -> Trail:
    trail = Trail(folder, key, max_bytes)
    for number in range(1, count + 1):
        trail.append([f"<AuditMessage>{number}</AuditMessage>"])
    return trail


def found(trail: Trail, first: int = 1) -> list[int]:
    return [fault.number for fault in trail.verify(first).faults]


@pytest.mark.parametrize("key", [None, KEY])
def test_a_chain_that_nobody_touched_is_whole(tmp_path: Path, key: bytes | None) -> None:
    verdict = filled(tmp_path, key).verify()
    assert (verdict.records, verdict.files, verdict.faults) == (6, 1, ())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_files_end_by_size_and_by_day_and_the_chain_goes_on(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    trail = Trail(tmp_path, KEY, 150, lambda: now[0])
    for _ in range(4):
        trail.append(["<A/>"])
    by_size = len(trail.files())
    assert by_size > 1
    now[0] += DAY_SECONDS
    trail.append(["<A/>"])
    trail.append(["<A/>"])
    assert len(trail.files()) == by_size + 1
    assert trail.verify().records == 6
    assert found(trail) == []
    assert [read_record(line).number for file in trail.files() for line in file.read_bytes().splitlines()] == [  # type: ignore[union-attr]
        *range(1, 7)
    ]


Damage = Callable[[list[bytes]], list[bytes]]
DAMAGES: dict[str, tuple[Damage, list[int]]] = {
    "changed": (lambda lines: [*lines[:2], lines[2].replace(b">3<", b">9<"), *lines[3:]], [3]),
    "missing": (lambda lines: lines[:2] + lines[3:], [3]),
    "missing at the beginning": (lambda lines: lines[1:], [1]),
    "cut": (lambda lines: lines[:4], [5]),
    "all cut": (lambda lines: [], [1]),
    "swapped": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], [3, 3]),
    "twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], [3]),
    "rubbish": (lambda lines: [*lines[:2], b"rubbish\n", *lines[3:]], [3]),
    "inserted": (lambda lines: [*lines[:2], new_record(3, "0" * 64, b"<A/>", None).line, *lines[2:]], [3, 3, 4]),
    "the last one changed": (lambda lines: [*lines[:5], lines[5].replace(b">6<", b">9<")], [6]),
}


@pytest.mark.parametrize("case", DAMAGES)
@pytest.mark.parametrize("key", [None, KEY])
def test_whatever_is_done_to_a_record_is_found(tmp_path: Path, case: str, key: bytes | None) -> None:
    trail = filled(tmp_path, key)
    damage, numbers = DAMAGES[case]
    [file] = trail.files()
    file.write_bytes(b"".join(damage(file.read_bytes().splitlines(keepends=True))))
    assert found(trail) == numbers
    trail.append(["<A/>"])  # goes on, and mends nothing
    assert found(trail)[: len(numbers)] == numbers


def test_who_rewrites_the_whole_chain_needs_the_key(tmp_path: Path) -> None:
    (tmp_path / "forged").mkdir()
    trail = filled(tmp_path / "node")
    forged = filled(tmp_path / "forged", key=b"x" * 32)
    for name in (HEAD, forged.files()[0].name):
        (tmp_path / "node" / name).write_bytes((tmp_path / "forged" / name).read_bytes())
    assert found(trail)
    for name in (HEAD, forged.files()[0].name):
        (tmp_path / "node" / name).unlink()
    filled(tmp_path / "node", key=None)
    assert found(trail) == [6]


def test_a_key_may_come_later_and_may_not_go(tmp_path: Path) -> None:
    filled(tmp_path, key=None, count=2)
    keyed = filled(tmp_path, count=2)
    assert found(keyed) == []
    filled(tmp_path, key=None, count=1)
    assert 5 in found(keyed)
    with pytest.raises(ConfigurationError, match=r"audit\.key_file"):
        Trail(tmp_path, None, 1 << 20).verify()


def test_files_that_were_taken_to_an_archive_are_no_fault_when_it_is_said(tmp_path: Path) -> None:
    trail = filled(tmp_path, max_bytes=1)
    trail.files()[0].unlink()
    trail.files()[0].unlink()
    assert found(trail) == [1]
    assert found(trail, first=3) == []


def test_a_writer_that_died_is_taken_over(tmp_path: Path) -> None:
    trail = filled(tmp_path)
    [file] = trail.files()
    head = (tmp_path / HEAD).read_bytes()
    trail.append(["<A>7</A>"])
    (tmp_path / HEAD).write_bytes(head)  # died between the record and the head
    trail.append(["<A>8</A>"])
    with file.open("ab") as half:
        half.write(b"9 hmac:0123")  # died within a record
    trail.append(["<A>9</A>"])
    assert trail.verify().records == 9
    assert found(trail) == []


def test_others_append_while_it_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = filled(tmp_path, max_bytes=1)
    real, reads = Path.open, []

    def opened(path: Path, *how: Any, **further: Any) -> IO[Any]:
        reads.append(path.name)
        if len(reads) == 1:
            with real(tmp_path / HEAD) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Trail(tmp_path, KEY, 1 << 20).append(["<A>7</A>"])  # in the last file
            Trail(tmp_path, KEY, 1).append(["<A>8</A>"])  # in another
        return real(path, *how, **further)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "open", opened)
        verdict = trail.verify()
    assert (verdict.records, verdict.files, verdict.faults) == (6, 6, ())
    assert trail.verify().records == 8


def test_a_head_that_is_gone_is_said_and_the_chain_goes_on(tmp_path: Path) -> None:
    trail = filled(tmp_path)
    (tmp_path / HEAD).unlink()
    assert found(trail) == [7]
    trail.append(["<A/>"])
    assert trail.verify().records == 7
    assert found(trail) == []


WRITER = """
import sys
from pathlib import Path
from dicom_node.audit.trail import Trail
trail = Trail(Path(sys.argv[1]), None, 4096)
for number in range(40):
    trail.append([f"<A>{sys.argv[2]} {number}</A>", "<B/>"])
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(one)]) for one in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    verdict = Trail(tmp_path, None, 4096).verify()
    assert (verdict.records, verdict.faults) == (240, ())
    assert verdict.files > 1


def test_a_key_that_is_short_or_readable_by_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content, mode, words in ((b"short", 0o600, "32 bytes"), (KEY, 0o644, "others may read")):
        path.write_bytes(content)
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match=words):
            read_key(path)
    with pytest.raises(ConfigurationError, match="absent"):
        read_key(tmp_path / "absent")
    path.write_bytes(KEY)
    path.chmod(0o600)
    assert read_key(path) == KEY
    assert read_key(None) is None


def test_records_are_on_the_disk_before_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    trail = Trail(tmp_path, None, 1 << 20, time.time)
    trail.append(["<A/>"])
    assert synced[-3:] == [str(trail.files()[0]), str(tmp_path), str(tmp_path / HEAD)]
