"""One C-STORE attempt against a real SCP on loopback, and every way in which it can end."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association

from dicom_node.base.config import Destination, ReportSection
from dicom_node.base.errors import NodeError, PeerBusy, PeerRefused, PeerUnreachable, PermanentError
from dicom_node.demo.ports import free_ports
from dicom_node.reporting.document import build_report
from dicom_node.reporting.write import write_report
from dicom_node.sending import storescu
from dicom_node.sending.storescu import store
from support.peers import dcmtk, free_port, listening, wait_until
from support.reports import dump, errors_of, make_result, write_study

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


class Peer:
    """An SCP that answers a fixed status and keeps what it got. syntaxes: what it takes, all uncompressed if empty."""

    def __init__(self, *syntaxes: str) -> None:
        self.status = 0x0000
        self.offered: list[str] = []
        self.syntaxes: list[str] = []
        self.received: list[str] = []
        self.entity = AE(ae_title="PACS")
        self.entity.require_called_aet = True
        self.entity.add_supported_context(COMPREHENSIVE_3D_SR, list(syntaxes) or None)
        handlers = [(evt.EVT_C_STORE, self.answer), (evt.EVT_REQUESTED, self.note_offer)]
        self.server = self.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self.server.socket.getsockname()[1]

    def note_offer(self, event: evt.Event) -> None:
        requested = event.assoc.requestor.requested_contexts
        self.offered = [str(syntax) for context in requested for syntax in context.transfer_syntax]

    def answer(self, event: evt.Event) -> int:
        self.received.append(event.dataset.SOPInstanceUID)
        self.syntaxes.append(str(event.context.transfer_syntax))
        return self.status


@pytest.fixture
def peer() -> Iterator[Peer]:
    running = Peer()
    yield running
    running.entity.shutdown()


def destination(port: int, **changes: object) -> Destination:
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_seconds": 5}
    return Destination.model_validate(values | changes)


def document(folder: Path, sop_class: str = COMPREHENSIVE_3D_SR, syntax: str = ExplicitVRLittleEndian) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    path = folder / "object.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007, 0x0111])
def test_success_warnings_and_an_object_the_peer_has_already_are_delivered(
    peer: Peer, tmp_path: Path, status: int
) -> None:
    peer.status = status
    store(document(tmp_path), destination(peer.port), "PRIMA")
    assert len(peer.received) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0xA700, PeerBusy),
        (0xA701, PeerBusy),
        (0x0110, PeerBusy),
        (0xA900, PeerRefused),
        (0xC000, PeerRefused),
        (0x0122, PeerRefused),
        (0x0124, PeerRefused),
    ],
)
def test_a_failure_status_says_whether_trying_again_can_help(
    peer: Peer, tmp_path: Path, status: int, error: type[NodeError]
) -> None:
    peer.status = status
    with pytest.raises(error, match=f"{status:04X}"):
        store(document(tmp_path), destination(peer.port), "PRIMA")


def test_a_request_does_not_wait_for_the_acknowledgement_of_the_one_before(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nagle's algorithm is off on the association's own socket."""
    options: list[int] = []
    send = Association.send_c_store

    def look(association: Association, dataset: Dataset) -> Dataset:
        connection = association.dul.socket.socket  # type: ignore[union-attr]
        options.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return send(association, dataset)

    monkeypatch.setattr(Association, "send_c_store", look)
    store(document(tmp_path), destination(peer.port), "PRIMA")
    [without_delay] = options
    assert without_delay


