"""C-MOVE: the archive is asked to send a study to a small storage SCP that runs while it does (PS3.4 annexes B and C).

The archive must know our AE title with this host and port. As that is one port, the workers take turns; while one
receives, the others encode. Only instances of the study that was asked for are accepted, and only MR images are kept.
"""

from __future__ import annotations

import fcntl
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.association import Association

from prima_core.base.mr_images import MR_IMAGES
from training.base.errors import BadTrainingData

# Study Root Query/Retrieve Information Model (PS3.6 table A-1).
_FIND, _MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
_SUCCESS, _PENDING = 0x0000, (0xFF00, 0xFF01)
_OUT_OF_RESOURCES, _NOT_ASKED_FOR = 0xA700, 0xA900  # PS3.4 table B.2-1


@dataclass(frozen=True)
class DimseArchive:
    """An archive's Query/Retrieve SCP, and the storage SCP that it sends to.

    own_ae_title, bind, own_port: as the archive knows them. bind: the address to listen on; left out, the one of this
    machine that leads to the archive.
    """

    ae_title: str
    host: str
    port: int
    own_ae_title: str
    own_port: int
    bind: str | None = None
    timeout_seconds: float = 300.0

    def find(self, accession_number: str) -> Sequence[str]:
        """Study Instance UIDs under an accession number. Raises BadTrainingData when the archive gives no answer."""
        keys = Dataset()
        keys.QueryRetrieveLevel = "STUDY"
        keys.AccessionNumber = accession_number
        keys.StudyInstanceUID = ""
        uids = []
        with self._association(_FIND) as association:
            for status, found in association.send_c_find(keys, _FIND):
                if status.get("Status") not in (_SUCCESS, *_PENDING):
                    raise BadTrainingData(f"the archive's answer to a query is {_hex(status)}")
                # An archive that knows no accession numbers answers with all that it has.
                if found is not None and str(found.get("AccessionNumber", "")) == accession_number:
                    uids.append(str(found.StudyInstanceUID))
        return uids

    def retrieve(self, study_instance_uid: str, scratch: Path) -> Sequence[Path]:
        """One file an image. Raises BadTrainingData with the reason, and the OSError of a full disk."""
        keys = Dataset()
        keys.QueryRetrieveLevel = "STUDY"
        keys.StudyInstanceUID = study_instance_uid
        with _turn(scratch.parent / f"port-{self.own_port}.lock"):
            receiver = _Receiver(study_instance_uid, scratch)
            with self._listening(receiver), self._association(_MOVE) as association:
                last = Dataset()
                for status, _ in association.send_c_move(keys, self.own_ae_title, _MOVE):
                    last = status
        if receiver.trouble:
            raise receiver.trouble
        _check(last, receiver.accepted)
        return receiver.files

    @contextmanager
    def _association(self, model: str) -> Iterator[Association]:
        ae = AE(self.own_ae_title)
        ae.acse_timeout = ae.connection_timeout = 30
        ae.dimse_timeout = ae.network_timeout = self.timeout_seconds
        ae.add_requested_context(model)
        association = ae.associate(self.host, self.port, ae_title=self.ae_title)
        if not association.is_established:
            raise BadTrainingData("the archive cannot be reached, or refuses our AE title")
        try:
            yield association
        finally:
            association.release()

    def _own_address(self) -> str:
        """Where the archive's connections come in; nothing is sent to find out."""
        family, _, _, _, archive = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(archive)
            return str(probe.getsockname()[0])

    @contextmanager
    def _listening(self, receiver: _Receiver) -> Iterator[None]:
        ae = AE(self.own_ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = [self.ae_title]
        ae.network_timeout = self.timeout_seconds
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        ae.start_server(
            (self.bind or self._own_address(), self.own_port), block=False, evt_handlers=[(evt.EVT_C_STORE, receiver)]
        )
        try:
            yield
        finally:
            ae.shutdown()


@dataclass
class _Receiver:
    """Takes instances of one study in. accepted: how many; files: those that are MR images."""

    study_instance_uid: str
    folder: Path
    accepted: int = 0
    files: list[Path] = field(default_factory=list)
    trouble: OSError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: evt.Event) -> int:
        """The status of a C-STORE; an archive may send over several associations at once."""
        if str(event.dataset.get("StudyInstanceUID", "")) != self.study_instance_uid:
            return _NOT_ASKED_FOR
        with self._lock:
            if event.request.AffectedSOPClassUID in MR_IMAGES:
                path = self.folder / f"{len(self.files):06d}.dcm"
                try:
                    path.write_bytes(event.encoded_dataset())
                except OSError as error:
                    self.trouble = error
                    return _OUT_OF_RESOURCES
                self.files.append(path)
            self.accepted += 1
        return _SUCCESS


def _check(status: Dataset, accepted: int) -> None:
    """Whether the last answer to a C-MOVE says that the whole study came (PS3.4 table C.4-2)."""
    code = status.get("Status")
    if code is None:
        raise BadTrainingData("the archive broke off")
    if code != _SUCCESS or status.get("NumberOfFailedSuboperations"):
        raise BadTrainingData(f"the archive did not send the whole study: status {_hex(status)}")
    if not accepted:
        raise BadTrainingData("the archive does not have the study")
    if accepted < (status.get("NumberOfCompletedSuboperations") or 0):
        raise BadTrainingData("fewer images came than the archive says it sent")


def _hex(status: Dataset) -> str:
    code = status.get("Status")
    return "none" if code is None else f"{code:04X}"


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
