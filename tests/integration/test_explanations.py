"""Results explained on their images by a running node: what follows the report into a real Orthanc, and what it shows.

One node, one PACS that takes everything, and an archive that takes single-frame pages alone. What an explanation says
is tested in `test_explanation.py` and `test_heat_map.py`, the pages in `test_pages.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.explanations import ExplanationView
from dicom_node.jobs.tables import deliveries, explanations
from prima_core import key_slices
from support.command_line import Cli
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study
from support.orthanc import ORTHANC_AE, Orthanc
from support.peers import free_port
from support.reports import dump, errors_of

pytestmark = [pytest.mark.peers, pytest.mark.slow]

EVERYTHING = ["sr", "sc", "kos", "seg"]
FINDINGS = 2


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> Iterator[tuple[Node, Orthanc, Archive]]:
    folder = tmp_path_factory.mktemp("house")
    port = free_port()
    with Orthanc(folder / "pacs", port) as pacs, Archive(folder / "archive") as archive:
        goals = [
            destination("pacs", ORTHANC_AE, pacs.port) | {"objects": EVERYTHING},
            destination("small", AE_TITLE, archive.port) | {"objects": ["sc"], "secondary_capture": "single_frame"},
        ]
        explanation = {"findings": FINDINGS, "samples": 32, "series": 1, "slices": 2}
        with Node(folder, random_bundle, destinations=goals, node={"port": port}, explanation=explanation) as node:
            yield node, pacs, archive


@pytest.fixture(scope="module")
def study(house: tuple[Node, Orthanc, Archive]) -> tuple[str, list[Dataset]]:
    """A study that was sent, reported and explained: its UID and its images."""
    node, _, _ = house
    images = small_study(StudyFacts())
    uid = str(images[0].StudyInstanceUID)
    assert set(send(node.port, images)) == {0}
    node.wait_for_state(uid, "delivered")
    node.wait(lambda: explained(node, uid), "the result is explained")
    node.wait(lambda: {row.state for row in node.rows(deliveries)} == {"delivered"}, "everything is delivered")
    return uid, images


def explained(node: Node, uid: str) -> ExplanationView | None:
    found = node.registry.explanation(node.study(uid).id)
    return found if found is not None and found.state != "pending" else None


def objects(pacs: Orthanc, uid: str, folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Modality → Orthanc's name and the file of every object that is no image of the study."""
    return {
        modality: [(one, pacs.download(one, folder / f"{one}.dcm")) for one in pacs.instances(uid, modality)]
        for modality in ("SR", "OT", "KO", "SEG")
    }


def test_all_that_explains_a_result_follows_its_report(
    house: tuple[Node, Orthanc, Archive], study: tuple[str, list[Dataset]], tmp_path: Path
) -> None:
    node, pacs, _ = house
    uid, images = study
    view = explained(node, uid)
    assert view is not None
    assert (view.state, view.note) == ("done", None)
    assert 1 <= len({one["finding"] for one in view.document}) <= FINDINGS, (
        "those for which something in the images speaks"
    )
    found = objects(pacs, uid, tmp_path)
    assert {modality: len(of) for modality, of in found.items()} == {
        "SR": 2,
        "OT": 1,
        "KO": 1,
        "SEG": len({one["series_instance_uid"] for one in view.document}),
    }
    documents = {path: dcmread(path) for of in found.values() for _, path in of}
    for path, document in documents.items():
        assert errors_of(path) == []
        assert document.PatientName == images[0].PatientName
        assert "NOT FOR CLINICAL USE" in document.SeriesDescription
    assert Counter(document.SOPClassUID for document in documents.values()) == {
        Comprehensive3DSRStorage: 2,
        MultiFrameTrueColorSecondaryCaptureImageStorage: 1,
        KeyObjectSelectionDocumentStorage: 1,
        SegmentationStorage: len(found["SEG"]),
    }
    shown = {one["sop_instance_uid"] for of in view.document for one in of["key_images"]}
    [key_objects] = (document for document in documents.values() if document.Modality == "KO")
    evidence = key_objects.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for one in evidence for item in one.ReferencedSOPSequence} == shown


