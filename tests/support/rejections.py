"""Corrected images and rejection notes, as an archive sends them (IHE RAD IOCM)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from dicom_node.base.types import Rejection
from support.dicom_factory import StudyFacts


def corrected(images: Sequence[Dataset], **changes: Any) -> list[Dataset]:
    """The same images under the same UIDs with other attributes."""
    copies = copy.deepcopy(list(images))
    for image in copies:
        for keyword, value in changes.items():
            setattr(image, keyword, value)
    return copies


def patient(facts: StudyFacts) -> dict[str, str]:
    """What `corrected` has to change for the images to be these facts' patient's and order's."""
    return {
        "PatientID": facts.patient_id,
        "PatientName": facts.patient_name,
        "PatientBirthDate": facts.birth_date,
        "AccessionNumber": facts.accession_number,
    }


def rejection_note(images: Sequence[Dataset], rejection: Rejection | None) -> Dataset:
    """A Key Object Selection of these images, titled as this rejection, or as "Of Interest" where that is None."""
    title = codes.DCM.OfInterest
    if rejection is not None:
        title = CodedConcept(rejection.value, "DCM", rejection.meaning)
    note: Dataset = KeyObjectSelectionDocument(
        evidence=list(images),
        content=KeyObjectSelection(title, list(images)),
        series_instance_uid=generate_uid(),
        series_number=900,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="SYNTH",
    )
    return note


def named(note: Dataset) -> set[str]:
    """SOP Instance UIDs of the objects that a Key Object Selection names in its content."""
    return {
        str(reference.ReferencedSOPInstanceUID)
        for item in note.ContentSequence
        for reference in item.get("ReferencedSOPSequence", ())
    }
