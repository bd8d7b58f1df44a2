"""Modality Worklist over real associations: pynetdicom and DCMTK's findscu ask, DCMTK's wlmscpfs is the measure.

Does not cover the registry: the orders are in memory (`test_mwl_registry.py`).
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from dicom_node.base.errors import RetriableError
from dicom_node.base.orders import Order, RankedOrder
from dicom_node.base.types import Level
from dicom_node.base.workitems import WorklistQuery
from dicom_node.worklist.dicom.modality_worklist import MODALITY_WORKLIST, ModalityWorklist, item_of
from support.peers import AE_TITLE, dcmtk, free_port, listening, run_dcmtk, wait_until
from support.worklist_memory import Orders, order
from support.worklist_peers import association_to, found, served

MANY = 10_000


def query(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def by_step(**values: object) -> Dataset:
    return query(AccessionNumber="", ScheduledProcedureStepSequence=[query(**values)])


def accessions(answers: list[Dataset]) -> list[str]:
    return sorted(str(answer.AccessionNumber) for answer in answers)


ORDERS = [
    (order("1", name="Müller^Jörg", patient_id="P1", scheduled_at="20260105083000"), Level.CRITICAL),
    (order("2", name="Muller^Anna", patient_id="P2", scheduled_at="20260106140000", station_ae="MR2"), Level.ELEVATED),
    (order("3", name="Doe^Jane", patient_id="P3", scheduled_at="20260107", modality="CT"), None),
    (order("4", name="Doe^John", patient_id="P4", scheduled_at="", station_ae="", priority=Level.ROUTINE), None),
]
EVERYTHING = ["A1", "A2", "A3", "A4"]


QUERIES = {
    "universal": (query(AccessionNumber=""), EVERYTHING),
    "single value": (query(AccessionNumber="A2"), ["A2"]),
    "wild card": (query(AccessionNumber="", PatientName="D*^J?n*"), ["A3"]),
    "person name": (query(AccessionNumber="", PatientName="doe^*"), ["A3", "A4"]),
    "umlaut": (query(AccessionNumber="", PatientName="müller*", SpecificCharacterSet="ISO_IR 100"), ["A1"]),
    "umlaut in utf-8": (query(AccessionNumber="", PatientName="MÜLLER*", SpecificCharacterSet="ISO_IR 192"), ["A1"]),
    "patient id": (query(AccessionNumber="", PatientID="P3"), ["A3"]),
    "uid list": (query(AccessionNumber="", StudyInstanceUID=["1.2.3.1", "1.2.3.3"]), ["A1", "A3"]),
    "modality": (by_step(Modality="MR"), ["A1", "A2", "A4"]),
    "station": (by_step(ScheduledStationAETitle="MR2"), ["A2"]),
    "day": (by_step(ScheduledProcedureStepStartDate="20260106"), ["A2"]),
    "days": (by_step(ScheduledProcedureStepStartDate="20260105-20260106"), ["A1", "A2"]),
    "until": (by_step(ScheduledProcedureStepStartDate="-20260105"), ["A1"]),
    "from": (by_step(ScheduledProcedureStepStartDate="20260106-"), ["A2", "A3"]),
    "moment range": (
        by_step(ScheduledProcedureStepStartDate="20260105-20260106", ScheduledProcedureStepStartTime="0900-1500"),
        ["A2"],
    ),
    "all keys": (
        query(
            AccessionNumber="A1",
            PatientID="P1",
            ScheduledProcedureStepSequence=[query(Modality="MR", ScheduledStationAETitle="MR1")],
        ),
        ["A1"],
    ),
    "no match": (query(AccessionNumber="A9"), []),
}


@pytest.mark.parametrize("honours_query", [True, False], ids=["store filters", "store gives all"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
def test_all_matching_keys(honours_query: bool, syntax: str) -> None:
    source = Orders(ORDERS, honours_query)
    with served(ModalityWorklist(source)) as peer, association_to(peer.port, MODALITY_WORKLIST, syntax=syntax) as one:
        for name, (identifier, expected) in QUERIES.items():
            assert accessions(found(one, identifier, MODALITY_WORKLIST)) == expected, name


def test_the_store_gets_exact_values_only() -> None:
    source = Orders(ORDERS)
    asked = query(
        AccessionNumber="A*",
        PatientID="P1",
        StudyInstanceUID=["1.2", "1.3"],
        ScheduledProcedureStepSequence=[query(Modality="MR", ScheduledProcedureStepStartDate="20260101-")],
    )
    with served(ModalityWorklist(source)) as peer, association_to(peer.port, MODALITY_WORKLIST) as one:
        found(one, asked, MODALITY_WORKLIST)
    assert source.queries == [WorklistQuery(patient_id="P1", modality="MR", scheduled_from="20260101")]


def test_an_answer_has_the_requested_keys_in_the_requested_character_set() -> None:
    asked = query(
        SpecificCharacterSet="ISO_IR 100", AccessionNumber="A1", PatientName="", RequestedProcedurePriority=""
    )
    with served(ModalityWorklist(Orders(ORDERS))) as peer, association_to(peer.port, MODALITY_WORKLIST) as one:
        (answer,) = found(one, asked, MODALITY_WORKLIST)
        assert answer.SpecificCharacterSet == "ISO_IR 100"
        assert str(answer.PatientName) == "Müller^Jörg"
        assert answer.RequestedProcedurePriority == "STAT"
        assert len(answer) == 4
        asked.SpecificCharacterSet = "ISO_IR 144"
        (answer,) = found(one, asked, MODALITY_WORKLIST)
    assert (answer.SpecificCharacterSet, str(answer.PatientName)) == ("ISO_IR 192", "Müller^Jörg")


def test_a_key_that_no_item_has_is_left_out_with_a_warning() -> None:
    asked = query(AccessionNumber="A1", BarcodeValue="")
    with served(ModalityWorklist(Orders(ORDERS))) as peer, association_to(peer.port, MODALITY_WORKLIST) as one:
        (status, answer), (last, _) = one.send_c_find(asked, MODALITY_WORKLIST)
    assert (status.Status, last.Status) == (0xFF01, 0x0000)
    assert answer is not None
    assert "BarcodeValue" not in answer


@pytest.mark.parametrize(
    ("asked", "status", "named"),
    [
        (by_step(ScheduledProcedureStepStartDate="20261399"), 0xA900, "ScheduledProcedureStepStartDate"),
        (
            query(ScheduledProcedureStepSequence=[query(Modality="MR"), query(Modality="CT")]),
            0xA900,
            "ScheduledProcedureStepSequence",
        ),
    ],
)
def test_an_identifier_that_is_none_is_refused(asked: Dataset, status: int, named: str) -> None:
    with served(ModalityWorklist(Orders(ORDERS))) as peer, association_to(peer.port, MODALITY_WORKLIST) as one:
        ((answer, identifier),) = one.send_c_find(asked, MODALITY_WORKLIST)
        assert (answer.Status, identifier) == (status, None)
        assert named in answer.ErrorComment
        assert "2026" not in answer.ErrorComment
        assert accessions(found(one, query(AccessionNumber=""), MODALITY_WORKLIST)) == EVERYTHING


@pytest.mark.parametrize(
    ("error", "status"), [(RetriableError("the database is busy"), 0xA700), (ValueError("Doe^Jane"), 0xC001)]
)
def test_a_store_that_fails_midway_ends_the_query(error: Exception, status: int) -> None:
    def broken() -> Iterator[tuple[Order, Level | None]]:
        yield ORDERS[0]
        raise error

    with served(ModalityWorklist(Orders(broken()))) as peer, association_to(peer.port, MODALITY_WORKLIST) as one:
        answers = list(one.send_c_find(query(AccessionNumber=""), MODALITY_WORKLIST))
    assert [answer.Status for answer, _ in answers] == [0xFF00, status]
    assert "Doe" not in str(answers[-1][0])


def many() -> Iterator[tuple[Order, Level | None]]:
    for number in range(MANY):
        yield order(str(number)), Level.URGENT


def test_a_thousand_items_cross_an_association() -> None:
    few = [next_one for next_one, _ in zip(many(), range(1_000), strict=False)]
    with served(ModalityWorklist(Orders(few))) as peer, association_to(peer.port, MODALITY_WORKLIST) as one:
        assert len(found(one, query(AccessionNumber=""), MODALITY_WORKLIST)) == len(few)


def test_a_slow_reader_keeps_the_source_waiting() -> None:
    source = Orders(many())
    with served(ModalityWorklist(source)) as peer, association_to(peer.port, MODALITY_WORKLIST) as one:
        answers = one.send_c_find(query(AccessionNumber=""), MODALITY_WORKLIST)
        next(answers)
        one.dul.socket.socket.settimeout(None)
        one.abort()
    wait_until(lambda: source.taken, "the query began")
    taken = -1
    while taken != source.taken:
        taken = source.taken
        time.sleep(0.2)
    assert taken < MANY


def test_a_cancel_ends_the_query() -> None:
    source = Orders(many())
    statuses = []
    with served(ModalityWorklist(source)) as peer, association_to(peer.port, MODALITY_WORKLIST) as one:
        for number, (status, _) in enumerate(one.send_c_find(query(AccessionNumber=""), MODALITY_WORKLIST)):
            statuses.append(status.Status)
            if number == 3:
                one.send_c_cancel(1, query_model=MODALITY_WORKLIST)
        assert statuses[-1] == 0xFE00
        assert source.taken < MANY
        assert found(one, query(AccessionNumber="A9999999"), MODALITY_WORKLIST) == []


@pytest.mark.peers
def test_dcmtk_asks(tmp_path: Path) -> None:
    with served(ModalityWorklist(Orders(ORDERS))) as peer:
        done = run_dcmtk(
            *("findscu", "-W", "-v", "-aec", AE_TITLE, "-X", "-od", tmp_path, "127.0.0.1", peer.port),
            *("-k", "(0008,0005)=ISO_IR 192", "-k", "PatientName=*", "-k", "RequestedProcedurePriority"),
            *("-k", "(0040,0100)[0].Modality=MR", "-k", "(0040,0100)[0].ScheduledProcedureStepStartDate=20260105-"),
        )
        assert done.returncode == 0, done.stdout
    answers = [dcmread(path, force=True) for path in sorted(tmp_path.iterdir())]
    assert sorted(str(answer.PatientName) for answer in answers) == ["Muller^Anna", "Müller^Jörg"]
    assert {answer.RequestedProcedurePriority for answer in answers} == {"STAT", "HIGH"}


@contextmanager
def wlmscpfs(folder: Path) -> Iterator[int]:
    """DCMTK's worklist provider over the same items, as files."""
    worklist = folder / AE_TITLE
    worklist.mkdir()
    (worklist / "lockfile").touch()
    for number, (one, level) in enumerate(ORDERS):
        item = item_of(RankedOrder(one, level))
        item.SpecificCharacterSet = "ISO_IR 192"
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.file_meta.MediaStorageSOPClassUID = MODALITY_WORKLIST
        item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        item.save_as(worklist / f"{number}.wl", enforce_file_format=True)
    port = free_port()
    environment = {"PATH": "/usr/bin", "TCP_NODELAY": "1", "DCMDICTPATH": "/usr/share/libdcmtk17/dicom.dic"}
    with (folder / "wlmscpfs.log").open("w") as output:
        process = subprocess.Popen(
            [dcmtk("wlmscpfs"), "--single-process", "-v", "-dfp", str(folder), "-dfr", str(port)],
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: listening(port), "wlmscpfs listens")
        yield port
    finally:
        process.kill()
        process.wait()


#: wlmscpfs does not match these at all, or a person's name with regard to case.
NOT_IN_DCMTK = {"uid list", "person name", "umlaut", "umlaut in utf-8"}


@pytest.mark.peers
def test_the_same_queries_give_the_same_set_as_dcmtks_provider(tmp_path: Path) -> None:
    compared = []
    with (
        wlmscpfs(tmp_path) as port,
        served(ModalityWorklist(Orders(ORDERS))) as peer,
        association_to(port, MODALITY_WORKLIST) as theirs,
        association_to(peer.port, MODALITY_WORKLIST) as ours,
    ):
        for name, (identifier, _) in QUERIES.items():
            if name in NOT_IN_DCMTK:
                continue
            expected = accessions(found(theirs, identifier, MODALITY_WORKLIST))
            assert accessions(found(ours, identifier, MODALITY_WORKLIST)) == expected, name
            compared.append(name)
    assert len(compared) == len(QUERIES) - len(NOT_IN_DCMTK)
    assert re.search("moment range", " ".join(compared))
