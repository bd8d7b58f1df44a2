"""StudyResult → one Structured Report in the source study (PS3.3 A.35, PS3.16 TID 1500).

The report is preliminary and unverified, a series of its own, with UIDs that follow from study, revision, device and
evidence: work repeated after a crash writes the same object. For a destination that takes another SOP class there is a
variant: the same report in the same series (PS3.3 C.17.1 lets a series hold SR instances of any class), with a UID that
follows from the report's. A result with evidence makes the explained report: another one in the same series, which
names the plain one as its predecessor. A report keeps the source's Specific Character Set, because the archive is
known to take it; only where a text might not come back unchanged is it written in UTF-8 (ISO_IR 192).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import Comprehensive3DSR, ComprehensiveSR, EnhancedSR
from pydicom.charset import convert_encodings, encode_string
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import UID, BasicTextSRStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage
from pydicom.valuerep import PersonName

from dicom_node.base.config import ReportSection, SopClass
from dicom_node.base.errors import ReportError
from dicom_node.base.types import ModelIdentity, StudyResult
from dicom_node.reporting.codes import LONG_STRING, PRIVATE_SCHEME, long_string, report_code
from dicom_node.reporting.content import coded, content_tree, derived_uid
from dicom_node.reporting.library import cited_images
from dicom_node.reporting.source import TYPE_2, Image, Source, decode, legal_uid, read_source
from dicom_node.reporting.wording import Wording

SOP_CLASSES: dict[SopClass, UID] = {
    "comprehensive_3d": Comprehensive3DSRStorage,
    "comprehensive": ComprehensiveSRStorage,
    "enhanced": EnhancedSRStorage,
    "basic_text": BasicTextSRStorage,
}
WRITERS = {
    Comprehensive3DSRStorage: Comprehensive3DSR,
    ComprehensiveSRStorage: ComprehensiveSR,
    EnhancedSRStorage: EnhancedSR,
    BasicTextSRStorage: EnhancedSR,  # highdicom has no other; the modules are the same (PS3.3 A.35.1, A.35.2)
}
UNPROVEN = frozenset({"GBK", "ISO 2022 GBK", "ISO 2022 58"})  # dciodvfy cannot check a text in these
DELIMITERS = ("\\", "^", "=")
TEXT_VRS = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}


def report_uids(result: StudyResult, sop_class: SopClass) -> tuple[str, str]:
    """SOP Instance UID and Series Instance UID of the report.

    They follow from study, revision, device and the images used, in any order, and in which version where there are
    several: a registry that was rebuilt from the files counts revisions anew, and what it then makes of other images
    must not look like an earlier report.
    """
    used = sorted([*result.sop_instance_uids, *result.corrected])
    evidence = hashlib.sha256("\n".join(used).encode()).hexdigest()
    parts = (result.study_instance_uid, str(result.revision), result.model.device_uid, evidence)
    return derived_uid("report", *parts, SOP_CLASSES[sop_class]), derived_uid("report series", *parts)


def variant_uid(report_uid: str, sop_class: SopClass) -> str:
    """SOP Instance UID of a report's variant in another SOP class. report_uid: that of the report itself."""
    return derived_uid("report variant", report_uid, SOP_CLASSES[sop_class])


def explained_uid(report_uid: str) -> str:
    """SOP Instance UID of the explained report. report_uid: of the plain one. Its variants follow from it as ever."""
    return derived_uid("explained report", report_uid)