def test_a_peer_that_is_down_is_tried_again(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with pytest.raises(PeerUnreachable) as error:
        store(document(tmp_path), destination(port), "PRIMA")
    assert error.value.retriable


def test_a_host_name_that_cannot_be_resolved_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(PeerUnreachable, match="host name"):
        store(document(tmp_path), destination(104, host="no-such-host.invalid"), "PRIMA")


@pytest.mark.parametrize("event", [evt.EVT_ACCEPTED, evt.EVT_ESTABLISHED])
def test_a_peer_that_aborts_at_any_moment_is_tried_again(tmp_path: Path, event: evt.NotificationEvent) -> None:
    entity = AE(ae_title="PACS")
    entity.add_supported_context(COMPREHENSIVE_3D_SR)
    handlers: list[evt.EventHandlerType] = [(event, lambda happening: happening.assoc.abort())]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        for _ in range(5):
            with pytest.raises(PeerUnreachable):
                store(document(tmp_path), destination(server.socket.getsockname()[1]), "PRIMA")
    finally:
        server.shutdown()


def test_a_wrong_ae_title_needs_a_person(peer: Peer, tmp_path: Path) -> None:
    with pytest.raises(PeerRefused) as error:
        store(document(tmp_path), destination(peer.port, ae_title="OTHER"), "PRIMA")
    assert not error.value.retriable


def test_a_class_the_peer_does_not_take_needs_a_person(peer: Peer, tmp_path: Path) -> None:
    with pytest.raises(PeerRefused, match="SOP class"):
        store(document(tmp_path, MRImageStorage), destination(peer.port), "PRIMA")


@pytest.mark.parametrize("content", [None, b"not DICOM"])
def test_an_object_that_is_gone_or_broken_needs_a_person(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "object.dcm"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PermanentError, match="cannot be read"):
        store(path, destination(104), "PRIMA")


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_disk_in_trouble_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(_: Path, **__: object) -> Dataset:
        raise OSError(number, "trouble")

    monkeypatch.setattr(storescu, "dcmread", fail)
    with pytest.raises(NodeError, match="trouble") as error:
        store(document(tmp_path), destination(104), "PRIMA")
    assert error.value.retriable


def test_an_object_that_ends_too_early_needs_a_person(tmp_path: Path) -> None:
    path = document(tmp_path)
    path.write_bytes(path.read_bytes()[:-70])
    with pytest.raises(PermanentError, match="cannot be read"):
        store(path, destination(104), "PRIMA")


def test_an_object_goes_as_it_is_where_the_peer_takes_that(peer: Peer, tmp_path: Path) -> None:
    store(document(tmp_path), destination(peer.port), "PRIMA")
    assert peer.offered == [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    assert peer.syntaxes == [ExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_a_compressed_object_is_offered_as_it_is_and_never_converted(tmp_path: Path, syntax: str) -> None:
    implicit_only = Peer(ImplicitVRLittleEndian)
    try:
        with pytest.raises(PeerRefused, match="transfer syntax"):
            store(document(tmp_path, syntax=syntax), destination(implicit_only.port), "PRIMA")
    finally:
        implicit_only.entity.shutdown()
    assert implicit_only.offered == [syntax]
    assert implicit_only.received == []


@pytest.mark.peers
def test_a_report_reaches_a_peer_that_takes_implicit_vr_only_unchanged(tmp_path: Path) -> None:
    images = write_study(tmp_path, {"SpecificCharacterSet": b"ISO_IR 100", "PatientName": b"Buc^J\xe9r\xf4me"})
    report = build_report(make_result(images), images, ReportSection(negatives="all"), datetime(2026, 1, 2, tzinfo=UTC))
    path = write_report(report, tmp_path / "outgoing")
    kept, port = tmp_path / "kept", free_port()
    kept.mkdir()
    archive = subprocess.Popen([dcmtk("storescp"), "+xi", "-od", kept, str(port)], env={"TCP_NODELAY": "1"})
    try:
        wait_until(lambda: listening(port), "storescp listens")
        store(path, destination(port), "PRIMA")
    finally:
        archive.terminate()
        archive.wait()
    [converted] = kept.iterdir()
    received = dcmread(converted)
    assert received.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert received == dcmread(path)
    assert errors_of(converted) == []
    assert dump(converted) == dump(path)
