"""Several services beside Storage, offered on the node's one AE as if they were one."""

from __future__ import annotations

from pynetdicom import evt
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.presentation import PresentationContext

from dicom_node.intake.association import FurtherServices


class Together:
    """Services with SOP classes and messages of their own: pynetdicom binds one handler to a message."""

    def __init__(self, *services: FurtherServices) -> None:
        self._services = services

    def contexts(self) -> list[PresentationContext]:
        """The presentation contexts of all."""
        return [context for service in self._services for context in service.contexts()]

    def handlers(self) -> list[evt.EventHandlerType]:
        """The handlers of all."""
        return [handler for service in self._services for handler in service.handlers()]

    def answerable(self, message: DIMSEMessage) -> bool:
        """Whether one of them can answer it."""
        return any(service.answerable(message) for service in self._services)