def build_report(
    result: StudyResult,
    images: Sequence[Path],
    settings: ReportSection,
    created_at: datetime,
    sop_class: SopClass | None = None,
) -> Dataset:
    """The whole document with file meta information, ready to be written.

    images: the files of exactly the instances in `result.sop_instance_uids`; the evidence lists them all, and patient,
    study and order come from their headers. created_at: written in the source's time zone where that is known.
    sop_class: for the report's variant in another SOP class than `settings.sop_class`; `result.predecessors` always
    names the earlier reports themselves, and a variant refers to their variants.
    With `result.evidence` it is the explained report (`explained_uid`), else the plain one.
    Raises ReportError when no valid report is possible; the message names the attribute, never its value.
    """
    source = read_source(images)
    _check(result, source)
    chosen = sop_class or settings.sop_class
    wording = Wording(settings.language)
    plain_uid, series_uid = report_uids(result, settings.sop_class)
    report_uid = explained_uid(plain_uid) if result.evidence else plain_uid
    is_variant = chosen != settings.sop_class
    sop_uid = variant_uid(report_uid, chosen) if is_variant else report_uid
    plain = (plain_uid, series_uid, SOP_CLASSES[settings.sop_class])
    replaced = (plain,) if result.evidence else result.predecessors
    series_count = len({image.series_instance_uid for image in source.images})
    # every value is checked by now, and pydicom's own validation quotes values in its warnings and its log
    with disable_value_validation(), warnings.catch_warnings(action="ignore"):
        document: Dataset = WRITERS[SOP_CLASSES[chosen]](
            evidence=[evidence_of(source.study_instance_uid, image) for image in source.images],
            content=content_tree(
                result,
                settings,
                len(source.images),
                series_count,
                basic=chosen == "basic_text",
                cited=cited_images(result, source),
            ),
            series_instance_uid=series_uid,
            series_number=settings.series_number,
            series_description=series_description(settings.series_description, result.model),
            sop_instance_uid=sop_uid,
            instance_number=1 + list(SOP_CLASSES).index(chosen) + len(SOP_CLASSES) * bool(result.evidence),
            manufacturer=long_string(settings.manufacturer),
            manufacturer_model_name=long_string(result.model.name),
            device_serial_number=long_string(result.model.bundle_id),
            software_versions=software_versions(result.model),
            institution_name=long_string(settings.institution) or None,
            is_complete=result.partial_reason is None,
            requested_procedures=list(source.requests) or None,
            previous_versions=_predecessors(source, replaced, chosen, is_variant=is_variant) or None,
            coding_schemes=[_private_scheme()],
        )
        document.SOPClassUID = document.file_meta.MediaStorageSOPClassUID = SOP_CLASSES[chosen]
        document.DeviceUID = result.model.device_uid
        if result.partial_reason is not None:
            document.CompletionFlagDescription = long_string(wording.told(result.partial_reason))
        document.update(source.attributes)
        date_object(document, created_at)
        if result.evidence:  # the series began with the plain report: its date and time are those written there
            del document.SeriesDate, document.SeriesTime
        document.ContributingEquipmentSequence = [device_of(result, settings, wording)]
        set_character_set(document, source.character_set)
    return document


def _check(result: StudyResult, source: Source) -> None:
    if source.study_instance_uid != result.study_instance_uid:
        raise ReportError("StudyInstanceUID of the used images is not that of the result")
    if {image.sop_instance_uid for image in source.images} != set(result.sop_instance_uids):
        raise ReportError("SOPInstanceUID: the images given are not the images the result was made from")
    uids = [result.model.device_uid, *(uid for uids in result.predecessors for uid in uids)]
    if not all(legal_uid(uid) for uid in uids):
        raise ReportError("a UID of the bundle's device or of an earlier report is not a legal UID")


def evidence_of(study_instance_uid: str, image: Image) -> Dataset:
    """What highdicom wants to know of a source image; its patient and study attributes are copied from `Source`."""
    evidence = Dataset()
    evidence.StudyInstanceUID = study_instance_uid
    evidence.SeriesInstanceUID = image.series_instance_uid
    evidence.SOPInstanceUID = image.sop_instance_uid
    evidence.SOPClassUID = image.sop_class_uid
    for keyword in ("PatientName", "PatientID", "AccessionNumber", *TYPE_2):
        setattr(evidence, keyword, "")
    return evidence


