"""UPS data sets for tests: a minimal N-CREATE, and what a performer adds."""

from __future__ import annotations

from pydicom.dataset import Dataset


def code(value: str = "110005", scheme: str = "DCM", meaning: str = "Interpretation") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def scheduled(study: str = "1.2.3", accession: str = "A1", priority: str = "LOW", **changes: object) -> Dataset:
    """What table CC.2.5-3 requires with a value, and a request; every other type 2 attribute is missing."""
    request, step = Dataset(), Dataset()
    request.StudyInstanceUID, request.AccessionNumber = study, accession
    step.ProcedureStepState = "SCHEDULED"
    step.ScheduledProcedureStepPriority = priority
    step.ProcedureStepLabel = "Read"
    step.WorklistLabel = "Reading"
    step.ScheduledProcedureStepStartDateTime = "20260105083000"
    step.InputReadinessState = "READY"
    step.PatientName, step.PatientID = "Doe^Jane", "ID1"
    step.ScheduledWorkitemCodeSequence = [code()]
    step.ReferencedRequestSequence = [request]
    for keyword, value in changes.items():
        setattr(step, keyword, value)
    return step


def state_change(state: str, transaction_uid: str = "1.2.3.4") -> Dataset:
    information = Dataset()
    information.ProcedureStepState = state
    information.TransactionUID = transaction_uid
    return information


def performed(transaction_uid: str = "1.2.3.4") -> Dataset:
    """The N-SET that meets the requirements of COMPLETED."""
    item, modification = Dataset(), Dataset()
    item.PerformedStationNameCodeSequence = [code("ST1", "99TEST", "Station 1")]
    item.PerformedWorkitemCodeSequence = [code()]
    item.PerformedProcedureStepStartDateTime = item.PerformedProcedureStepEndDateTime = "20260105090000"
    item.OutputInformationSequence = []
    modification.TransactionUID = transaction_uid
    modification.UnifiedProcedureStepPerformedProcedureSequence = [item]
    return modification


def progress(percent: str, transaction_uid: str = "1.2.3.4") -> Dataset:
    item, modification = Dataset(), Dataset()
    item.ProcedureStepProgress = percent
    modification.TransactionUID = transaction_uid
    modification.ProcedureStepProgressInformationSequence = [item]
    return modification


def subscription(ae_title: str = "WATCHER", lock: str = "FALSE", **keys: object) -> Dataset:
    information = Dataset()
    information.ReceivingAE, information.DeletionLock = ae_title, lock
    for keyword, value in keys.items():
        setattr(information, keyword, value)
    return information
