"""A study's life after its first report: late series, corrected patient, rejected images; node, Orthanc and RIS.

Orthanc is the archive that forwards whole studies and gets the node's objects. What it does and does not do:
- It keeps objects that a rejection note names, and shows them as before: IOCM is unknown to it. So the test asserts
  that the notes are there and what they name, not that anything is hidden.
- Without `OverwriteInstances` it ignores what comes again under a known SOP Instance UID, so it never holds the
  corrected images: they reach the node from another sender, as from an archive that corrects. Whenever its study is
  stable again Orthanc forwards the images as they were before the correction; the node must not fall back to them.
- To it, the same Study Instance UID under another patient is a second study.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from dicom_node.base.events import Event
from dicom_node.base.types import Rejection
from dicom_node.jobs.tables import results
from dicom_node.jobs.views import StudyView
from support.dicom_factory import StudyFacts, write
from support.hl7_peers import ScriptedPeer
from support.node import Node, destination, evidence, send, small_study
from support.orthanc import ORTHANC_AE, Orthanc
from support.peers import free_port
from support.priorities import URGENT, accept, told_orders
from support.rejections import corrected, named, patient, rejection_note
from support.reports import errors_of

pytestmark = [pytest.mark.peers, pytest.mark.slow]

NAMES = ("AX FLAIR", "SAG T1", "COR T2", "AX T1")
WRONG = StudyFacts(accession_number="A1")
RIGHT = StudyFacts(
    study_uid=WRONG.study_uid, patient_id="TEST0002", patient_name="Other^Person", birth_date="19600606",
    accession_number="A2",
)  # fmt: skip
UID = WRONG.study_uid


class House:
    """The node, its archive, its RIS, and what the archive holds of the study."""

    def __init__(self, node: Node, pacs: Orthanc, ris: ScriptedPeer, folder: Path) -> None:
        self.node, self.pacs, self.ris, self._folder = node, pacs, ris, folder

    def objects(self, modality: str) -> dict[str, Dataset]:
        """SOP Instance UID → object, of what the archive has of the study; the node's are valid."""
        found = {}
        for instance in self.pacs.instances(UID, modality):
            path = self.pacs.download(instance, self._folder / f"{instance}.dcm")
            assert modality == "MR" or errors_of(path) == []
            document = dcmread(path)
            found[str(document.SOPInstanceUID)] = document
        return found

    def delivered(self, revision: int) -> tuple[StudyView, Dataset]:
        """The study and its report, once that is in the archive."""
        study = self.node.wait_for_state(UID, "delivered", revision=revision)
        assert study.report_uid is not None
        return study, self.objects("SR")[study.report_uid]

    def notes(self, count: int) -> list[Dataset]:
        """The node's rejection notes in the archive, once there are so many."""

        def there() -> list[Dataset]:
            written = [note for note in self.objects("KO").values() if "prima-node" in str(note.SoftwareVersions)]
            return written if len(written) >= count else []

        notes = self.node.wait(there, f"{count} rejection notes are in the archive")
        assert len(notes) == count
        return notes

    def quiet(self) -> None:
        """Wait until the archive has forwarded everything that it has, and the node has recorded it."""
        held = len([*self.pacs.instances(UID, "SR"), *self.pacs.instances(UID, "KO"), *self.pacs.instances(UID, "MR")])
        self.pacs.wait(lambda: sum(self.pacs.last_forwarded(UID)) == held, "the archive forwarded all it has")

    def history(self) -> list[tuple[int, str]]:
        study = self.node.study(UID)
        return [(event.revision, event.to_state) for event in self.node.registry.history(study.id)]


def predecessors(document: Dataset) -> list[str]:
    return [
        str(reference.ReferencedSOPInstanceUID)
        for study in document.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    ]


def title(note: Dataset) -> tuple[str, str]:
    concept = note.ConceptNameCodeSequence[0]
    return str(concept.CodeValue), str(concept.CodeMeaning)


def uids(images: list[Dataset]) -> set[str]:
    return {str(image.SOPInstanceUID) for image in images}


