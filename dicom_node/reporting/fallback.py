"""The same object in a simpler SOP class, for an archive that takes none of the class it was made in.

Comprehensive 3D SR → Comprehensive SR → Enhanced SR: the tree of a report is one that all three IODs allow (PS3.3
A.35.2, A.35.3, A.35.13). → Basic Text SR: another tree, see `basic_text`. Multi-frame pages → an object a page. UIDs
follow from those before, and so do those of predecessors, for this archive was sent them in the same class.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node.base.config import SopClass
from dicom_node.reporting.basic_text import make_basic
from dicom_node.reporting.content import derived_uid
from dicom_node.reporting.document import SOP_CLASSES, variant_uid
from dicom_node.reporting.write import write_report

SIMPLER_REPORT: dict[UID, SopClass] = {
    Comprehensive3DSRStorage: "comprehensive",
    ComprehensiveSRStorage: "enhanced",
    EnhancedSRStorage: "basic_text",
}


def simpler(path: Path) -> list[Path]:
    """The object at `path` in the next simpler class, durable beside it; empty where there is none.

    Raises DiskFull, and what pydicom raises for an object that cannot be read. The same call writes the same files.
    """
    document = dcmread(path)
    if document.SOPClassUID in SIMPLER_REPORT:
        documents = [_report(document, SIMPLER_REPORT[document.SOPClassUID])]
    elif document.SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage:
        documents = [_page(document, number) for number in range(int(document.NumberOfFrames))]
    else:
        documents = []
    return [write_report(one, path.parent) for one in documents]


def _report(document: Dataset, sop_class: SopClass) -> Dataset:
    simple, wanted = deepcopy(document), SOP_CLASSES[sop_class]
    for study in simple.get("PredecessorDocumentsSequence", []):
        for series in study.ReferencedSeriesSequence:
            for reference in series.ReferencedSOPSequence:
                if reference.ReferencedSOPClassUID == document.SOPClassUID:
                    reference.ReferencedSOPClassUID = wanted
                    reference.ReferencedSOPInstanceUID = variant_uid(reference.ReferencedSOPInstanceUID, sop_class)
    if sop_class == "basic_text":
        make_basic(simple)
    simple.InstanceNumber = int(document.InstanceNumber) + 1
    return _named(simple, wanted, variant_uid(document.SOPInstanceUID, sop_class))


def _page(document: Dataset, number: int) -> Dataset:
    size = document.Rows * document.Columns * document.SamplesPerPixel
    page = Dataset()
    page.update({element.tag: element for element in document if element.keyword != "PixelData"})
    page = deepcopy(page)
    page.file_meta = deepcopy(document.file_meta)
    page.PixelData = document.PixelData[number * size : (number + 1) * size]
    for keyword in ("NumberOfFrames", "FrameIncrementPointer", "PageNumberVector"):
        if keyword in page:
            delattr(page, keyword)
    shown = document.get("SourceImageSequence", [])  # one item for each page but the first, which shows none
    if "SourceImageSequence" in page:
        del page.SourceImageSequence
    if number > 0 and len(shown) == document.NumberOfFrames - 1:
        page.SourceImageSequence = [deepcopy(shown[number - 1])]
    page.InstanceNumber = number + 1
    return _named(page, SecondaryCaptureImageStorage, derived_uid("page", document.SOPInstanceUID, str(number)))


def _named(document: Dataset, sop_class: UID, uid: str) -> Dataset:
    document.SOPClassUID = document.file_meta.MediaStorageSOPClassUID = sop_class
    document.SOPInstanceUID = document.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    return document
