"""A data set on its way and the disk's reserve: asked before bytes are written, and for each byte once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicom_node.base.disk import Reserve
from dicom_node.base.errors import DiskFull
from dicom_node.intake import incoming
from dicom_node.intake.file_header import HEADER_LENGTH
from dicom_node.intake.incoming import Incoming
from dicom_node.intake.registrar import Registrar
from dicom_node.intake.spool import Spool
from dicom_node.intake.storage import SUCCESS, Announcement, Peer, Storage
from dicom_node.intake.transit import Transit
from support.dicom_factory import StudyFacts, head_phantom, mr_slices

PART = 1000
RESERVE = 10 * PART
REGISTRAR = cast(Registrar, SimpleNamespace(admit=lambda: None, put=lambda _: None))


class SmallDisk(Reserve):
    """A disk of so many bytes on which there is nothing but one folder."""

    def __init__(self, folder: Path, capacity: int) -> None:
        super().__init__([folder], RESERVE)
        self.capacity = capacity

    def free(self) -> int:
        [folder] = self._folders
        return self.capacity - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large is so at once."""
    monkeypatch.setattr(incoming, "IN_MEMORY_BYTES", 2 * PART)
    monkeypatch.setattr(incoming, "ASKED_BYTES", 2 * PART)


def test_an_object_that_goes_to_a_file_stops_before_the_reserve(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path, 3 * RESERVE)
    data_set, least = Incoming(tmp_path, max_bytes=1 << 30, reserve=disk), disk.free()
    for _ in range(40):
        data_set.write(bytes(PART))
        least = min(least, disk.free())
    assert RESERVE - HEADER_LENGTH <= least < RESERVE + 5 * PART
    with pytest.raises(DiskFull, match="reserve"):
        data_set.check()
    assert list(tmp_path.iterdir()) == []


def test_what_lies_in_a_file_already_is_not_counted_once_more(tmp_path: Path) -> None:
    image = mr_slices(head_phantom(1, 64, 64), StudyFacts())[0]
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, image)
    data = buffer.getvalue()
    spool = Spool(tmp_path)
    spool.prepare()
    disk = SmallDisk(tmp_path, RESERVE + len(data) + 5 * PART)
    storage = Storage(spool, REGISTRAR, 1 << 30, Transit(1 << 30), disk)
    data_set = storage.incoming("SENDER")
    for start in range(0, len(data), PART):
        data_set.write(data[start : start + PART])
    uid = image.SOPInstanceUID
    announced = Announcement(1, MRImageStorage, uid, 0, MRImageStorage, ExplicitVRLittleEndian)
    assert storage.store(announced, data_set, Peer("a" * 32, "SENDER", "127.0.0.1")).status == SUCCESS
    assert len(list(spool.paths())) == 1
