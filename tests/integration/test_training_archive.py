"""Studies for training from the real Orthanc: by C-MOVE to our own storage SCP, and over its DICOMweb plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.dicom_factory import StudyFacts, write_study
from support.orthanc import ORTHANC_AE, Orthanc
from support.peers import AE_TITLE, free_port
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.prepare.archive import Archive
from training.prepare.c_move import DimseArchive
from training.prepare.dicom_folder import DicomFolder
from training.prepare.run import fill_store
from training.prepare.store import TokenStore
from training.prepare.wado import WebArchive

pytestmark = pytest.mark.peers

KEY = Pseudonyms(b"o" * 32)
PLUGIN = "libOrthancDicomWeb.so"
PLUGIN_FOLDERS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
STUDIES = [StudyFacts(accession_number=f"ACC{number}", patient_id=f"P{number}") for number in range(3)]


class StillOrthanc(Orthanc):
    """An Orthanc that forwards nothing by itself, with the DICOMweb plugin where there is one."""

    def __init__(self, folder: Path, node_port: int) -> None:
        super().__init__(folder, node_port)
        self.node_port = node_port
        path = folder / "orthanc.json"
        settings = json.loads(path.read_text())
        self.plugin = next((p for p in (Path(f, PLUGIN) for f in PLUGIN_FOLDERS) if p.exists()), None)
        settings |= {"LuaScripts": [], "Plugins": [str(self.plugin)] if self.plugin else []}
        settings["DicomWeb"] = {"Enable": self.plugin is not None, "Root": "/dicom-web/"}
        path.write_text(json.dumps(settings))
        self.url = f"http://127.0.0.1:{settings['HttpPort']}/dicom-web"


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uploaded")
    for number, study in enumerate(STUDIES):
        write_study(folder / str(number), study)
    return folder


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, uploaded: Path) -> Iterator[StillOrthanc]:
    with StillOrthanc(tmp_path_factory.mktemp("archive") / "pacs", free_port()) as pacs:
        pacs.upload(sorted(uploaded.rglob("*.dcm")))
        yield pacs


@pytest.fixture
def dimse(pacs: StillOrthanc) -> DimseArchive:
    return DimseArchive(ORTHANC_AE, "127.0.0.1", pacs.port, AE_TITLE, pacs.node_port)


def assert_same_as_from_the_folder(store: Path, uploaded: Path, tmp_path: Path) -> None:
    fill_store(DicomFolder([uploaded], KEY), tmp_path / "expected", workers=0, quiet=True)
    found, expected = TokenStore(store), TokenStore(tmp_path / "expected")
    assert found.records == expected.records
    assert len(found) == 3
    for record in expected.records:
        np.testing.assert_array_equal(found.patches(record.study), expected.patches(record.study))


def test_studies_come_by_c_move_with_workers_taking_turns(dimse: DimseArchive, uploaded: Path, tmp_path: Path) -> None:
    source = Archive(dimse, KEY, [STUDIES[0].study_uid, "1.2.3.4"], ["ACC1", "ACC2", "ACC9"])
    result = fill_store(source, tmp_path / "store", workers=2, quiet=True)
    assert (result.stored, sum(result.refused.values())) == (3, 1)
    assert_same_as_from_the_folder(tmp_path / "store", uploaded, tmp_path)


def test_studies_come_over_dicomweb(pacs: StillOrthanc, uploaded: Path, tmp_path: Path) -> None:
    if pacs.plugin is None:
        pytest.skip(f"Orthanc's {PLUGIN} is not installed (apt install orthanc-dicomweb)")
    source = Archive(WebArchive(pacs.url), KEY, [STUDIES[0].study_uid, "1.2.3.4"], ["ACC1", "ACC2", "ACC9"])
    result = fill_store(source, tmp_path / "store", workers=0, quiet=True)
    assert (result.stored, sum(result.refused.values())) == (3, 1)
    assert_same_as_from_the_folder(tmp_path / "store", uploaded, tmp_path)


def test_an_archive_that_does_not_know_us_is_named(dimse: DimseArchive, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(BadTrainingData, match="refuses our AE title"):
        replace(dimse, ae_title="SOMEBODY").retrieve(STUDIES[0].study_uid, scratch)
    with pytest.raises(BadTrainingData, match=r"broke off|did not send the whole study"):
        replace(dimse, own_ae_title="STRANGER").retrieve(STUDIES[0].study_uid, scratch)
    assert not list(scratch.iterdir())
