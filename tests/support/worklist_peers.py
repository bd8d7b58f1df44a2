"""Worklist peers for tests on loopback: our services behind a plain pynetdicom server, and associations to it.

with served(ups=UpsProvider(store, receivers("WATCHER"))) as peer, associated(peer, UPS_PUSH) as association: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.base.associations import WITHOUT_DELAY
from dicom_node.base.ups_settings import Subscriber
from dicom_node.worklist.dicom.modality_worklist import ModalityWorklist
from dicom_node.worklist.dicom.services import WorklistServices
from dicom_node.worklist.dicom.ups_provider import UpsProvider
from support.peers import AE_TITLE, CLIENT, free_port


@dataclass(frozen=True)
class Served:
    """Where the services listen."""

    port: int

    @property
    def peer(self) -> Subscriber:
        return Subscriber(ae_title=AE_TITLE, host="127.0.0.1", port=self.port)


@contextmanager
def served(modality_worklist: ModalityWorklist | None = None, ups: UpsProvider | None = None) -> Iterator[Served]:
    """The services on a free port."""
    services = WorklistServices(modality_worklist, ups)
    entity = AE(ae_title=AE_TITLE)
    entity.supported_contexts = services.contexts()
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[*services.handlers(), WITHOUT_DELAY])
    try:
        yield Served(port)
    finally:
        server.shutdown()


@contextmanager
def association_to(
    port: int, *sop_classes: str, calling: str = "SCU", syntax: str = ExplicitVRLittleEndian
) -> Iterator[Association]:
    """An established association."""
    entity = AE(ae_title=calling)
    for sop_class in sop_classes:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port, ae_title=AE_TITLE, evt_handlers=CLIENT)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def receivers(*titles: str) -> Callable[[str], Subscriber | None]:
    """The configured subscribers, all at a port where nobody listens."""
    known = {title: Subscriber(ae_title=title, host="127.0.0.1", port=1) for title in titles}
    return known.get


def found(association: Association, query: Dataset, model: str) -> list[Dataset]:
    """All matches of a C-FIND that ends with success."""
    answers = list(association.send_c_find(query, model))
    assert answers[-1][0].Status == 0x0000, answers[-1][0]
    return [identifier for _, identifier in answers[:-1] if identifier is not None]
