"""An association that the node opens, and what it means when there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.events import Event as AssociationEvent
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from dicom_node.base.associations import WITHOUT_DELAY, Wrapping, is_request, refuse
from dicom_node.base.deadline import TIMEOUTS_PER_EXCHANGE, Deadline
from dicom_node.base.errors import NodeError, PeerRefused, PeerUnreachable
from dicom_node.base.events import Event, log
from dicom_node.base.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.base.reactor import WITHOUT_LOSS
from dicom_node.base.tls import ClientTls

REJECTED_PERMANENT = 0x01
UNASKED = "the peer sent a request of its own that the node does not answer"


class Peer(Protocol):
    """An AE that can be called. timeout_seconds: of each step; the whole ends after `TIMEOUTS_PER_EXCHANGE` of them."""

    @property
    def ae_title(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def calling_ae_title(self) -> str | None: ...
    @property
    def timeout_seconds(self) -> float: ...
    @property
    def tls(self) -> ClientTls | None: ...


class NotAccepted(PeerRefused):
    """The peer took the association and none of its presentation contexts."""


@contextmanager
def associated(
    peer: Peer,
    calling_ae: str,
    contexts: Sequence[tuple[str, Sequence[str]]],
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[evt.EventHandlerType] = (),
    answerable: Callable[[DIMSEMessage], bool] = lambda _: False,
) -> Iterator[Association]:
    """An established association, released at the end.

    contexts: abstract syntax and transfer syntaxes of each. answerable: which requests of the peer's own the handlers
    answer; any other aborts the association. Raises PeerUnreachable (try again), PeerRefused or NotAccepted.
    """
    wrapping = Wrapping(peer.tls, peer.host)
    entity = AE(ae_title=peer.calling_ae_title or calling_ae)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = peer.timeout_seconds
    entity.connection_timeout = peer.timeout_seconds
    for abstract_syntax, transfer_syntaxes in contexts:
        entity.add_requested_context(abstract_syntax, list(transfer_syntaxes))
    # pynetdicom reads a PDU without any timeout: half a PDU, and it would not even abort.
    with Deadline(peer.timeout_seconds * TIMEOUTS_PER_EXCHANGE) as deadline:

        def watch(event: AssociationEvent) -> None:
            connection: Any = event.assoc.dul.socket
            deadline.watch(connection.socket)

        def on_message(event: AssociationEvent) -> None:
            if is_request(event) and not answerable(event.message):
                refuse(event)
                log(Event.ASSOCIATION_ABORTED, "warning", called_ae=peer.ae_title, reason=UNASKED)

        try:
            association = entity.associate(
                peer.host,
                peer.port,
                ae_title=peer.ae_title,
                ext_neg=list(roles),
                evt_handlers=[
                    WITHOUT_DELAY,
                    WITHOUT_LOSS,
                    (evt.EVT_CONN_OPEN, watch),
                    (evt.EVT_DIMSE_RECV, on_message),
                    *handlers,
                ],
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