def test_the_plain_report_went_out_first_and_is_the_explained_ones_predecessor(
    house: tuple[Node, Orthanc, Archive], study: tuple[str, list[Dataset]], tmp_path: Path
) -> None:
    node, pacs, _ = house
    uid, _ = study
    reports = {str(dcmread(path).SOPInstanceUID): path for _, path in objects(pacs, uid, tmp_path)["SR"]}
    plain = reports.pop(node.study(uid).report_uid or "")
    [(explained_uid, path)] = reports.items()
    [predecessor] = dcmread(path).PredecessorDocumentsSequence
    [series] = predecessor.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dcmread(plain).SOPInstanceUID
    assert "LIME, 32 samples, seed 0" in dump(path)
    assert "Image Library" in dump(path)
    assert "Image Library" not in dump(plain)
    sent = [row for row in node.rows(deliveries) if row.destination == "pacs"]
    sent.sort(key=lambda row: row.id)
    assert sent[0].kind == "sr"
    assert sent[0].delivered_at < min(row.delivered_at for row in sent[1:])
    [row] = node.rows(explanations)
    assert row.report_uid == explained_uid


def test_the_pacs_shows_the_pages_as_they_were_drawn(
    house: tuple[Node, Orthanc, Archive], study: tuple[str, list[Dataset]], tmp_path: Path
) -> None:
    _, pacs, archive = house
    uid, _ = study
    [(name, path)] = objects(pacs, uid, tmp_path)["OT"]
    pages = dcmread(path).pixel_array
    assert pages.shape[1:] == (1024, 1024, 3)
    assert len(pages) > 1
    for number, page in enumerate(pages):
        np.testing.assert_array_equal(np.asarray(pacs.rendered(name, number).convert("RGB")), page)
    single = [dcmread(one) for one in archive.folder.glob("*.dcm")]
    assert {one.SOPClassUID for one in single} == {SecondaryCaptureImageStorage}
    single.sort(key=lambda one: int(one.InstanceNumber))
    np.testing.assert_array_equal(np.stack([one.pixel_array for one in single]), pages)


def test_regions_lie_in_the_sources_frame_of_reference(
    house: tuple[Node, Orthanc, Archive], study: tuple[str, list[Dataset]], tmp_path: Path
) -> None:
    _, pacs, _ = house
    uid, images = study
    by_uid = {str(image.SOPInstanceUID): image for image in images}
    for _, path in objects(pacs, uid, tmp_path)["SEG"]:
        regions = dcmread(path)
        assert regions.FrameOfReferenceUID == images[0].FrameOfReferenceUID
        assert regions.pixel_array.any()
        for frame in regions.PerFrameFunctionalGroupsSequence:
            [reference] = frame.DerivationImageSequence[0].SourceImageSequence
            source = by_uid[reference.ReferencedSOPInstanceUID]
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            np.testing.assert_allclose(position, source.ImagePositionPatient, atol=1e-6)


def test_a_finding_is_explained_again_offline(
    house: tuple[Node, Orthanc, Archive], study: tuple[str, list[Dataset]], tmp_path: Path
) -> None:
    node, _, _ = house
    uid, _ = study
    view = explained(node, uid)
    assert view is not None
    finding = view.document[0]["finding"]
    done = node.cli("explain", uid, "--finding", finding, "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    [one] = json.loads(done.stdout)["series"]
    files = [Path(name) for name in one.pop("files")]
    told = view.document[0]
    assert {name: one[name] for name in ("finding", "series", "method", "key_images")} == {
        name: told[name] for name in ("finding", "series", "method", "key_images")
    }
    for name in ("share", "fit", "strongest"):  # but for the last bits, which the number of threads changes
        assert one[name] == pytest.approx(told[name], rel=1e-3)
    heat = sitk.GetArrayFromImage(sitk.ReadImage(str(files[0])))
    assert heat.max() == pytest.approx(one["strongest"], rel=1e-6)
    assert all(Image.open(path).size == (1024, 1024) for path in files[1:])
    assert len(files) == 1 + len(one["key_images"])
    unknown = node.cli("explain", uid, "--finding", "no_such_thing", "--out", str(tmp_path / "out"))
    assert unknown.returncode == 1
    assert "has no diagnosis 'no_such_thing'" in unknown.stderr


def test_a_finding_for_which_nothing_can_be_singled_out_is_named(
    house: tuple[Node, Orthanc, Archive],
    study: tuple[str, list[Dataset]],
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the model answers, no slice speaks for it: the rest of the command is as it is."""
    node, _, _ = house
    uid, _ = study
    view = explained(node, uid)
    assert view is not None
    finding = view.document[0]["finding"]
    really = key_slices.explain
    silent = lambda *given: [replace(one, key=()) for one in really(*given)]  # noqa: E731
    where = ("explain", uid, "--config", node.config, "--out", tmp_path / "out", "--method", "gradient")
    words = f"nothing in the images could be singled out for {finding}"
    assert words not in cli(*where, "--finding", finding).err
    monkeypatch.setattr(key_slices, "explain", silent)
    done = cli(*where, "--finding", finding)
    assert done.code == 0
    assert words in " ".join(done.err.split())
    assert finding in done.out, "its heat map is written all the same"
