"""An association that the node opens for the worklist, and the one table from what a peer does to our errors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from dicom_node.base.associations import WITHOUT_DELAY, Wrapping
from dicom_node.base.errors import NodeError, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.base.ups_settings import Subscriber

SUCCESS = 0x0000
WARNINGS = (0x0001, 0x0107, 0x0116)  # PS3.7 annex C
BUSY = (0x0110, 0x0213)  # processing failure, resource limitation
UNABLE_TO_PROCESS = range(0xC000, 0xD000)  # of a C-FIND alone (PS3.4 section CC.2.8)
REJECTED_PERMANENT = 0x01


@contextmanager
def associated(
    peer: Subscriber,
    calling_ae: str,
    sop_classes: Sequence[str],
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """An established association, released at the end.

    Raises PeerUnreachable (try again) or PeerRefused.
    """
    wrapping = Wrapping(peer.tls, peer.host)
    entity = AE(ae_title=peer.calling_ae_title or calling_ae)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = peer.timeout_seconds
    entity.connection_timeout = peer.timeout_seconds
    for sop_class in sop_classes:
        entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            ae_title=peer.ae_title,
            ext_neg=list(roles),
            evt_handlers=[WITHOUT_DELAY],
            tls_args=wrapping.tls_args,
        )
    except OSError as error:  # pynetdicom looks the name up by itself, and only then calls the peer
        raise PeerUnreachable(f"the host name is not known now ({error.strerror})") from error
    if not association.is_established:
        raise _not_established(association, wrapping.words)
    try:
        yield association
    finally:
        association.release()


def judge(status: Dataset, service: str, *, busy: Collection[int] = BUSY) -> int:
    """The status, if it is success or a warning. Raises PeerUnreachable, PeerBusy or PeerRefused.

    busy: failures that may pass, beside 0xA7xx.
    """
    if "Status" not in status:
        raise PeerUnreachable(f"the peer gave no answer to the {service}")
    code = int(status.Status)
    if code == SUCCESS or code in WARNINGS or code & 0xF000 == 0xB000:
        return code
    if code & 0xFF00 == 0xA700 or code in busy:
        raise PeerBusy(f"the peer could not do the {service} now (status 0x{code:04X})")
    raise PeerRefused(f"the peer refused the {service} (status 0x{code:04X})")


def _not_established(association: Association, without_answer: str) -> NodeError:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        reason = f"association rejected: {answer.reason_str}"
        return PeerRefused(reason) if answer.result == REJECTED_PERMANENT else PeerUnreachable(reason)
    if answer is not None and not association.accepted_contexts:
        return PeerRefused("the peer does not accept this SOP class")
    return PeerUnreachable(without_answer)
