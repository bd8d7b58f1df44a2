"""One attempt to hand one object to one peer by C-STORE (PS3.4 Annex B)."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.base.config import Destination
from dicom_node.base.errors import PeerBusy, PeerRefused, PeerUnreachable, PermanentError, RetriableError
from dicom_node.base.orders import Delivery, Outcome, Stage
from dicom_node.base.requestor import associated
from dicom_node.base.tls import client_context

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111
PROCESSING_FAILURE = 0x0110
UNREADABLE = (  # what pydicom raises for a malformed object
    InvalidDicomError,
    BytesLengthException,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    struct.error,
)


class StoreScu:
    """Takes objects to one destination. Raises ConfigurationError on construction on unusable certificates."""

    def __init__(self, destination: Destination, outgoing: Path, calling_ae: str) -> None:
        self._destination = destination
        self._outgoing = outgoing
        self._calling_ae = calling_ae
        if destination.tls is not None:
            client_context(destination.tls)  # what is no use is said at the start

    def __call__(self, delivery: Delivery) -> Outcome:
        """One attempt. Raises what `store` raises."""
        assert delivery.path is not None
        if delivery.stored:  # commitment was switched off since: what the peer has is delivered
            return Outcome()
        store(self._outgoing / delivery.path, self._destination, self._calling_ae)
        return Outcome(stage=Stage.STORED) if self._destination.storage_commitment else Outcome()


def store(path: Path, destination: Destination, calling_ae: str) -> None:
    """Send the object at `path`. Returns only when the peer said that it has it.

    What is in Explicit VR Little Endian is offered in Implicit VR Little Endian as well, the transfer syntax that every
    peer must take (PS3.5 section 10.1), and converted for a peer that takes no other; anything else goes as it is.

    Raises PeerUnreachable, PeerBusy or RetriableError (try again), PeerRefused or PermanentError (a person is needed).
    """
    dataset = read_object(path)
    sop_class, transfer_syntax = dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID
    contexts = [(sop_class, [transfer_syntax])]
    if transfer_syntax == ExplicitVRLittleEndian:
        # In a context of its own, so that the peer takes both where it can and the object goes as it is.
        contexts.append((sop_class, [ImplicitVRLittleEndian]))
    with associated(destination, calling_ae, contexts) as association:
        try:
            status = association.send_c_store(dataset)
        except ValueError as error:  # every accepted context fits: the object itself is at fault
            raise PermanentError("the object to send cannot be encoded in the transfer syntax of the peer") from error
        except RuntimeError as error:  # pynetdicom's word for an association that ended since
            raise PeerUnreachable("the peer ended the association before the object was sent") from error
    _judge(status.Status if "Status" in status else None)


def read_object(path: Path, *, before_pixels: bool = False) -> Dataset:
    """An object of the outgoing folder, with its identifiers. Raises RetriableError or PermanentError."""
    try:
        dataset = dcmread(path, stop_before_pixels=before_pixels)
        if not (dataset.SOPClassUID and dataset.SOPInstanceUID and dataset.file_meta.TransferSyntaxUID):
            raise InvalidDicomError
    except FileNotFoundError as error:
        raise PermanentError("the object to send cannot be read: it is no longer there") from error
    except (OSError, *UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno is not None:  # pydicom raises OSError of its own, without one
            raise RetriableError(f"the object to send cannot be read now ({error.strerror})") from error
        raise PermanentError(f"the object to send cannot be read: {type(error).__name__}") from error
    return dataset


def _judge(status: int | None) -> None:
    if status is None:
        raise PeerUnreachable("the peer gave no answer to the C-STORE")
    if status in (SUCCESS, DUPLICATE_SOP_INSTANCE) or status & 0xF000 == 0xB000:
        return
    if status & 0xFFF0 == 0xA770:  # a rejection note: of something else than the archive has, or rejected before
        raise PeerRefused(f"the peer refused the rejection note (status 0x{status:04X})")
    if status & 0xFF00 == 0xA700 or status == PROCESSING_FAILURE:
        raise PeerBusy(f"the peer could not take the object now (status 0x{status:04X})")
    raise PeerRefused(f"the peer refused the object (status 0x{status:04X})")
