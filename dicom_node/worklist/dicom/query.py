"""What of a worklist query a store may look for by itself: exact values only, the rest is matched afterwards."""

from __future__ import annotations

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_node.base.workitems import UpsQuery, WorklistQuery
from dicom_node.worklist.dicom.matching import range_of_dates, single_value


def worklist_query(identifier: Dataset) -> WorklistQuery:
    """The coarse filter in a Modality Worklist identifier (plain)."""
    step = _first_item(identifier.get("ScheduledProcedureStepSequence"))
    first, last = range_of_dates(_element(step, "ScheduledProcedureStepStartDate"))
    return WorklistQuery(
        accession_number=single_value(_element(identifier, "AccessionNumber")),
        patient_id=single_value(_element(identifier, "PatientID")),
        study_instance_uid=single_value(_element(identifier, "StudyInstanceUID")),
        requested_procedure_id=single_value(_element(identifier, "RequestedProcedureID")),
        modality=single_value(_element(step, "Modality")),
        station_ae=single_value(_element(step, "ScheduledStationAETitle")),
        scheduled_from=first,
        scheduled_to=last,
    )


def ups_query(identifier: Dataset) -> UpsQuery:
    """The coarse filter in a UPS identifier (plain)."""
    return UpsQuery(
        sop_instance_uid=single_value(_element(identifier, "SOPInstanceUID")),
        state=single_value(_element(identifier, "ProcedureStepState")),
        priority=single_value(_element(identifier, "ScheduledProcedureStepPriority")),
    )


def _first_item(items: list[Dataset] | None) -> Dataset:
    return items[0] if items else Dataset()


def _element(dataset: Dataset, keyword: str) -> DataElement | None:
    return next((element for element in dataset if element.keyword == keyword), None)
