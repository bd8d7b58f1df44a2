"""A stand-in for the PACS of the demo: keeps what it is sent, and forwards a study by C-STORE. Not for patients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.base.associations import WITHOUT_DELAY
from dicom_node.base.errors import PeerRefused, PeerUnreachable
from dicom_node.base.reactor import WITHOUT_LOSS
from dicom_node.demo.ports import free_ports

AE_TITLE = "DEMOPACS"


class Archive:
    """Listens on a loopback port while the `with` block lasts; `reports` are the Structured Reports it was sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[Path] = []
        self._entity = AE(ae_title=AE_TITLE)
        self._entity.supported_contexts = AllStoragePresentationContexts
        self._entity.add_supported_context(Verification)

    def __enter__(self) -> Archive:
        self.folder.mkdir(parents=True, exist_ok=True)
        handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, self._keep)]
        [self.port] = free_ports(1)
        self._entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def __exit__(self, *_: object) -> None:
        self._entity.shutdown()

    def _keep(self, event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        path = self._path(str(dataset.SOPInstanceUID))
        dataset.save_as(path, enforce_file_format=True)
        if dataset.Modality == "SR":
            self.reports.append(path)
        return 0x0000

    def report(self, sop_instance_uid: str | None) -> Path | None:
        """The file of this report, once it was sent here."""
        path = self._path(sop_instance_uid or "")
        return path if path in self.reports else None

    def _path(self, sop_instance_uid: str) -> Path:
        return self.folder / f"{hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:16]}.dcm"


def forward(files: Sequence[Path], port: int, node_ae: str, on_sent: Callable[[], None]) -> None:
    """Send DICOM files to the node on one association. Raises PeerUnreachable or PeerRefused."""
    first: dict[tuple[str, str], Dataset] = {}
    for file in files:
        header = dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        first.setdefault((str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)), header)
    entity = AE(ae_title=AE_TITLE)
    for sop_class, transfer_syntax in first:
        entity.add_requested_context(sop_class, transfer_syntax)
    association = entity.associate("127.0.0.1", port, ae_title=node_ae, evt_handlers=[WITHOUT_DELAY, WITHOUT_LOSS])
    if not association.is_established:
        raise PeerUnreachable("the node does not answer")
    try:
        for file in files:
            status = association.send_c_store(dcmread(file))
            if "Status" not in status or status.Status != 0x0000:
                raise PeerRefused("the node refused an image")
            on_sent()
    except ValueError as error:  # pynetdicom's word for a transfer syntax that was not accepted
        raise PeerRefused("the node does not take the transfer syntax of an image") from error
    except RuntimeError as error:
        raise PeerUnreachable("the node ended the association") from error
    finally:
        association.release()
