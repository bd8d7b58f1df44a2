"""The same worklist items, asked of the node and of Orthanc's worklist plugin with DCMTK's findscu, answer by answer.

The node answers from its registry; Orthanc 1.10.1 from `.wl` files of the same items. Each answer's attributes are
compared, all but Specific Character Set: Orthanc always names one, the node only where text outside ASCII needs it
(PS3.4 K.4.1.1.3.2). Where they differ in what matches, Orthanc's answer is in `DIFFERENCES`:

- a date range without a beginning: for Orthanc an item without a date lies before any other; for the node it has no
  date that could match (PS3.4 C.2.2.2.5);
- ranges of date and of time: Orthanc matches each alone; the node takes them as one range (K.6.1.2.2);
- empty value matching (C.2.2.2.7): Orthanc looks for the two quotation marks;
- a priority that a model that is not clinical raised: a file has it for every query; the node tells it only to a query
  that asks for Requested Procedure Comments, which say so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dicom_node.base.orders import RankedOrder
from dicom_node.base.types import Level
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.dicom.modality_worklist import MODALITY_WORKLIST, ModalityWorklist, item_of
from dicom_node.worklist.dicom.registry_orders import RegistryOrders
from prima_core.base.patient import patient_key_of
from support.orders import finish, placed, receive, tell
from support.peers import AE_TITLE, free_port, listening, run_dcmtk, wait_until
from support.studies import new_registry
from support.worklist_memory import order
from support.worklist_peers import served

pytestmark = pytest.mark.peers

PLUGIN = Path("/usr/share/orthanc/plugins/libModalityWorklists.so")
STEP = "ScheduledProcedureStepSequence[0]."
ACCESSION = "AccessionNumber"
#: Items: what is ordered, and the level and training state of the model that judged the study.
ITEMS = [
    (order("1", name="Müller^Jörg", scheduled_at="20260105083000", priority=Level.ROUTINE), Level.CRITICAL, "clinical"),
    (order("2", name="Muller^Anna", scheduled_at="20260106140000", station_ae="MR2"), Level.ELEVATED, "clinical"),
    (order("3", name="Doe^Jane", scheduled_at="20260107", modality="CT", sex="O"), None, ""),
    (order("4", name="Doe^John", scheduled_at="", station_ae="", priority=Level.ROUTINE, sex="M"), None, ""),
    (order("5", name="Roe^Jim", scheduled_at="20260109", priority=Level.ROUTINE), Level.URGENT, "phantom"),
]
RETURNED = [
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientWeight", "RequestedProcedureID"),
    *("RequestedProcedureDescription", "RequestedProcedurePriority", "RequestedProcedureComments", "StudyInstanceUID"),
    *("RequestedProcedureCodeSequence", "RequestingPhysician", "ReferringPhysicianName", f"{STEP}Modality"),
    *(f"{STEP}ScheduledStationAETitle", f"{STEP}ScheduledProcedureStepStartDate", f"{STEP}ScheduledProcedureStepID"),
    *(f"{STEP}ScheduledProcedureStepStartTime", f"{STEP}ScheduledProtocolCodeSequence", f"{STEP}PreMedication"),
]
QUERIES: dict[str, list[str]] = {
    "everything": [ACCESSION],
    "all return keys": [ACCESSION, *RETURNED],
    "accession number": ["AccessionNumber=A2", *RETURNED],
    "accession numbers by wild card": ["AccessionNumber=A?"],
    "no such accession number": ["AccessionNumber=A9"],
    "patient ID": [ACCESSION, "PatientID=ID3"],
    "name by wild card": [ACCESSION, "PatientName=D*^J?n*"],
    "name in small letters": [ACCESSION, "PatientName=doe^*"],
    "name with an umlaut, UTF-8": ["SpecificCharacterSet=ISO_IR 192", ACCESSION, "PatientName=MÜLLER*"],
    "name returned in Latin-1": ["SpecificCharacterSet=ISO_IR 100", "AccessionNumber=A1", "PatientName"],
    "birth date": [ACCESSION, "PatientBirthDate=19700101"],
    "sex": [ACCESSION, "PatientSex=F"],
    "list of UIDs": [ACCESSION, "StudyInstanceUID=1.2.3.1\\1.2.3.3"],
    "requested procedure": [ACCESSION, "RequestedProcedureID=P1"],
    "priority": [ACCESSION, "RequestedProcedurePriority=STAT"],
    "code": [ACCESSION, "RequestedProcedureCodeSequence[0].CodeValue=MRHEAD"],
    "modality": [ACCESSION, f"{STEP}Modality=MR"],
    "modality that nobody has": [ACCESSION, f"{STEP}Modality=US"],
    "station": [ACCESSION, f"{STEP}ScheduledStationAETitle=MR2"],
    "step": [ACCESSION, f"{STEP}ScheduledProcedureStepID=S1"],
    "step as a whole": [ACCESSION, "ScheduledProcedureStepSequence"],
    "day": [ACCESSION, f"{STEP}ScheduledProcedureStepStartDate=20260106"],
    "days": [ACCESSION, f"{STEP}ScheduledProcedureStepStartDate=20260105-20260106"],
    "from a day on": [ACCESSION, f"{STEP}ScheduledProcedureStepStartDate=20260106-"],
    "until a day": [ACCESSION, f"{STEP}ScheduledProcedureStepStartDate=-20260105"],
    "hours": [ACCESSION, f"{STEP}ScheduledProcedureStepStartTime=0800-0900"],
    "day and modality": [ACCESSION, f"{STEP}ScheduledProcedureStepStartDate=20260105-", f"{STEP}Modality=MR"],
    "moments": [
        ACCESSION,
        f"{STEP}ScheduledProcedureStepStartDate=20260105-20260106",
        f"{STEP}ScheduledProcedureStepStartTime=1500-1430",
    ],
    "no date": [ACCESSION, f'{STEP}ScheduledProcedureStepStartDate=""'],
    "a key that no item has": ["AccessionNumber=A1", "BarcodeValue"],
    "priority without comments": [ACCESSION, "RequestedProcedurePriority"],
}
#: What the node answers and what Orthanc does, where that differs: accession numbers, or (accession number, priority).
DIFFERENCES: dict[str, tuple[object, object]] = {
    "until a day": (["A1"], ["A1", "A4"]),
    "moments": (["A2"], []),
    "no date": (["A4"], []),
    "priority without comments": (("A5", "ROUTINE"), ("A5", "HIGH")),
}


def told(registry: Registry) -> list[RankedOrder]:
    """The items as the registry has them, once it was told all."""
    for number, (one, level, training_state) in enumerate(ITEMS, start=1):
        tell(registry, placed(one), at=float(number))
        if level is None:
            continue
        key = patient_key_of(one.patient.patient_id, one.patient.name, one.patient.birth_date)
        at = 1000.0 * number
        receive(registry, one.study_instance_uid, at=at, accession=one.accession_number, patient_key=key)
        finish(registry, one.study_instance_uid, at=at, level=level, training_state=training_state)
    return list(registry.orders(equal={}, nonclinical=True))


@contextmanager
def orthanc(folder: Path, items: Sequence[Dataset]) -> Iterator[int]:
    """Orthanc with its worklist plugin over the items, as files; the port of its DICOM server."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None or not PLUGIN.exists():
        pytest.skip(f"Orthanc or its plugin {PLUGIN} is not installed (apt install orthanc)")
    worklist = folder / "worklist"
    worklist.mkdir(parents=True)
    for number, item in enumerate(items):
        item.SpecificCharacterSet = "ISO_IR 192"
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.file_meta.MediaStorageSOPClassUID = MODALITY_WORKLIST
        item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        item.save_as(worklist / f"{number}.wl", enforce_file_format=True)
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "DicomAlwaysAllowFindWorklist": True,
        "HttpServerEnabled": False,
        "Plugins": [str(PLUGIN)],
        "Worklists": {"Enable": True, "Database": str(worklist), "FilterIssuerAet": False, "LimitAnswers": 0},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        wait_until(lambda: listening(port) or process.poll() is not None, "Orthanc listens")
        assert process.poll() is None, (folder / "orthanc.log").read_text()
        yield port
    finally:
        process.kill()
        process.wait()


