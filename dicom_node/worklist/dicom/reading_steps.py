"""The node's own work items: a UPS for each study of its reading list that a model judged or that is not routine.

`update` is run every few seconds by one process. It compares what the list says with what the node wrote last, so it
may be killed anywhere and run again; what others changed meanwhile stands unless the list says something new.
"""

from __future__ import annotations

import itertools
import time
import uuid
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_node.base.config import Configuration
from dicom_node.base.errors import NodeError
from dicom_node.base.events import Event, log
from dicom_node.base.orders import Order, Patient, PriorityChange, WorklistEntry
from dicom_node.base.types import Level, study_id
from dicom_node.base.ups_settings import UpsSettings
from dicom_node.base.workitems import Background, DuplicateWorkitem, StaleWorkitem, UpsState, Workitem
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom import ups_events, ups_user
from dicom_node.worklist.dicom import workitem as workitems
from dicom_node.worklist.dicom.dataset import is_empty, text_of
from dicom_node.worklist.dicom.levels import lower
from dicom_node.worklist.dicom.ups_provider import UpsProvider

MODEL = "model"  # a source of `WorklistEntry`
NAMESPACE = uuid.UUID("0a2b7a86-8a47-5e0a-9b5e-3a3e3c6c1d52")
PRIORITY = "ScheduledProcedureStepPriority"
GONE = "The study left the node's reading list: it has a final report, or waited too long."
WITHDRAWN = "The result was withdrawn; whom the work item names may be somebody else."
PATIENT = ("SpecificCharacterSet", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")


class ReadingSteps:
    """Keeps the work items that stand for the reading list.

    A study whose work item a performer completed, or somebody else canceled, gets no other one.
    """

    def __init__(self, configuration: Configuration, registry: Registry, provider: UpsProvider) -> None:
        node, worklist = configuration.node, configuration.worklist
        self._keep_seconds = worklist.keep_hours * 3600
        self._nonclinical = configuration.moves_nonclinical
        self._outgoing = node.outgoing
        # As a worklist manager is told by default: this one is the node itself.
        self._settings = UpsSettings(ae_title=node.ae_title, host=node.bind, port=node.port)
        self._registry = registry
        self._provider = provider
        self._troubled: set[str] = set()
        self._found: dict[str, tuple[PriorityChange, int]] = {}  # by study: what its work item of this version says

    def update(self) -> None:
        """Bring the work items up to the list as it is now, and note whose reading began."""
        for study, at in self._registry.readings_begun():
            self._registry.note_reading(study, at)
            log(Event.READING_BEGUN, study=study_id(study))
        since = time.time() - self._keep_seconds
        listed = {
            entry.study_instance_uid: entry for entry in self._registry.worklist(since, nonclinical=self._nonclinical)
        }
        own = self._registry.own_workitems(listed)
        present = {step.study_instance_uid: step for step in own if step.study_instance_uid is not None}
        kept = [entry for study, entry in listed.items() if _needs_step(entry, present.get(study))]
        known = self._registry.backgrounds([entry.study_id for entry in kept])
        for entry in kept:
            self._keep(entry, present.get(entry.study_instance_uid), known.get(entry.study_id, Background()))
        for study, step in present.items():
            if study not in listed:
                self._cancel(study, step)
        self._found = {study: found for study, found in self._found.items() if study in listed}

    def _keep(self, entry: WorklistEntry, step: Workitem | None, known: Background) -> None:
        """One study's work item; what is wrong with it does not hold up the others."""
        try:
            wanted = self._wanted(entry, known)
            if step is None:
                self._create(entry, wanted)
            elif known.withdrawn and known.order is None and _names_patient(step):
                self._cancel(entry.study_instance_uid, step, WITHDRAWN)  # the next run makes one that names nobody
            elif self._found.get(entry.study_instance_uid) != (wanted, step.version):
                self._refresh(entry, step, wanted)
        except (StaleWorkitem, DuplicateWorkitem):
            return  # somebody else was faster; the next run looks at what they left
        except NodeError as error:
            if entry.study_id not in self._troubled:
                log(Event.WORKITEM_NOT_KEPT, "error", study=entry.study_id, reason=str(error))
            self._troubled.add(entry.study_id)
        else:
            self._troubled.discard(entry.study_id)

    def _create(self, entry: WorklistEntry, wanted: PriorityChange) -> None:
        uids = (step_uid(entry.study_instance_uid, number) for number in itertools.count())
        uid = next(uid for uid in uids if self._registry.workitem(uid) is None)
        attributes = ups_user.attributes_of(wanted, self._settings)
        self._provider.create(uid, attributes, entry.study_instance_uid)
        log(Event.WORKITEM_CREATED, study=entry.study_id, priority=text_of(attributes, PRIORITY))

    def _refresh(self, entry: WorklistEntry, step: Workitem, wanted: PriorityChange) -> None:
        encoded = data_sets.write(ups_user.attributes_of(wanted, self._settings))
        if encoded == step.written:
            self._found[entry.study_instance_uid] = wanted, step.version
            return
        changes = _changes(data_sets.read(step.written), data_sets.read(encoded), step)
        new = workitems.overwritten(step, changes, workitems.local_now())
        events = ups_events.events_of(step, new)
        if new.priority != step.priority:
            # No event tells of a priority. A state report has its receiver look at the work item again.
            events.append(ups_events.state_report(new))
        self._registry.update_workitem(replace(new, written=encoded), step.version, events)
        log(Event.WORKITEM_CHANGED, study=entry.study_id, priority=new.priority)

    def _cancel(self, study: str, step: Workitem, reason: str = GONE) -> None:
        """Through IN PROGRESS to CANCELED: that somebody performed it is more than the node knows.

        It no longer stands for the study: one that comes back to the list gets another.
        """
        why = Dataset()
        why.ReasonForCancellation = reason
        claimed, canceled = workitems.canceled(step, why, workitems.local_now())
        events = [ups_events.state_report(claimed), ups_events.state_report(canceled)]
        try:
            self._registry.update_workitem(replace(canceled, study_instance_uid=None), step.version, events)
        except StaleWorkitem:
            return  # it was claimed or changed just now; the next run looks again
        log(Event.WORKITEM_CANCELED, study=study_id(study), reason=reason)

    def _wanted(self, entry: WorklistEntry, known: Background) -> PriorityChange:
        """What the work item should say now."""
        order = known.order or Order(self._patient(known.report))
        return PriorityChange(
            key="",
            study_instance_uid=entry.study_instance_uid,
            level=entry.level,
            previous=None,
            rule=entry.rule or "nothing asks for more",
            at=entry.waiting_since,
            order=replace(order, accession_number=order.accession_number or entry.accession_number),
            marking=entry.level_marking,
        )

    def _patient(self, report: str | None) -> Patient:
        """Nobody where that is not known now: the study is named all the same, and a later run fills it in."""
        if report is None:
            return Patient("")
        try:
            return _patient_of(self._outgoing / report)
        except (OSError, InvalidDicomError):
            return Patient("")


def _needs_step(entry: WorklistEntry, step: Workitem | None) -> bool:
    """Whether the study's work item is the node's to write: nobody claimed it, or the study should have one."""
    if step is not None:
        return step.state is UpsState.SCHEDULED
    return entry.source == MODEL or entry.level is not Level.ROUTINE


def _names_patient(step: Workitem) -> bool:
    return bool(text_of(data_sets.read(step.encoded), "PatientID"))


def step_uid(study_instance_uid: str, number: int = 0) -> str:
    """The SOP Instance UID of the node's work item for a study. number: how many the study had before."""
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{study_instance_uid} {number}').int}"


def _changes(before: Dataset, wanted: Dataset, step: Workitem) -> Dataset:
    """What the node has to say anew. What it does not know any more stays.

    A priority that somebody else set since is only raised.
    """
    changes = Dataset()
    for element in wanted:
        if not is_empty(element) and element != before.get(element.tag):
            changes.add(element)
    ours_stands = step.priority == text_of(before, PRIORITY)
    if PRIORITY in changes and not ours_stands and not lower(step.priority, text_of(changes, PRIORITY)):
        changes.pop(PRIORITY)
    return changes


@lru_cache(1 << 14)  # more than a list has: each run asks for all
def _patient_of(report: Path) -> Patient:
    """The patient as the node's own report names them, who was copied exactly from the images."""
    document = data_sets.plain(dcmread(report, specific_tags=list(PATIENT)))
    patient_id, issuer, name, birth_date, sex = (text_of(document, keyword) for keyword in PATIENT[1:])
    return Patient(patient_id, issuer, name, birth_date, sex)
