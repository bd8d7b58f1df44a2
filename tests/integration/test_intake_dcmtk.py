"""Intake with DCMTK as the peer: Verification, every transfer syntax it can make, refusals, aborts, limits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000, JPEG2000Lossless, generate_uid
from pynetdicom import AE

from dicom_node.jobs.tables import associations, studies
from support.dicom_factory import StudyFacts, head_phantom, mr_slices, write
from support.peers import AE_TITLE, CLIENT, receiver, run_dcmtk, store, wait_until

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("storing")]


@dataclass(frozen=True)
class Coding:
    """A transfer syntax and how a test image gets into it."""

    uid: str
    make: Callable[[Path, Path], None]


def converted(tool: str, *options: str) -> Callable[[Path, Path], None]:
    def make(plain: Path, coded: Path) -> None:
        done = run_dcmtk(tool, *options, plain, coded)
        assert done.returncode == 0, done.stdout

    return make


def compressed(syntax: str, **options: object) -> Callable[[Path, Path], None]:
    def make(plain: Path, coded: Path) -> None:
        image = dcmread(plain)
        image.compress(syntax, generate_instance_uid=False, **options)
        image.save_as(coded)

    return make


CODINGS = {
    "implicit": Coding("1.2.840.10008.1.2", converted("dcmconv", "+ti")),
    "explicit": Coding("1.2.840.10008.1.2.1", converted("dcmconv", "+te")),
    "big endian": Coding("1.2.840.10008.1.2.2", converted("dcmconv", "+tb")),
    "deflated": Coding("1.2.840.10008.1.2.1.99", converted("dcmconv", "+td")),
    "rle": Coding("1.2.840.10008.1.2.5", converted("dcmcrle")),
    "jpeg baseline": Coding("1.2.840.10008.1.2.4.50", converted("dcmcjpeg", "+eb")),
    "jpeg extended": Coding("1.2.840.10008.1.2.4.51", converted("dcmcjpeg", "+ee")),
    "jpeg lossless": Coding("1.2.840.10008.1.2.4.57", converted("dcmcjpeg", "+el")),
    "jpeg lossless sv1": Coding("1.2.840.10008.1.2.4.70", converted("dcmcjpeg", "+e1")),
    "jpeg-ls": Coding("1.2.840.10008.1.2.4.80", converted("dcmcjpls", "+el")),
    "jpeg-ls lossy": Coding("1.2.840.10008.1.2.4.81", converted("dcmcjpls", "+en")),
    "jpeg 2000": Coding("1.2.840.10008.1.2.4.90", compressed(JPEG2000Lossless)),
    "jpeg 2000 lossy": Coding("1.2.840.10008.1.2.4.91", compressed(JPEG2000, j2k_psnr=[80])),
}
#: One transfer syntax alone, so that the sender has no other to fall back to.
PROFILE = r"""
[[TransferSyntaxes]]
[Only]
TransferSyntax1 = {uid}
[[PresentationContexts]]
[Images]
PresentationContext1 = MRImageStorage\Only
[[Profiles]]
[Default]
PresentationContexts = Images
"""
LOSSY = {"jpeg baseline", "jpeg extended", "jpeg-ls lossy", "jpeg 2000 lossy"}


def plain_image(folder: Path) -> Path:
    return write(mr_slices(head_phantom(1), StudyFacts())[0], folder / "plain.dcm")


def test_echo_is_answered(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        done = run_dcmtk("echoscu", "-v", "-aec", AE_TITLE, "127.0.0.1", node.port)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", CODINGS)
def test_an_image_arrives_in_every_transfer_syntax_and_can_be_decoded(tmp_path: Path, name: str) -> None:
    coding = CODINGS[name]
    plain, coded = plain_image(tmp_path), tmp_path / "coded.dcm"
    coding.make(plain, coded)
    profile = tmp_path / "profile.cfg"
    profile.write_text(PROFILE.format(uid=coding.uid))
    with receiver(tmp_path) as node:
        done = store(node.port, [coded], "-xf", str(profile), "Default")
        assert done.returncode == 0, done.stdout
        assert node.standings() == {"current": 1}
        (row,) = node.rows()
        stored = dcmread(node.spool.folder / row.path)
    assert row.transfer_syntax_uid == stored.file_meta.TransferSyntaxUID == coding.uid
    assert np.array_equal(stored.pixel_array, dcmread(coded).pixel_array)
    difference = np.abs(stored.pixel_array.astype(int) - dcmread(plain).pixel_array).max()
    assert difference == 0 if name not in LOSSY else difference < 900


def test_a_wrong_called_title_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        done = store(node.port, [plain_image(tmp_path)], called="WRONG")
        assert done.returncode != 0
        assert "Called AE Title Not Recognized" in done.stdout
        assert node.rows() == []
        assert node.rows(associations) == []


def test_only_listed_peers_are_let_in(tmp_path: Path) -> None:
    with receiver(tmp_path, peers=[{"ae_title": "FRIEND", "address": "127.0.0.1"}]) as node:
        image = plain_image(tmp_path)
        stranger = store(node.port, [image])
        assert stranger.returncode != 0
        assert "Calling AE Title Not Recognized" in stranger.stdout
        assert node.rows() == []
        assert store(node.port, [image], "-aet", "FRIEND").returncode == 0
        assert node.standings() == {"current": 1}


def test_a_listed_title_from_another_address_is_not_let_in(tmp_path: Path) -> None:
    with receiver(tmp_path, peers=[{"ae_title": "FRIEND", "address": "192.0.2.1"}]) as node:
        done = store(node.port, [plain_image(tmp_path)], "-aet", "FRIEND")
        assert "Calling AE Title Not Recognized" in done.stdout
        assert node.rows() == []


def test_associations_above_the_limit_are_refused_for_now(tmp_path: Path) -> None:
    with receiver(tmp_path, max_associations=1) as node:
        holder = AE("HOLDER")
        holder.add_requested_context("1.2.840.10008.1.1")
        held = holder.associate("127.0.0.1", node.port, ae_title=AE_TITLE, evt_handlers=CLIENT)
        assert held.is_established
        done = run_dcmtk("echoscu", "-v", "-aec", AE_TITLE, "127.0.0.1", node.port)
        assert "Local Limit Exceeded" in done.stdout
        assert "Transient" in done.stdout
        held.release()

        def echoed() -> bool:
            return run_dcmtk("echoscu", "-aec", AE_TITLE, "127.0.0.1", node.port).returncode == 0

        wait_until(echoed, "the place is free again")


def test_what_was_acknowledged_before_an_abort_is_kept_and_the_association_closed(tmp_path: Path) -> None:
    images = [
        write(image, tmp_path / f"{number}.dcm")
        for number, image in enumerate(mr_slices(head_phantom(5, 32, 32), StudyFacts()))
    ]
    with receiver(tmp_path) as node:
        done = store(node.port, images, "--abort")
        assert done.stdout.count("Received Store Response (Success)") == 5
        assert node.standings() == {"current": 5}
        (association,) = node.rows(associations)
        assert association.calling_ae == "STORESCU"
        (study,) = node.rows(studies)
        assert study.state == "receiving"


def test_several_senders_at_once(tmp_path: Path) -> None:
    groups = []
    for sender in range(4):
        images = mr_slices(head_phantom(10, 32, 32), StudyFacts(patient_id=f"P{sender}"))
        groups.append([write(image, tmp_path / f"s{sender}" / f"{n}.dcm") for n, image in enumerate(images)])
    with receiver(tmp_path) as node, ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda files: store(node.port, files), groups))
        assert [result.returncode for result in done] == [0] * 4
        assert node.standings(after=4) == {"current": 40}
        assert len(node.rows(studies)) == 4


def test_private_and_retired_storage_classes_are_taken_as_bystanders(tmp_path: Path) -> None:
    image = mr_slices(head_phantom(1, 16, 16), StudyFacts())[0]
    with receiver(tmp_path) as node:
        for sop_class in ("1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.9", "1.2.840.10008.5.1.4.1.1.88.33"):
            other = copy.deepcopy(image)
            other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop_class
            other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            file = write(other, tmp_path / "other.dcm")
            done = run_dcmtk("dcmsend", "-v", "-aec", AE_TITLE, "127.0.0.1", node.port, file)
            assert done.returncode == 0, done.stdout
        assert node.standings(after=3) == {"other": 3}
