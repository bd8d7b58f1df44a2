"""Two archives and a RIS that keep what they were sent, so that it can be held against what was acknowledged."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom.events import Event as AssociationEvent

from dicom_node.demo.archive import Archive
from support.committing_archive import CommittingArchive
from support.hl7_peers import ack
from support.node import evidence


@dataclass(frozen=True)
class Sent:
    """A report as an archive got it. digest: of the encoded data set. predecessors: the reports that it replaces."""

    uid: str
    study: str
    patient: str
    evidence: frozenset[str]
    predecessors: frozenset[str]
    digest: str


class Reports:
    """What came to one archive, repetitions too."""

    def __init__(self) -> None:
        self._sent: list[Sent] = []
        self._lock = threading.Lock()

    def keep(self, event: AssociationEvent) -> None:
        """Note the object of a C-STORE request."""
        document: Any = event.dataset
        predecessors = document.get("PredecessorDocumentsSequence") or []
        sent = Sent(
            str(document.SOPInstanceUID),
            str(document.StudyInstanceUID),
            str(document.PatientID),
            frozenset(evidence(document)),
            frozenset(
                str(item.ReferencedSOPInstanceUID)
                for study in predecessors
                for series in study.ReferencedSeriesSequence
                for item in series.ReferencedSOPSequence
            ),
            hashlib.sha256(event.request.DataSet.getvalue()).hexdigest(),  # type: ignore[union-attr]
        )
        with self._lock:
            self._sent.append(sent)

    def of(self, study: str) -> list[Sent]:
        """All that came of a study."""
        with self._lock:
            return [one for one in self._sent if one.study == study]

    def studies(self) -> set[str]:
        """Study Instance UIDs of everything that came."""
        with self._lock:
            return {one.study for one in self._sent}


class Pacs(Archive):
    """The demo's archive, which writes what it gets to files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.kept = Reports()

    def _keep(self, event: AssociationEvent) -> int:
        status = super()._keep(event)
        self.kept.keep(event)
        return status


class Vault(CommittingArchive):
    """An archive that is asked to commit to what it stored; it answers every other time on the association that asked.

    An answer that does not arrive is not repeated: the node asks again.
    """

    def __init__(self, node_port: int) -> None:
        super().__init__(node_port)
        self.kept = Reports()

    def _on_store(self, event: AssociationEvent) -> int:
        self.kept.keep(event)
        return super()._on_store(event)

    def _on_action(self, event: AssociationEvent) -> tuple[int, None]:
        self.same_association = not self.same_association
        return super()._on_action(event)

    def _report(self, *arguments: Any, **keywords: Any) -> int | None:
        with contextlib.suppress(RuntimeError):  # pynetdicom's word for an association that ended since
            return super()._report(*arguments, **keywords)
        return None


class Ris:
    """The script of a ScriptedPeer that accepts every message."""

    def __call__(self, received: list[bytes]) -> bytes:
        return ack("AA", _fields(received[-1])["MSH"][9])


def told(received: list[bytes]) -> Iterator[tuple[str, str, str]]:
    """Study Instance UID, placer order number and patient of each message that came."""
    for message in list(received):
        fields = _fields(message)
        yield fields["ZDS"][1].split("^")[0], fields["ORC"][2], fields["PID"][3].split("^")[0]


def _fields(message: bytes) -> dict[str, list[str]]:
    return {line.split("|")[0]: line.split("|") for line in message.decode().split("\r") if line}
