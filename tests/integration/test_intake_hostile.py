"""What a hostile or broken sender gets: its association ends or its object is refused, and the node lives on."""

from __future__ import annotations

import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_STORE
from pynetdicom.dsutils import encode

from dicom_node.intake.access import AccessRule
from dicom_node.jobs.tables import associations
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.peers import (
    AE_TITLE,
    CLIENT,
    RunningReceiver,
    associate_request,
    configuration_for,
    data_pdu,
    free_port,
    pdu,
    read_pdu,
    receiver,
    receiver_process,
    wait_until,
)
from support.raw_sender import command_set

pytestmark = pytest.mark.usefixtures("storing")

A_ASSOCIATE_AC, A_ABORT = 0x02, 0x07
DEFLATED = "1.2.840.10008.1.2.1.99"


def image() -> Dataset:
    return mr_slices(head_phantom(1, 32, 32), StudyFacts())[0]


def associate(node: RunningReceiver, syntax: str = ImplicitVRLittleEndian) -> Association:
    ae = AE("SENDER")
    ae.add_requested_context("1.2.840.10008.1.1")
    ae.add_requested_context(MRImageStorage, syntax)
    association = ae.associate("127.0.0.1", node.port, ae_title=AE_TITLE, evt_handlers=CLIENT)
    assert association.is_established
    return association


def alive(node: RunningReceiver) -> bool:
    association = associate(node)
    status = association.send_c_echo()
    association.release()
    return bool(status.Status == 0)


def files_in(node: RunningReceiver) -> list[Path]:
    return [path for path in node.spool.folder.rglob("*") if path.is_file()]


def store_as(
    association: Association,
    data_set: bytes,
    instance: str | None,
    sop_class: str | None = MRImageStorage,
    message: type[C_STORE] | type[C_FIND] = C_STORE,
) -> tuple[int | None, str]:
    """Send a request that pynetdicom's own methods would not; status and Error Comment, or None once aborted."""
    request = message()
    request.MessageID = 7
    request.Priority = 0
    request.AffectedSOPClassUID = sop_class
    if message is C_STORE:
        request.AffectedSOPInstanceUID = instance
        request.DataSet = BytesIO(data_set)
    else:
        request.Identifier = BytesIO(data_set)
    context = next(c for c in association.accepted_contexts if c.abstract_syntax == MRImageStorage)
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused)
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return (None, "") if response is None else (response.Status, str(response.ErrorComment or ""))


def encoded(dataset: Dataset) -> bytes:
    data = encode(dataset, True, True)
    assert data is not None
    return data


def raw(node: RunningReceiver) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", node.port))
    connection.settimeout(60)
    return connection


def accepted(node: RunningReceiver, *contexts: tuple[str, str]) -> socket.socket:
    connection = raw(node)
    connection.sendall(associate_request(contexts=contexts))
    answer = read_pdu(connection)
    assert answer is not None
    assert answer[0] == A_ASSOCIATE_AC
    return connection


def store_request(dataset: Dataset) -> bytes:
    return command_set(
        AffectedSOPClassUID=dataset.SOPClassUID,
        CommandField=1,
        MessageID=1,
        Priority=0,
        CommandDataSetType=0,
        AffectedSOPInstanceUID=dataset.SOPInstanceUID,
    )


def ended(connection: socket.socket) -> bool:
    """Whether the node ended the connection, with or without an A-ABORT before."""
    while (answer := read_pdu(connection)) is not None:
        if answer[0] == A_ABORT:
            return True
    return True


GARBAGE: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
    "zeros": bytes(1000),
    "noise": random.Random(7).randbytes(5000),
    "unknown pdu": pdu(0x09, b"what"),
    "endless pdu": struct.pack(">BxL", 1, 0xFFFFFFFF),
    "empty request": pdu(0x01, b""),
    "request of noise": pdu(0x01, random.Random(8).randbytes(300)),
    "data before association": data_pdu(3, b"x"),
    "release before association": pdu(0x05, bytes(4)),
    "abort before association": pdu(0x07, bytes(4)),
}


