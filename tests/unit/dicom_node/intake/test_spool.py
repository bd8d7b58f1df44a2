"""The spool: what is written is durable, private, never overwritten, and enough to rebuild the registry's row."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.base.errors import DiskFull, NotDicom
from dicom_node.base.types import Arrival
from dicom_node.intake.identity import read_identity
from dicom_node.intake.spool import Spool, arrival_of, spool_path
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.spool import put

BOUND = 1 << 26


def data_set() -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, mr_slices(head_phantom(1, 16, 16), StudyFacts())[0])
    return buffer.getvalue()


def arrival_for(data: bytes, *, urgent: bool = False) -> Arrival:
    return arrival_of(
        read_identity(BytesIO(data), ExplicitVRLittleEndian, BOUND),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        digest=hashlib.sha256(data).hexdigest(),
        size=len(data),
        calling_ae="SENDER",
        urgent=urgent,
        received_at=1700000000.25,
        association_id="a" * 32,
    )


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


def files_in(spool: Spool) -> list[str]:
    return [path.relative_to(spool.folder).as_posix() for path in spool.folder.rglob("*") if path.is_file()]


def test_the_bytes_are_kept_as_received_behind_a_dicom_file_header(spool: Spool) -> None:
    data = data_set()
    arrival = arrival_for(data)
    put(spool, arrival, data)
    stored = (spool.folder / arrival.path).read_bytes()
    assert stored.endswith(data)
    assert dcmread(BytesIO(stored)).file_meta.SourceApplicationEntityTitle == "SENDER"


@pytest.mark.parametrize("urgent", [False, True])
def test_a_file_alone_gives_its_arrival_back(spool: Spool, urgent: bool) -> None:
    data = data_set()
    arrival = arrival_for(data, urgent=urgent)
    put(spool, arrival, memoryview(data))
    assert spool.read(arrival.path, BOUND) == arrival
    assert list(spool.paths()) == [arrival.path]


def test_files_and_folders_are_private(spool: Spool) -> None:
    data = data_set()
    arrival = arrival_for(data)
    put(spool, arrival, data)
    file = spool.folder / arrival.path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_file_and_both_folders_are_synced_before_write_returns(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_set()
    arrival = arrival_for(data)
    synced: list[str] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append("file" if os.path.isfile(target) else os.path.relpath(target, spool.folder))
        assert (spool.folder / arrival.path).exists() == (synced[-1] == arrival.study_id)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    put(spool, arrival, data)
    assert synced == [".", "file", arrival.study_id]


def test_the_same_content_again_leaves_the_first_file_alone(spool: Spool) -> None:
    data = data_set()
    arrival = arrival_for(data)
    put(spool, arrival, data)
    before = (spool.folder / arrival.path).stat()
    put(spool, arrival, data)
    after = (spool.folder / arrival.path).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert files_in(spool) == [arrival.path]


def test_other_content_under_the_same_uid_is_another_file(spool: Spool) -> None:
    first = data_set()
    second = first[:-2] + b"\1\2"
    for data in (first, second):
        put(spool, arrival_for(data), data)
    assert len(list(spool.paths())) == 2
    assert (spool.folder / arrival_for(first).path).read_bytes().endswith(first)


def test_no_text_from_the_network_becomes_a_path() -> None:
    path = spool_path("../../etc", "../passwd", hashlib.sha256(b"").hexdigest())
    assert ".." not in path
    assert path.count("/") == 1


@pytest.mark.parametrize("call", ["fsync", "open", "rename"])
def test_a_full_disk_leaves_nothing_behind(spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    data = data_set()

    def full(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(DiskFull, match="No space left"):
            put(spool, arrival_for(data), data)
    assert files_in(spool) == []
    put(spool, arrival_for(data), data)
    assert spool.read(arrival_for(data).path, BOUND) == arrival_for(data)


def test_a_new_start_removes_half_written_files_only(spool: Spool) -> None:
    data = data_set()
    put(spool, arrival_for(data), data)
    (spool.folder / ".incoming" / "left").write_bytes(data[:100])
    Spool(spool.folder).prepare()
    assert files_in(spool) == [arrival_for(data).path]


def test_a_folder_that_was_cleaned_away_is_made_again(spool: Spool) -> None:
    data = data_set()
    arrival = arrival_for(data)
    put(spool, arrival, data)
    (spool.folder / arrival.path).unlink()
    (spool.folder / arrival.study_id).rmdir()
    put(spool, arrival, data)
    assert spool.read(arrival.path, BOUND) == arrival


def test_nothing_is_placed_in_a_folder_that_is_cleaned_away_meanwhile(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_set()
    arrival = arrival_for(data)
    real = os.rename

    def cleaned(source: str, name: str, *, dst_dir_fd: int) -> None:
        monkeypatch.undo()
        (spool.folder / arrival.study_id).rmdir()
        (spool.folder / arrival.study_id).mkdir()  # by another, who did not sync it yet
        real(source, name, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", cleaned)
    with pytest.raises(DiskFull):
        put(spool, arrival, data)
    assert files_in(spool) == []
    put(spool, arrival, data)
    assert spool.read(arrival.path, BOUND) == arrival


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "text", "renamed", "note"])
def test_a_damaged_file_is_recognised(spool: Spool, damage: str) -> None:
    data = data_set()
    arrival = arrival_for(data)
    put(spool, arrival, data)
    file = spool.folder / arrival.path
    content = file.read_bytes()
    path = arrival.path
    if damage == "truncated":
        file.write_bytes(content[:-50])
    elif damage == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("not an image")
    elif damage == "note":
        file.write_bytes(content.replace(b'"urgent"', b'"urgenT"'))
    else:
        path = path.replace(".dcm", "0.dcm")
        file.rename(spool.folder / path)
    with pytest.raises(NotDicom):
        spool.read(path, BOUND)
    spool.set_aside(path)
    assert list(spool.paths()) == []
    assert len(list((spool.folder / ".unreadable").iterdir())) == 1


def test_a_file_that_the_disk_does_not_give_is_not_taken_for_damaged(spool: Spool) -> None:
    with pytest.raises(OSError, match="No such file"):
        spool.read("abc/def.dcm", BOUND)


def test_the_header_length_on_disk_is_what_the_standard_says(spool: Spool) -> None:
    data = data_set()
    arrival = arrival_for(data)
    put(spool, arrival, data)
    stored = (spool.folder / arrival.path).read_bytes()
    assert len(stored) == 132 + 12 + struct.unpack_from("<L", stored, 140)[0] + arrival.size
