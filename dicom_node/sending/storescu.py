"""One attempt to hand one object to one peer by C-STORE (PS3.4 Annex B)."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.base.associations import WITHOUT_DELAY
from dicom_node.base.config import Destination
from dicom_node.base.errors import NodeError, PeerBusy, PeerRefused, PeerUnreachable, PermanentError, RetriableError
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.base.orders import Delivery, Outcome

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111
PROCESSING_FAILURE = 0x0110
REJECTED_PERMANENT = 0x01
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
    """Takes objects to one destination."""

    def __init__(self, destination: Destination, outgoing: Path, calling_ae: str) -> None:
        self._destination = destination
        self._outgoing = outgoing
        self._calling_ae = calling_ae

    def __call__(self, delivery: Delivery) -> Outcome:
        """One attempt. Raises what `store` raises."""
        assert delivery.path is not None
        store(self._outgoing / delivery.path, self._destination, self._calling_ae)
        return Outcome()


def store(path: Path, destination: Destination, calling_ae: str) -> None:
    """Send the object at `path`. Returns only when the peer said that it has it.

    What is in Explicit VR Little Endian is offered in Implicit VR Little Endian as well, the transfer syntax that every
    peer must take (PS3.5 section 10.1), and converted for a peer that takes no other; anything else goes as it is.

    Raises PeerUnreachable, PeerBusy or RetriableError (try again), PeerRefused or PermanentError (a person is needed).
    """
    dataset = _read(path)
    sop_class, transfer_syntax = dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID
    entity = AE(ae_title=destination.calling_ae_title or calling_ae)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = destination.timeout_seconds
    entity.connection_timeout = destination.timeout_seconds
    entity.add_requested_context(sop_class, transfer_syntax)
    if transfer_syntax == ExplicitVRLittleEndian:
        # In a context of its own, so that the peer takes both where it can and the object goes as it is.
        entity.add_requested_context(sop_class, ImplicitVRLittleEndian)
    try:
        association = entity.associate(
            destination.host, destination.port, ae_title=destination.ae_title, evt_handlers=[WITHOUT_DELAY]
        )
    except OSError as error:  # pynetdicom looks the name up by itself, and only then calls the peer
        raise PeerUnreachable(f"the host name is not known now ({error.strerror})") from error
    if not association.is_established:
        raise _not_established(association)
    try:
        status = association.send_c_store(dataset)
    except ValueError as error:  # every accepted context fits: the object itself is at fault
        raise PermanentError("the object to send cannot be encoded in the transfer syntax of the peer") from error
    except RuntimeError as error:  # pynetdicom's word for an association that ended since
        raise PeerUnreachable("the peer ended the association before the object was sent") from error
    finally:
        association.release()
    _judge(status.Status if "Status" in status else None)


def _read(path: Path) -> Dataset:
    try:
        dataset = dcmread(path)
        if not (dataset.SOPClassUID and dataset.SOPInstanceUID and dataset.file_meta.TransferSyntaxUID):
            raise InvalidDicomError
    except FileNotFoundError as error:
        raise PermanentError("the object to send cannot be read: it is no longer there") from error
    except (OSError, *UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno is not None:  # pydicom raises OSError of its own, without one
            raise RetriableError(f"the object to send cannot be read now ({error.strerror})") from error
        raise PermanentError(f"the object to send cannot be read: {type(error).__name__}") from error
    return dataset


def _not_established(association: Association) -> NodeError:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        reason = f"association rejected: {answer.reason_str}"
        return PeerRefused(reason) if answer.result == REJECTED_PERMANENT else PeerUnreachable(reason)
    if association.acceptor.primitive is not None and not association.accepted_contexts:
        return PeerRefused("the peer does not accept this SOP class or transfer syntax")
    return PeerUnreachable("no association: nobody answers at this address")


def _judge(status: int | None) -> None:
    if status is None:
        raise PeerUnreachable("the peer gave no answer to the C-STORE")
    if status in (SUCCESS, DUPLICATE_SOP_INSTANCE) or status & 0xF000 == 0xB000:
        return
    if status & 0xFF00 == 0xA700 or status == PROCESSING_FAILURE:
        raise PeerBusy(f"the peer could not take the object now (status 0x{status:04X})")
    raise PeerRefused(f"the peer refused the object (status 0x{status:04X})")
