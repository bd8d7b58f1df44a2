"""Both worklists on one AE: what is negotiated, which handlers are bound, which messages can be answered.

pynetdicom binds one handler to a message, so a C-FIND goes to Modality Worklist or UPS by its presentation context.
Whether a peer may ask at all is decided where its association is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.dimse_messages import (
    C_CANCEL_RQ,
    C_FIND_RQ,
    N_ACTION_RQ,
    N_CREATE_RQ,
    N_GET_RQ,
    N_SET_RQ,
    DIMSEMessage,
)
from pynetdicom.events import Event as AssociationEvent
from pynetdicom.presentation import PresentationContext

from dicom_node.base.config import Configuration
from dicom_node.base.events import Event, log
from dicom_node.base.workitems import UpsLimits
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.dicom.answering import Answer
from dicom_node.worklist.dicom.modality_worklist import MODALITY_WORKLIST, ModalityWorklist
from dicom_node.worklist.dicom.registry_orders import RegistryOrders
from dicom_node.worklist.dicom.ups_provider import FINDS, OFFERED, UpsProvider

NO_DATA_SET = 0x0101  # PS3.7 9.3.1.1, Command Data Set Type (0000,0800)
#: Deflated is not offered: a few bytes of it can be gigabytes of identifier.
TRANSFER_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
#: Request → which SOP class UID names the service, what it may be, and what else an answer needs.
REQUESTS: dict[type[DIMSEMessage], tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    C_FIND_RQ: ("AffectedSOPClassUID", (MODALITY_WORKLIST, *FINDS), ("Priority",)),
    N_CREATE_RQ: ("AffectedSOPClassUID", OFFERED, ()),
    N_SET_RQ: ("RequestedSOPClassUID", OFFERED, ("RequestedSOPInstanceUID",)),
    N_GET_RQ: ("RequestedSOPClassUID", OFFERED, ("RequestedSOPInstanceUID",)),
    N_ACTION_RQ: ("RequestedSOPClassUID", OFFERED, ("RequestedSOPInstanceUID", "ActionTypeID")),
}
WITH_DATA_SET = (C_FIND_RQ, N_SET_RQ)


class WorklistServices:
    """Modality Worklist and UPS as the receiver offers them; either may be left out."""

    def __init__(self, modality_worklist: ModalityWorklist | None, ups: UpsProvider | None) -> None:
        self._modality_worklist = modality_worklist
        self._ups = ups

    def contexts(self) -> list[PresentationContext]:
        """The presentation contexts to add to those the receiver supports."""
        classes = [MODALITY_WORKLIST] if self._modality_worklist else []
        return [build_context(uid, list(TRANSFER_SYNTAXES)) for uid in (*classes, *(OFFERED if self._ups else ()))]

    def handlers(self) -> list[evt.EventHandlerType]:
        """Events and handlers, as pynetdicom's server takes them."""
        bound: list[evt.EventHandlerType] = [(evt.EVT_C_FIND, self.on_find)]
        if self._ups:
            bound += [
                (evt.EVT_N_CREATE, self._ups.on_create),
                (evt.EVT_N_SET, self._ups.on_set),
                (evt.EVT_N_GET, self._ups.on_get),
                (evt.EVT_N_ACTION, self._ups.on_action),
            ]
        return bound

    def answerable(self, message: DIMSEMessage) -> bool:
        """Whether pynetdicom can take and answer this message; one it cannot would end the association's thread."""
        return answerable(message)

    def on_find(self, event: AssociationEvent) -> Iterator[Answer]:
        """Responses to one C-FIND."""
        provider = self._modality_worklist if event.context.abstract_syntax == MODALITY_WORKLIST else self._ups
        if provider is None:
            raise LookupError("C-FIND on a presentation context that was not offered")
        peer = event.assoc.requestor
        log(
            Event.QUERY_ANSWERED,
            calling_ae=peer.ae_title.strip(),
            address=peer.address,
            service=str(event.context.abstract_syntax),
        )
        return provider.on_find(event)


def services_of(configuration: Configuration, registry: Registry) -> WorklistServices | None:
    """What the node answers beside Storage, over its registry; None where both services are switched off."""
    settings = configuration.worklist
    if not (settings.modality_worklist or settings.procedure_steps):
        return None
    orders = RegistryOrders(registry, nonclinical=configuration.moves_nonclinical)
    return WorklistServices(
        ModalityWorklist(orders) if settings.modality_worklist else None,
        provider_of(configuration, registry) if settings.procedure_steps else None,
    )


def provider_of(configuration: Configuration, registry: Registry) -> UpsProvider:
    """The UPS provider over the registry: who may be sent events, and how much others may keep here."""
    settings = configuration.worklist
    known = {subscriber.ae_title: subscriber for subscriber in settings.subscribers}
    limits = UpsLimits(settings.max_step_bytes, settings.max_open_steps, settings.max_open_steps_of_one)
    return UpsProvider(registry, known.get, limits=limits)


def answerable(message: DIMSEMessage) -> bool:
    """Whether pynetdicom can take and answer a worklist request; one it cannot would end the association's thread."""
    if isinstance(message, C_CANCEL_RQ):
        return message.command_set.get("MessageIDBeingRespondedTo") is not None
    for kind, (naming, classes, needed) in REQUESTS.items():
        if isinstance(message, kind):
            command = message.command_set
            has_data = command.get("CommandDataSetType") != NO_DATA_SET
            return (
                command.get("MessageID") is not None
                and command.get(naming) in classes
                and all(command.get(keyword) not in (None, "") for keyword in needed)
                and (has_data or kind not in WITH_DATA_SET)
            )
    return False
