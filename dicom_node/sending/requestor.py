"""An association that the node opens to send results, and what it means when there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pynetdicom import AE, evt
from pynetdicom.association import Association

from dicom_node.base.associations import WITHOUT_DELAY, Wrapping
from dicom_node.base.config import Destination
from dicom_node.base.errors import NodeError, PeerRefused, PeerUnreachable
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

REJECTED_PERMANENT = 0x01


class NotAccepted(PeerRefused):
    """The peer took the association and none of its presentation contexts."""


@contextmanager
def associated(
    destination: Destination,
    calling_ae: str,
    contexts: Sequence[tuple[str, Sequence[str]]],
    handlers: Sequence[evt.EventHandlerType] = (),
) -> Iterator[Association]:
    """An established association, released at the end.

    contexts: abstract syntax and transfer syntaxes of each. Raises PeerUnreachable (try again), PeerRefused or
    NotAccepted.
    """
    wrapping = Wrapping(destination.tls, destination.host)
    entity = AE(ae_title=destination.calling_ae_title or calling_ae)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = destination.timeout_seconds
    entity.connection_timeout = destination.timeout_seconds
    for abstract_syntax, transfer_syntaxes in contexts:
        entity.add_requested_context(abstract_syntax, list(transfer_syntaxes))
    try:
        association = entity.associate(
            destination.host,
            destination.port,
            ae_title=destination.ae_title,
            evt_handlers=[WITHOUT_DELAY, *handlers],
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


def _not_established(association: Association, without_answer: str) -> NodeError:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        reason = f"association rejected: {answer.reason_str}"
        return PeerRefused(reason) if answer.result == REJECTED_PERMANENT else PeerUnreachable(reason)
    if answer is not None and not association.accepted_contexts:
        return NotAccepted("the peer does not accept this SOP class or transfer syntax")
    return PeerUnreachable(without_answer)