def test_whatever_changes_after_the_report_leaves_nothing_wrong_standing(tmp_path: Path, random_bundle: Path) -> None:
    images = small_study(WRONG, names=NAMES)
    half, files = len(images) // 2, [write(image, tmp_path / f"{n}.dcm") for n, image in enumerate(images)]
    port, hl7_port = free_port(), free_port()
    sections: dict[str, dict[str, Any]] = {
        "node": {"port": port},
        "worklist": {"allow_nonclinical": True},
        "worklist.mapping": URGENT,
        "hl7": {"port": hl7_port},
    }
    with ScriptedPeer(accept) as ris, Orthanc(tmp_path / "pacs", port) as pacs:
        goals = [
            destination("pacs", ORTHANC_AE, pacs.port),
            {"name": "ris", "kind": "hl7", "host": "127.0.0.1", "port": ris.port, "first_retry_seconds": 0.2},
        ]
        with Node(tmp_path / "node", random_bundle, destinations=goals, **sections) as node:
            house = House(node, pacs, ris, tmp_path)
            told_orders(hl7_port, WRONG, RIGHT)

            # Half of the series, then the rest: a revision that names its predecessor.
            pacs.upload(files[:half])
            first, report = house.delivered(1)
            assert evidence(report) == uids(images[:half])
            pacs.upload(files[half:])
            second, report = house.delivered(2)
            assert evidence(report) == uids(images)
            assert predecessors(report) == [first.report_uid]
            assert report.PatientID == WRONG.patient_id

            # All of it once more: nothing.
            house.quiet()
            before = house.history()
            assert set(send(node.port, images)) == {0}
            assert house.history() == before
            assert [row.sop_instance_uid for row in node.rows(results)] == [first.report_uid, second.report_uid]

            # The patient and the order were wrong. All but one image come again.
            right = corrected(images, **patient(RIGHT))
            assert set(send(node.port, right[:-1])) == {0}
            node.wait(lambda: any(row.withdrawn_at for row in node.rows(results)), "results are withdrawn")
            os.kill(node.pid("scheduler"), signal.SIGKILL)  # wherever it was with the rest
            third, report = house.delivered(3)
            assert (report.PatientID, report.PatientName, report.AccessionNumber) == ("TEST0002", "Other^Person", "A2")
            assert evidence(report) == uids(right[:-1]), "the image that was not sent again is still the other person's"
            assert (report.CompletionFlag, predecessors(report)) == ("PARTIAL", [second.report_uid])
            notes = house.notes(2)
            assert {title(note) for note in notes} == {("113038", "Incorrect Modality Worklist Entry")}
            assert {str(note.PatientID) for note in notes} == {WRONG.patient_id}, "as they were sent"
            assert {str(note.AccessionNumber) for note in notes} == {"A1"}
            assert sorted(map(sorted, map(named, notes))) == sorted([[first.report_uid], [second.report_uid]])
            assert {instance.PatientID for instance in house.objects("MR").values()} == {WRONG.patient_id}

            # The archive forwards the images as it has them. They are old.
            house.quiet()
            assert node.study(UID).revision == 3
            standings = node.registry.standings(third.id)
            assert (standings["current"], standings["uncorrected"]) == (len(images) - 1, 1)
            assert standings["superseded"] == len(images) - 1
            assert any(line["number"] == Event.OLD_VERSION_CAME.number for line in node.log_lines())

            # The last image comes as well.
            assert set(send(node.port, right[-1:])) == {0}
            fourth, report = house.delivered(4)
            assert (report.CompletionFlag, predecessors(report)) == ("COMPLETE", [third.report_uid])
            assert evidence(report) == uids(images)
            house.notes(2)

            # A series is rejected, then everything.
            some = right[: len(right) // 4]
            assert set(send(node.port, [rejection_note(some, Rejection.QUALITY)])) == {0}
            fifth, report = house.delivered(5)
            assert evidence(report) == uids(right) - uids(some)
            assert predecessors(report) == [fourth.report_uid]
            notes = [note for note in house.notes(4) if title(note)[0] == "113001"]
            assert {uid for note in notes for uid in named(note)} == {third.report_uid, fourth.report_uid}
            assert {str(note.PatientID) for note in notes} == {RIGHT.patient_id}
            assert set(send(node.port, [rejection_note(right, Rejection.SAFETY)])) == {0}
            node.wait(lambda: node.study(UID).revision == 6, "the study was opened again")
            ended = node.wait(
                lambda: study if (study := node.study(UID)).state == "out_of_scope" else None, "nothing is left"
            )
            assert "no image of the study is left" in (ended.reason or "")
            [note] = [note for note in house.notes(5) if title(note)[0] == "113037"]
            assert named(note) == {fifth.report_uid}
            assert len(house.objects("SR")) == 5
            assert [row.withdrawn_at is not None for row in node.rows(results)] == [True] * 5

            # Each priority went to the order of its time, and was taken back there.
            node.wait(lambda: len(told(ris)) >= 6, "the RIS was told everything")
            orders = [(fields["ORC"][2], fields["ORC"][7].split("^")[5]) for fields in told(ris)]
            assert orders == [("PLA1", "A"), ("PLA1", "R"), ("PLA2", "A"), ("PLA2", "R"), ("PLA2", "A"), ("PLA2", "R")]

            shown = json.loads(node.cli("study", UID, "--json").stdout)
            assert (shown["state"], shown["priority"], shown["findings"]) == ("out_of_scope", None, [])
            assert [former["revision"] for former in shown["former_results"]] == [1, 2, 3, 4, 5]
            listed = json.loads(node.cli("worklist", "--json").stdout)
            assert [(entry["priority"]["level"], entry["findings"]) for entry in listed] == [("routine", [])]


def told(ris: ScriptedPeer) -> list[dict[str, list[str]]]:
    """What the RIS got, as segment → fields. What a killed sender could not note comes again, as the same message."""
    messages = [
        {line.split("|")[0]: line.split("|") for line in message.decode().split("\r") if line}
        for message in ris.received
    ]
    first: dict[str, dict[str, list[str]]] = {}
    for fields in messages:
        first.setdefault(fields["MSH"][9], fields)  # MSH-10, message control id
    return list(first.values())