def ask(port: int, keys: Sequence[str], folder: Path) -> dict[str, Dataset]:
    """The answers to DCMTK's findscu by accession number, without their character set."""
    folder.mkdir()
    options = [part for key in keys for part in ("-k", key.replace("SpecificCharacterSet", "(0008,0005)"))]
    done = run_dcmtk("findscu", "-W", "-aec", AE_TITLE, "-X", "-od", folder, "127.0.0.1", port, *options)
    assert done.returncode == 0, done.stdout
    answers = {}
    for path in sorted(folder.iterdir()):
        answer = dcmread(path)
        answers[str(answer.AccessionNumber)] = answer
    for answer in answers.values():
        list(answer.iterall())  # decoded while the character set is there
        del answer.file_meta
        answer.pop("SpecificCharacterSet", None)
    return answers


def said(answers: dict[str, Dataset], like: object) -> object:
    """What of the answers a difference is about."""
    if isinstance(like, tuple):
        return like[0], answers[like[0]].RequestedProcedurePriority
    return sorted(answers)


def test_orthanc_and_the_node_give_the_same_answers(tmp_path: Path) -> None:
    registry = new_registry(tmp_path)
    items = [item_of(ranked) for ranked in told(registry)]
    assert [item.RequestedProcedurePriority for item in items] == ["STAT", "HIGH", "", "ROUTINE", "HIGH"]
    nodes = ModalityWorklist(RegistryOrders(registry, nonclinical=True))
    compared = []
    with orthanc(tmp_path / "orthanc", items) as port, served(nodes) as peer:
        for number, (name, keys) in enumerate(QUERIES.items()):
            ours = ask(peer.port, keys, tmp_path / f"node{number}")
            theirs = ask(port, keys, tmp_path / f"orthanc{number}")
            if name in DIFFERENCES:
                node, other = DIFFERENCES[name]
                assert (said(ours, node), said(theirs, other)) == (node, other), name
            else:
                assert ours == theirs, name
                compared.append((name, len(ours)))
    registry.close()
    print(f"the same answers to: {compared}")
    assert [name for name, count in compared if count == 0] == ["no such accession number", "modality that nobody has"]
