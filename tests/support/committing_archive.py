"""An archive that stores everything and answers storage commitment as a test wants.

with CommittingArchive(node_port) as archive:
    archive.answers = [0x0112, KEPT]              # the first request fails, the second succeeds, further ones too
    archive.same_association = True               # answers on the association that asked
    archive.report(transaction, kept=["1.2"])     # an answer out of the blue; its status
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.events import Event as AssociationEvent

from support.peers import AE_TITLE, CLIENT, wait_until

ARCHIVE = "ARCHIVE"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
KEPT = 0
SILENT = -1


class CommittingArchive:
    """Storage and Storage Commitment SCP on loopback; reports to the node on associations of its own."""

    def __init__(self, node_port: int, *, commits: bool = True) -> None:
        self._node_port = node_port
        self.answers: list[int] = []
        self.same_association = False
        self.action_status = 0x0000
        self.stored: list[str] = []
        self.asked: list[str] = []
        self.statuses: list[int] = []
        self.before_action: Any = lambda: None
        self._threads: list[threading.Thread] = []
        self._entity = AE(ae_title=ARCHIVE)
        self._entity.add_supported_context(SR, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        if commits:
            self._entity.add_supported_context(STORAGE_COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])

    def __enter__(self) -> CommittingArchive:
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_action),
            *CLIENT,  # it asks over associations that it accepted as well
        ]
        server = self._entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port: int = server.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        self._entity.shutdown()

    def settle(self) -> None:
        """Wait until every answer has been sent."""
        for thread in self._threads:
            thread.join()

    def report(
        self,
        transaction: str,
        *,
        kept: Iterable[str] = (),
        failed: Mapping[str, int] | None = None,
        calling: str = ARCHIVE,
        role: bool = True,
        called: str = AE_TITLE,
        instance: str = WELL_KNOWN_INSTANCE,
        event_type: int | None = None,
    ) -> int | None:
        """N-EVENT-REPORT on an association of its own, proposing itself as SCP; the status, if one was let in."""
        entity = AE(ae_title=calling)
        entity.add_requested_context(STORAGE_COMMITMENT)
        roles: list[Any] = [build_role(STORAGE_COMMITMENT, scp_role=True)] if role else []
        association = entity.associate(
            "127.0.0.1", self._node_port, ae_title=called, ext_neg=roles, evt_handlers=CLIENT
        )
        if not association.is_established:
            return None
        if role:
            assert association.accepted_contexts[0].as_scp, "the node accepts the role"
        try:
            return self._report(association, transaction, kept, failed or {}, instance, event_type)
        finally:
            association.release()

    def send(self, request: N_EVENT_REPORT | N_ACTION, *, role: bool = True) -> int | None:
        """Any request at all, as it is; the status of the response, None when the association ended."""
        entity = AE(ae_title=ARCHIVE)
        entity.add_requested_context(STORAGE_COMMITMENT)
        roles: list[Any] = [build_role(STORAGE_COMMITMENT, scp_role=True)] if role else []
        association = entity.associate(
            "127.0.0.1", self._node_port, ae_title=AE_TITLE, ext_neg=roles, evt_handlers=CLIENT
        )
        assert association.is_established
        association._reactor_checkpoint.clear()
        wait_until(lambda: association._is_paused)
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, response = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        association.release()
        return None if response is None else int(response.Status)  # type: ignore[union-attr]

    def _report(
        self,
        association: Any,
        transaction: str,
        kept: Iterable[str],
        failed: Mapping[str, int],
        instance: str = WELL_KNOWN_INSTANCE,
        event_type: int | None = None,
    ) -> int | None:
        information = Dataset()
        information.TransactionUID = transaction
        if kept := list(kept):
            information.ReferencedSOPSequence = [_reference(uid) for uid in kept]
        if failed:
            information.FailedSOPSequence = [_reference(uid, reason) for uid, reason in failed.items()]
        kind = event_type or (2 if failed else 1)
        status, _ = association.send_n_event_report(information, kind, STORAGE_COMMITMENT, instance)
        code = int(status.Status) if "Status" in status else None
        self.statuses.append(-1 if code is None else code)
        return code

    def _on_store(self, event: AssociationEvent) -> int:
        self.stored.append(str(event.dataset.SOPInstanceUID))
        return 0x0000

    def _on_action(self, event: AssociationEvent) -> tuple[int, None]:
        self.before_action()
        request = event.action_information
        transaction = str(request.TransactionUID)
        [asked] = [str(item.ReferencedSOPInstanceUID) for item in request.ReferencedSOPSequence]
        self.asked.append(transaction)
        if self.action_status:
            return self.action_status, None
        answer = self.answers.pop(0) if self.answers else KEPT
        if answer != SILENT:
            kept, failed = ([asked], {}) if answer == KEPT else ([], {asked: answer})
            if self.same_association:
                # After the response: pynetdicom sends it only when this handler has returned.
                work = threading.Timer(0.1, self._report, (event.assoc, transaction, kept, failed))
            else:
                work = threading.Timer(0.1, self.report, (transaction,), {"kept": kept, "failed": failed})
            self._threads.append(work)
            work.start()
        return 0x0000, None


def _reference(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = SR
    item.ReferencedSOPInstanceUID = uid
    if reason is not None:
        item.FailureReason = reason
    return item
