"""One attempt to hand one object to one peer by C-STORE (PS3.4 Annex B)."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.base.config import Destination
from dicom_node.base.errors import NodeError, PeerBusy, PeerRefused, PeerUnreachable, PermanentError
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111
PROCESSING_FAILURE = 0x0110
REJECTED_PERMANENT = 0x01


def store(path: Path, destination: Destination, calling_ae: str) -> None:
    """Send the object at `path`. Returns only when the peer said that it has it.

    Raises PeerUnreachable or PeerBusy (try again), PeerRefused or PermanentError (a person is needed).
    """
    try:
        dataset = dcmread(path)
    except (OSError, InvalidDicomError) as error:
        raise PermanentError(f"the object to send cannot be read: {type(error).__name__}") from error
    entity = AE(ae_title=destination.calling_ae_title or calling_ae)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = destination.timeout_seconds
    entity.connection_timeout = destination.timeout_seconds
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    try:
        association = entity.associate(destination.host, destination.port, ae_title=destination.ae_title)
    except OSError as error:  # pynetdicom looks the name up by itself, and only then calls the peer
        raise PeerUnreachable(f"the host name is not known now ({error.strerror})") from error
    if not association.is_established:
        raise _not_established(association)
    try:
        status = association.send_c_store(dataset)
    except ValueError as error:
        raise PeerRefused("the peer does not accept this SOP class or transfer syntax") from error
    except RuntimeError as error:  # pynetdicom's word for an association that ended since
        raise PeerUnreachable("the peer ended the association before the object was sent") from error
    finally:
        association.release()
    _judge(status.Status if "Status" in status else None)


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
