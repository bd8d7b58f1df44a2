"""One C-STORE attempt against a real SCP on loopback, and every way in which it can end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE, evt

from dicom_node.base.config import Destination
from dicom_node.base.errors import NodeError, PeerBusy, PeerRefused, PeerUnreachable, PermanentError
from dicom_node.demo.ports import free_ports
from dicom_node.sending.storescu import store

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


class Peer:
    """An SCP that answers a fixed status and keeps what it got."""

    def __init__(self) -> None:
        self.status = 0x0000
        self.received: list[str] = []
        self.entity = AE(ae_title="PACS")
        self.entity.require_called_aet = True
        self.entity.add_supported_context(COMPREHENSIVE_3D_SR)
        handlers = [(evt.EVT_C_STORE, self.answer)]
        self.server = self.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self.server.socket.getsockname()[1]

    def answer(self, event: evt.Event) -> int:
        self.received.append(event.dataset.SOPInstanceUID)
        return self.status


@pytest.fixture
def peer() -> Iterator[Peer]:
    running = Peer()
    yield running
    running.entity.shutdown()


def destination(port: int, **changes: object) -> Destination:
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_seconds": 5}
    return Destination.model_validate(values | changes)


def document(folder: Path, sop_class: str = COMPREHENSIVE_3D_SR) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
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