@pytest.fixture(scope="module")
def impatient(storing: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    """One node that all the garbage below is thrown at."""
    with receiver(tmp_path_factory.mktemp("node"), acse_timeout_seconds=1, idle_timeout_seconds=1) as node:
        yield node


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_instead_of_an_association_is_dropped(impatient: RunningReceiver, name: str) -> None:
    with raw(impatient) as connection:
        connection.sendall(GARBAGE[name])
        assert ended(connection)
    assert alive(impatient)
    assert files_in(impatient) == []


WITHIN: dict[str, bytes] = {
    "unknown pdu": pdu(0x09, b"what"),
    "second request": associate_request(),
    "endless pdu": struct.pack(">BxL", 4, 0xFFFFFFFF),
    "empty data pdu": pdu(0x04, b""),
    "fragment longer than its pdu": pdu(0x04, struct.pack(">LBB", 5000, 1, 3) + b"x"),
    "fragment without a header": pdu(0x04, struct.pack(">LB", 1, 1)),
    "command of noise": data_pdu(3, random.Random(9).randbytes(200)),
    "command without a field": data_pdu(3, command_set(MessageID=1)),
    "data without a command": data_pdu(2, b"x" * 100),
    "unknown context": data_pdu(
        3, command_set(CommandField=0x30, MessageID=1, CommandDataSetType=0x101), context_id=99
    ),
    "store without uids": data_pdu(3, command_set(CommandField=1, MessageID=1, Priority=0, CommandDataSetType=0))
    + data_pdu(2, b"x" * 100),
}


@pytest.mark.parametrize("name", WITHIN)
def test_garbage_within_an_association_ends_it(impatient: RunningReceiver, name: str) -> None:
    with accepted(impatient, (MRImageStorage, ImplicitVRLittleEndian)) as connection:
        connection.sendall(WITHIN[name])
        assert ended(connection)
    assert alive(impatient)
    assert files_in(impatient) == []


def test_no_association_stays_open_after_all_this(impatient: RunningReceiver) -> None:
    assert impatient.standings() == {}


def test_an_endless_command_set_is_cut_off(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        with accepted(node) as connection:
            connection.sendall(data_pdu(1, b"x" * 10_000) * 50)
            assert ended(connection)
        assert alive(node)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_an_association_lost_in_mid_image_leaves_nothing(tmp_path: Path, share: float) -> None:
    dataset = image()
    data = encoded(dataset)
    with receiver(tmp_path) as node:
        with accepted(node, (MRImageStorage, ImplicitVRLittleEndian)) as connection:
            connection.sendall(data_pdu(3, store_request(dataset)))
            connection.sendall(data_pdu(0, data[: int(share * len(data))]))
        with accepted(node, (MRImageStorage, ImplicitVRLittleEndian)) as connection:
            connection.sendall(data_pdu(3, store_request(dataset)))
            # The rest of a PDU that never comes.
            connection.sendall(data_pdu(2, data)[: int(share * len(data)) + 8])
        assert node.standings(after=2) == {}
        assert files_in(node) == []
        assert alive(node)


def test_a_connection_that_falls_silent_is_ended(tmp_path: Path) -> None:
    with receiver(tmp_path, acse_timeout_seconds=0.5, idle_timeout_seconds=0.5, dimse_timeout_seconds=0.5) as node:
        with raw(node) as never_asked:
            assert ended(never_asked)
        with accepted(node) as idle:
            assert ended(idle)
        with accepted(node) as halfway:
            halfway.sendall(data_pdu(3, b"x" * 1000)[:100])
            assert ended(halfway)
        assert node.standings(after=2) == {}


def test_a_request_that_cannot_be_judged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise ValueError("broken rule")

    with receiver(tmp_path) as node:
        monkeypatch.setattr(AccessRule, "rejection", broken)
        ae = AE("SENDER")
        ae.add_requested_context("1.2.840.10008.1.1")
        assert ae.associate("127.0.0.1", node.port, ae_title=AE_TITLE, evt_handlers=CLIENT).is_rejected


def test_probes_that_only_connect_do_not_use_up_associations(tmp_path: Path) -> None:
    with receiver(tmp_path, max_associations=2) as node:
        probes = [raw(node) for _ in range(5)]
        assert alive(node)
        for probe in probes:
            probe.close()


HOSTILE_UIDS = ["../../etc/passwd", "1.2/../../3", "1." + "2" * 80, "", "1..2", "/", "1.2.3\0../../x"]


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_hostile_uids_in_the_data_set_are_refused(tmp_path: Path, keyword: str) -> None:
    with receiver(tmp_path) as node:
        association = associate(node)
        for uid in HOSTILE_UIDS:
            dataset = image()
            announced = str(dataset.SOPInstanceUID)
            setattr(dataset, keyword, uid)
            status, comment = store_as(association, encoded(dataset), announced)
            assert status == (0x0117 if uid else 0xC000)
            assert "passwd" not in comment
        association.release()
        assert files_in(node) == []
        assert node.standings() == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node"]


def test_hostile_uids_in_the_request_are_refused(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        association = associate(node)
        for uid in ("../../etc/passwd", "1.2/3", "1..2"):
            dataset = image()
            dataset.SOPInstanceUID = uid
            assert store_as(association, encoded(dataset), uid)[0] == 0x0117
        association.release()
        assert files_in(node) == []


@pytest.mark.parametrize("uid", [None, "1." + "2" * 80])
def test_a_request_without_a_usable_instance_uid_ends_the_association(tmp_path: Path, uid: str | None) -> None:
    dataset = image()
    attributes = {"AffectedSOPClassUID": MRImageStorage, "CommandField": 1, "MessageID": 1, "Priority": 0}
    if uid is not None:
        attributes["AffectedSOPInstanceUID"] = uid
    with receiver(tmp_path) as node:
        with accepted(node, (MRImageStorage, ImplicitVRLittleEndian)) as connection:
            connection.sendall(data_pdu(3, command_set(**attributes, CommandDataSetType=0)))
            connection.sendall(data_pdu(2, encoded(dataset)))
            assert ended(connection)
        assert files_in(node) == []
        assert alive(node)


REFUSED: dict[str, tuple[Callable[[Dataset], bytes], int]] = {
    "not dicom": (lambda _dataset: b"not an image" * 50, 0xC000),
    "two bytes": (lambda _dataset: b"\0\0", 0xC000),
    "ends before its study": (
        lambda dataset: encoded(dataset).partition(dataset.StudyInstanceUID.encode())[0][:-8],
        0xC000,
    ),
    "other instance": (lambda dataset: encoded(changed(dataset, SOPInstanceUID="1.2.3")), 0xA900),
    "other class": (lambda dataset: encoded(changed(dataset, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")), 0xA900),
    "nested without end": (
        lambda _dataset: (
            (struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 10_000
        ),
        0xC000,
    ),
}


def changed(dataset: Dataset, **attributes: object) -> Dataset:
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("name", REFUSED)
def test_a_data_set_that_is_not_what_was_announced_is_refused_and_the_next_one_taken(tmp_path: Path, name: str) -> None:
    make, expected = REFUSED[name]
    dataset = image()
    instance = str(dataset.SOPInstanceUID)
    data = make(dataset)
    with receiver(tmp_path) as node:
        association = associate(node)
        status, comment = store_as(association, data, instance)
        assert status is not None
        assert status == expected
        assert 0 < len(comment) <= 64
        good = image()
        assert store_as(association, encoded(good), str(good.SOPInstanceUID)) == (0, "")
        association.release()
        assert node.standings() == {"current": 1}


def test_a_class_that_was_not_negotiated_is_refused(tmp_path: Path) -> None:
    dataset = changed(image(), SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    with receiver(tmp_path) as node:
        association = associate(node)
        assert store_as(association, encoded(dataset), str(dataset.SOPInstanceUID), dataset.SOPClassUID)[0] == 0x0122
        association.release()
        assert files_in(node) == []


def test_another_service_on_a_storage_context_ends_the_association(tmp_path: Path) -> None:
    with receiver(tmp_path) as node:
        association = associate(node)
        store_as(association, encoded(image()), None, message=C_FIND)
        wait_until(lambda: association.is_aborted)
        assert alive(node)
        assert files_in(node) == []


def test_an_object_beyond_the_limit_is_refused_and_the_next_one_taken(tmp_path: Path) -> None:
    large = image()
    large.PixelData = bytes(3 << 20)
    with receiver(tmp_path, max_object_bytes=1 << 20) as node:
        association = associate(node)
        status, comment = store_as(association, encoded(large), str(large.SOPInstanceUID))
        assert (status, "max_object_bytes" in comment) == (0xC001, True)
        good = image()
        assert store_as(association, encoded(good), str(good.SOPInstanceUID))[0] == 0
        association.release()
        assert node.standings() == {"current": 1}


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    dataset = image()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    plain = encode(dataset, False, True)
    assert plain is not None
    bomb = deflater.compress(plain + bytes(64 << 20)) + deflater.flush()
    assert len(bomb) < 1 << 20
    with receiver(tmp_path, max_object_bytes=1 << 20) as node:
        association = associate(node, DEFLATED)
        assert store_as(association, bomb + bytes(len(bomb) % 2), str(dataset.SOPInstanceUID))[0] == 0xC001
        association.release()
        assert files_in(node) == []


def test_many_requests_without_waiting_for_answers_end_the_association(tmp_path: Path) -> None:
    dataset = image()
    message = data_pdu(3, store_request(dataset)) + data_pdu(2, encoded(dataset))
    with receiver(tmp_path) as node:
        with accepted(node, (MRImageStorage, ImplicitVRLittleEndian)) as connection:
            connection.sendall(message * 200)
            assert ended(connection)
        assert alive(node)


def test_neither_logs_nor_answers_carry_patient_data_or_uids(tmp_path: Path) -> None:
    configuration = configuration_for(tmp_path, free_port())
    secrets = ["Geheim", "SECRET01", "19431231", "ACCSECRET", "1.2.999.77"]
    study = StudyFacts(
        patient_name="Geheim^Name",
        patient_id="SECRET01",
        birth_date="19431231",
        accession_number="ACCSECRET",
        study_uid="1.2.999.77.1",
    )
    with receiver_process(tmp_path, configuration, log_level="info") as process:
        node = RunningReceiver(configuration, None, None)  # type: ignore[arg-type]
        association = associate(node)
        comments = []
        good = mr_slices(head_phantom(1, 32, 32), study)[0]
        comments.append(store_as(association, encoded(good), str(good.SOPInstanceUID)))
        for keyword in ("SOPInstanceUID", "StudyInstanceUID"):
            bad = mr_slices(head_phantom(1, 32, 32), study)[0]
            announced = str(bad.SOPInstanceUID)
            setattr(bad, keyword, "1.2.999.77.Geheim")
            comments.append(store_as(association, encoded(bad), announced))
        broken = encoded(good).replace(b"ISO_IR 192", b"Geheim 192")
        comments.append(store_as(association, broken, str(good.SOPInstanceUID)))
        association.release()
        wait_until(lambda: all(row.closed_at for row in node.rows(associations)) and node.rows(associations))
        process.kill()
    output = (tmp_path / "receiver.log").read_text()
    assert "object refused" in output
    for secret in secrets:
        assert secret not in output
        assert not any(secret in comment for _, comment in comments)
