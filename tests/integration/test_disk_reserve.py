"""A small disk: intake stops while there is room left for what was acknowledged, and goes on once there is more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE

from dicom_node.base.disk import reserve_of
from dicom_node.console.health import health_problems
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.peers import AE_TITLE, CLIENT, receiver

DISK = 16 << 20
RESERVE = 8 << 20
OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The node's storage folder, on a file system of its own."""
    storage = tmp_path / "node"
    storage.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(storage)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield storage
    subprocess.run(["umount", "-l", str(storage)], check=True)


def test_the_reserve_is_left_alone_and_intake_recovers_by_itself(tmp_path: Path, small_disk: Path) -> None:
    images = mr_slices(head_phantom(12, 512, 512), StudyFacts())  # half a MiB each
    filler = small_disk / "somebody-elses-file"
    filler.write_bytes(bytes(4 << 20))
    with receiver(tmp_path, reserve_bytes=RESERVE) as node:
        reserve = reserve_of(node.configuration)
        entity = AE("SENDER")
        entity.add_requested_context(images[0].SOPClassUID, images[0].file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", node.port, ae_title=AE_TITLE, evt_handlers=CLIENT)
        said = [association.send_c_store(image) for image in images]
        taken = [image for image, answer in zip(images, said, strict=True) if answer.Status == 0]
        assert {answer.Status for answer in said} == {0, OUT_OF_RESOURCES}
        assert "reserve" in said[-1].ErrorComment
        assert reserve.is_reached(1 << 20)
        assert reserve.free() > RESERVE - (2 << 20), "what is left is left to the registry and the reports"
        # What was acknowledged is recorded, and there is room to write a report of it.
        (small_disk / "report").write_bytes(bytes(4 << 20))
        assert any("reserve_bytes" in problem for problem in health_problems(node.registry, 0, reserve=reserve))
        filler.unlink()
        (small_disk / "report").unlink()
        assert not any("reserve_bytes" in problem for problem in health_problems(node.registry, 0, reserve=reserve))
        assert association.send_c_store(images[-1]).Status == 0
        association.release()
        assert node.standings() == {"current": len(taken) + 1}