def _predecessors(
    source: Source, replaced: Iterable[tuple[str, str, str]], sop_class: SopClass, *, is_variant: bool
) -> list[Dataset]:
    """The reports that are replaced; beside a variant those of its own class, for its destination was sent no other."""
    wanted = SOP_CLASSES[sop_class]
    predecessors = []
    for sop_uid, series_uid, sop_class_uid in replaced:
        predecessor = Dataset()
        predecessor.StudyInstanceUID = source.study_instance_uid
        predecessor.SeriesInstanceUID = series_uid
        as_reported = not is_variant or sop_class_uid == wanted
        predecessor.SOPInstanceUID = sop_uid if as_reported else variant_uid(sop_uid, sop_class)
        predecessor.SOPClassUID = sop_class_uid if as_reported else wanted
        predecessors.append(predecessor)
    return predecessors


def series_description(words: str, model: ModelIdentity) -> str:
    """The words first, so that a rule on their beginning matches marked objects as well; the mark is never cut."""
    mark = "" if model.clinical else f" [{model.training_state.upper()}, NOT FOR CLINICAL USE]"
    return long_string(long_string(words, LONG_STRING - len(mark)) + mark)


def software_versions(model: ModelIdentity) -> list[str]:
    """The model's and the node's."""
    return [long_string(model.version), f"prima-node {version('prima-node')}"]


def _private_scheme() -> CodingSchemeIdentificationItem:
    return CodingSchemeIdentificationItem(
        PRIVATE_SCHEME, name="prima-node private concepts", responsible_organization="prima-node"
    )


def device_of(result: StudyResult, settings: ReportSection, wording: Wording) -> Dataset:
    """The device that made the result (SOP Common Module, PS3.3 C.12.1), found by its UID as IHE AI Results asks."""
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [coded(report_code("processing_equipment"))]
    equipment.Manufacturer = long_string(settings.manufacturer)
    equipment.ManufacturerModelName = long_string(result.model.name)
    equipment.DeviceSerialNumber = long_string(result.model.bundle_id)
    equipment.SoftwareVersions = software_versions(result.model)
    equipment.DeviceUID = result.model.device_uid
    equipment.ContributionDescription = wording.say("contribution")
    return equipment


def date_object(document: Dataset, created_at: datetime) -> None:
    """All times in the source's time zone: (0008,0201) holds for every date and time of an object."""
    offset = document.get("TimezoneOffsetFromUTC")
    zone = None
    if offset:
        sign = -1 if offset[0] == "-" else 1
        zone = timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))
    local = created_at.astimezone(zone)
    for prefix in ("InstanceCreation", "Content", "Series"):
        setattr(document, f"{prefix}Date", local.strftime("%Y%m%d"))
        setattr(document, f"{prefix}Time", local.strftime("%H%M%S"))


def set_character_set(document: Dataset, character_set: tuple[str, ...]) -> None:
    """Write down which character set holds all texts: the source's, or UTF-8 where one of them would not come back."""
    texts = [element.value for element in document.iterall() if element.VR in TEXT_VRS]
    if not UNPROVEN.isdisjoint(character_set) or not all(_survives(text, character_set) for text in texts):
        character_set = ("ISO_IR 192",)
    if character_set:
        document.SpecificCharacterSet = list(character_set)


def _splits_wrongly(written: bytes, text: str) -> bool:
    """Whether a byte of a multi-byte character looks like a delimiter: many readers split before they decode."""
    return any(written.count(sign.encode()) != text.count(sign) for sign in DELIMITERS)


def _survives(value: object, character_set: tuple[str, ...]) -> bool:
    """Whether this text, written under these terms, reads back as it is."""
    if isinstance(value, str | PersonName):
        encodings = convert_encodings(list(character_set))
        try:
            is_name = isinstance(value, PersonName)
            text = str(value)
            written = PersonName(text).encode(encodings) if is_name else encode_string(text, encodings)
            return decode(written, character_set) == text and not _splits_wrongly(written, text)
        except ValueError:
            return False
    return all(_survives(part, character_set) for part in value) if isinstance(value, Iterable) else True
