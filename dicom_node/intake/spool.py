"""The durable store of received objects: one file each, written once, never decoded, never overwritten.

A file's place is made of digests alone, so that no text from the network becomes a path:
`<study id>/<digest of the SOP Instance UID>.<digest of the content>.dcm`. Other content under a known UID is therefore
another file, and the same content is the same file. Each is a complete DICOM file (PS3.10) whose File Meta Information
carries what its row in the registry needs, so that the registry can be rebuilt from the files.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info

from dicom_node.base.disk import NO_RESERVE, Reserve
from dicom_node.base.durable import PRIVATE_FOLDER, make_folder, sync_folder
from dicom_node.base.errors import DiskFull, NotDicom
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.types import Arrival, study_id
from dicom_node.intake.file_header import encoded_header, noted, offset
from dicom_node.intake.identity import PARSE_ERRORS, Identity, read_identity
from dicom_node.intake.incoming import Incoming, TooLarge
from dicom_node.intake.transit import Share

INCOMING = ".incoming"
UNREADABLE = ".unreadable"
FOLDER = os.O_RDONLY | os.O_DIRECTORY


def spool_path(study_instance_uid: str, sop_instance_uid: str, digest: str) -> str:
    """Where an object with this content digest (hexadecimal) belongs, relative to the spool."""
    key = hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]
    return f"{study_id(study_instance_uid)}/{key}.{digest[:32]}.dcm"


class Spool:
    """The folder of received objects, which anybody may read. A receiver has its own place for what is half-written.

    node: the name of one of several nodes that share the folder.
    """

    def __init__(self, folder: Path, node: str | None = None) -> None:
        self.folder = folder
        self._incoming = folder / (INCOMING if node is None else f"{INCOMING}-{node}")
        self._unreadable = folder / UNREADABLE
        self._alone = node is None
        self._of_thread = threading.local()

    def prepare(self) -> None:
        """Make the folders and remove what a killed receiver left half-written. Raises OSError."""
        for folder in (self.folder, self._incoming, self._unreadable):
            make_folder(folder)
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        sync_folder(self.folder)

    def incoming(self, max_bytes: int, share: Share | None = None, reserve: Reserve = NO_RESERVE) -> Incoming:
        """Where to write a data set of at most that many bytes as it comes; share, reserve: see `Incoming`."""
        return Incoming(self._incoming, max_bytes, share, reserve)

    def keep(self, arrival: Arrival, data_set: Incoming) -> None:
        """Make the object durable at `arrival.path`: on return, file and folders are on the disk.

        Raises DiskFull; then nothing half-written stays.
        """
        folder, name = arrival.path.split("/")
        try:
            opened = self._open_folder(folder)
            target = opened.descriptor
            if os.access(name, os.F_OK, dir_fd=target):
                data_set.discard()
            else:
                data_set.place(encoded_header(arrival), name, target)
            os.fsync(target)
            passed(FaultPoint.SPOOL_DURABLE)
        except OSError as error:
            raise DiskFull(f"object could not be made durable: {error.strerror}; free space in node.storage") from error

    def read(self, path: str, max_object_bytes: int) -> Arrival:
        """The arrival, rebuilt from its file alone.

        Raises NotDicom when the file is damaged or not the spool's own, OSError when the disk does not give it.
        """
        file = self.folder / path
        try:
            meta = read_file_meta_info(file)
            note = noted(meta)
            with file.open("rb") as stream:
                arrival = _rebuilt(meta, note, stream, offset(meta), max_object_bytes)
        except OSError:
            raise
        except (*PARSE_ERRORS, TooLarge) as error:
            raise NotDicom(f"spool file cannot be read ({type(error).__name__})") from None
        if arrival.path != path or arrival.digest != note["digest"]:
            raise NotDicom("spool file does not hold what was written")
        return arrival

    def content(self, path: str) -> tuple[str, str]:
        """Transfer Syntax UID and digest of an object's data set, as its file has them now.

        Raises NotDicom when the file is damaged, OSError when it is not there or the disk does not give it.
        """
        try:
            meta = read_file_meta_info(self.folder / path)
            with (self.folder / path).open("rb") as stream:
                stream.seek(offset(meta))
                return str(meta.TransferSyntaxUID), hashlib.file_digest(stream, "sha256").hexdigest()
        except PARSE_ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:  # pydicom's own carry none
                raise
            raise NotDicom(f"spool file cannot be read ({type(error).__name__})") from None

    def paths(self) -> Iterator[str]:
        """All objects' paths, relative to the spool."""
        for file in self.folder.glob("[!.]*/*.dcm"):
            yield file.relative_to(self.folder).as_posix()

    def holds(self, path: str) -> bool:
        """Whether the object's file is there."""
        return (self.folder / path).is_file()

    def set_aside(self, path: str) -> None:
        """Move an unreadable file out of the way, for a person to look at. Raises OSError."""
        (self.folder / path).rename(self._unreadable / f"{uuid.uuid4().hex}.{Path(path).name}")

    def _open_folder(self, name: str) -> _OpenFolder:
        """A study's folder, made durable. In one that is deleted meanwhile nothing can be placed.

        A thread keeps its own until its next study. Where several nodes share the spool it does not: what another
        machine deleted may be there for a while, for who does not look again.
        """
        kept: _OpenFolder | None = getattr(self._of_thread, "folder", None)
        if kept is None or kept.name != name or kept.is_deleted():
            folder = os.path.join(self.folder, name)
            Path(folder).mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            sync_folder(self.folder)  # even if it was there: by another process, which did not sync it yet
            kept = _OpenFolder(name, os.open(folder, FOLDER))
            self._of_thread.folder = kept if self._alone else None
        return kept


class _OpenFolder:
    """A study's folder that stays open from one image to the next."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def is_deleted(self) -> bool:
        """Whether its last file was deleted meanwhile, and the folder with it."""
        try:
            return os.fstat(self.descriptor).st_nlink == 0
        except OSError:  # so NFS says it
            return True


def arrival_of(
    identity: Identity,
    *,
    transfer_syntax_uid: str,
    digest: str,
    size: int,
    calling_ae: str,
    urgent: bool,
    received_at: float,
    association_id: str | None,
) -> Arrival:
    """What intake knows of one object; size in bytes of its encoded data set."""
    return Arrival(
        study_instance_uid=identity.study_instance_uid,
        series_instance_uid=identity.series_instance_uid,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        patient_key=identity.patient_key,
        accession_number=identity.accession_number,
        digest=digest,
        path=spool_path(identity.study_instance_uid, identity.sop_instance_uid, digest),
        size=size,
        calling_ae=calling_ae,
        urgent=urgent,
        image=identity.image,
        received_at=received_at,
        association_id=association_id,
        issuer=identity.issuer,
    )


def _rebuilt(
    meta: FileMetaDataset, note: dict[str, object], stream: BufferedReader, begin: int, max_object_bytes: int
) -> Arrival:
    stream.seek(begin)
    identity = read_identity(stream, str(meta.TransferSyntaxUID), max_object_bytes)
    stream.seek(begin)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    association_id = note["association_id"]
    return arrival_of(
        identity,
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        digest=digest,
        size=stream.tell() - begin,
        calling_ae=str(meta.SourceApplicationEntityTitle),
        urgent=bool(note["urgent"]),
        received_at=float(str(note["received_at"])),
        association_id=None if association_id is None else str(association_id),
    )
