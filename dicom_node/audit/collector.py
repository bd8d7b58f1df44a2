"""From what the registry knows to audit messages: what came, what was made of it, what went where, which model.

Run by one process of the node. A row counts as recorded once the trail has it on the disk.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import time
from pathlib import Path

from pydicom import dcmread

from dicom_node.audit import message as audit
from dicom_node.audit.message import Happening, Participant, Subject
from dicom_node.audit.recorder import trail_of
from dicom_node.base.audited import Due, Happened
from dicom_node.base.config import (
    AnyDestination,
    Configuration,
    StowDestination,
)
from dicom_node.base.durable import make_folder, replace_file
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.events import Event, log
from dicom_node.jobs.registry import Registry

AT_ONCE = 100
ROUNDS = 20
PSEUDONYM_KEY = "pseudonyms.key"
UNKNOWN_PATIENT = "unknown"


class Collector:
    """Writes what is due. Raises ConfigurationError on construction when a key is no use."""

    def __init__(self, configuration: Configuration, registry: Registry) -> None:
        self._configuration = configuration
        self._registry = registry
        self._trail = trail_of(configuration)
        self._key = _pseudonym_key(configuration.node.audit)

    def collect(self) -> None:
        """Record what is due, a limited number at a time; what is left waits for the next time."""
        for _ in range(ROUNDS):
            try:
                with self._registry.audit_due(AT_ONCE, time.time()) as due:
                    self._trail.append([self._xml(one) for one in due])
            except OSError as error:
                log(Event.AUDIT_NOT_WRITTEN, "error", error=type(error).__name__)
                return
            if not due:
                return

    def _xml(self, due: Due) -> str:
        node = self._configuration.node
        return audit.as_xml(self.happening(due), node.ae_title, self._configuration.audit.site)

    def happening(self, due: Due) -> Happening:
        """The event of a row."""
        if due.what is Happened.MODEL:
            return self._model_changed(due)
        subjects = [audit.study(due.study_instance_uid, due.sop_classes), audit.patient(self._patient(due))]
        if due.what is Happened.RECEIVED:
            sender = Participant(due.peer, True, audit.SOURCE, due.peer, due.address or None)
            parts = [sender, self._own(audit.DESTINATION)]
            return Happening(audit.INSTANCES_TRANSFERRED, "C", due.at, parts, subjects)
        if due.what is Happened.RESULT:
            own = self._own(None, requestor=True)
            return Happening(audit.INSTANCES_ACCESSED, "C", due.at, [own], subjects, description=due.words)
        parts = [self._own(audit.SOURCE, requestor=True), self._destination(due.peer)]
        if due.what is Happened.TOLD:
            return Happening(audit.ORDER_RECORD, "U", due.at, parts, subjects[1:], description="reading priority told")
        begins = due.what is Happened.SENDING
        what, action = (audit.BEGIN_TRANSFERRING, "E") if begins else (audit.INSTANCES_TRANSFERRED, "C")
        return Happening(what, action, due.at, parts, subjects)

    def _model_changed(self, due: Due) -> Happening:
        details = {"Alert Description": due.words}
        node = Subject(
            self._configuration.node.ae_title, audit.NODE_ID, audit.SYSTEM_OBJECT, audit.SECURITY_RESOURCE, "model",
            details,
        )  # fmt: skip
        parts = [self._own(None), Participant(due.peer, True)]
        return Happening(audit.SECURITY_ALERT, "E", due.at, parts, [node], audit.SOFTWARE_CONFIGURATION)

    def _own(self, role: audit.Code | None, *, requestor: bool = False) -> Participant:
        title = self._configuration.node.ae_title
        return Participant(f"prima-node:{os.getpid()}", requestor, role, title, socket.gethostname())

    def _destination(self, name: str) -> Participant:
        found: AnyDestination | None = None
        try:
            found = self._configuration.destination(name)
        except ConfigurationError:  # it was taken out of the file since
            return Participant(name, False, audit.DESTINATION)
        if isinstance(found, StowDestination):
            return Participant(found.url, False, audit.DESTINATION)
        return Participant(name, False, audit.DESTINATION, getattr(found, "ae_title", None), found.host)

    def _patient(self, due: Due) -> str:
        """The Patient ID, or a pseudonym of it: of its digest, which the registry keeps."""
        if self._configuration.audit.patients == "id":
            return self._patient_id(due.example) or UNKNOWN_PATIENT
        digest = due.patient_key.partition(":")[0]
        return hmac.new(self._key, digest.encode(), hashlib.sha256).hexdigest()[:32] if digest else UNKNOWN_PATIENT

    def _patient_id(self, path: str) -> str:
        """As the received object has it; empty when it is gone."""
        try:
            header = dcmread(
                self._configuration.node.spool / path, stop_before_pixels=True, specific_tags=["PatientID"]
            )
            return str(header.get("PatientID", "")).strip()
        except Exception:  # noqa: BLE001 - pydicom raises anything at all on hostile bytes; the record goes without
            return ""


def _pseudonym_key(folder: Path) -> bytes:
    """The key that makes pseudonyms, made once; who has it and a list of Patient IDs can tell whose are whose."""
    path = folder / PSEUDONYM_KEY
    if not path.exists():
        make_folder(folder)
        replace_file(path, os.urandom(32))
    return path.read_bytes()
