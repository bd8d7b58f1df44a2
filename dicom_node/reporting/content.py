"""The coded content tree of a report: TID 1500 "Imaging Measurement Report" with one TID 1501 group a finding.

Or the same in containers, texts and codes alone, in the manner of TID 2000 "Basic Diagnostic Imaging Report", for Basic
Text SR, whose IOD knows no numbers and no groups (PS3.3 A.35.1.3).

Numbers come with their kind: (122157, DCM, "Probability") only from a calibrated bundle, else the private concept
"Uncalibrated score". What is below threshold is never written as absent. No image is cited beside a finding: the
model's answer is for the study, and which slices speak for it is not known without an explanation. The evidence
(see `document`) lists every image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes as standard
from pydicom.valuerep import DS

from dicom_node.base.config import ReportSection
from dicom_node.base.errors import ReportError
from dicom_node.base.types import Score, StudyResult
from dicom_node.reporting import codes
from dicom_node.reporting.codes import Concept, report_code
from dicom_node.reporting.summary import NOTHING_FOUND, restriction, score_in_words, summary

BELOW_THRESHOLD = "Below the model's threshold. This does not exclude the finding."
CONTAINS = RelationshipTypeValues.CONTAINS
MODIFIES = RelationshipTypeValues.HAS_CONCEPT_MOD


def derived_uid(*parts: str) -> str:
    """A UID that follows from its parts, so that repeated work writes the same one (2.25, PS3.5 section B.2)."""
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16])}"


def content_tree(
    result: StudyResult, settings: ReportSection, images: int, series: int, *, basic: bool = False
) -> ContainerContentItem:
    """The root container. images, series: how many were used. basic: containers, texts and codes alone.

    Raises ReportError when a score is not a finite number or a probability lies outside 0 to 1.
    """
    for score in (*result.diagnoses, *result.referrals):
        _check(score)
    root = ContainerContentItem(
        coded(report_code("basic_title" if basic else "doc_title")),
        is_content_continuous=False,
        template_id=None if basic else "1500",
    )
    children = ContentSequence()
    warning = restriction(result.model)
    if warning:
        children.append(_text("restriction", warning, MODIFIES))
    children.extend(LanguageOfContentItemAndDescendants(coded(report_code("language_en"))))
    children.extend(_observer(result, settings))
    children.append(
        CodeContentItem(standard.DCM.ProcedureReported, coded(report_code("procedure_mri_brain")), MODIFIES)
    )
    words = _text("summary", summary(result, images, series, settings.negatives != "none"))
    children.append(_container("summary_section", [words]) if basic else words)
    reported = result.diagnoses if settings.negatives == "all" else result.positive
    if reported:
        ordered = sorted(reported, key=lambda score: -score.logit)
        groups = [item for score in ordered for item in (_basic(score) if basic else _finding_group(score, result))]
        children.append(_container("findings_section" if basic else "imaging_measurements", groups))
    children.append(_container("qualitative_evaluations", _study_level(result, settings)))
    recommended = [item for score in result.referrals if score.positive for item in _recommendation(score)]
    if recommended:
        children.append(_container("recommendations", recommended))
    root.ContentSequence = children
    return root


def coded(concept: Concept) -> CodedConcept:
    """The concept as a code item."""
    return CodedConcept(concept.code, concept.scheme, concept.meaning)


def _check(score: Score) -> None:
    probability = score.probability
    if not math.isfinite(score.logit) or not math.isfinite(score.threshold):
        raise ReportError(f"the score of '{codes.printable(score.name)}' is not a number: check the bundle")
    if probability is not None and not 0 <= probability <= 1:
        raise ReportError(
            f"the probability of '{codes.printable(score.name)}' is not between 0 and 1: check the bundle"
        )


def _observer(result: StudyResult, settings: ReportSection) -> ObservationContext:
    model = result.model
    device = DeviceObserverIdentifyingAttributes(
        uid=model.device_uid,
        name=codes.long_string(f"{model.name} {model.version}"),
        manufacturer_name=codes.long_string(settings.manufacturer),
        model_name=codes.long_string(model.name),
        serial_number=codes.long_string(model.bundle_id),
    )
    return ObservationContext(observer_device_context=ObserverContext(standard.DCM.Device, device))


def _algorithm(result: StudyResult, *parameters: str) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=codes.long_string(result.model.name),
        version=codes.long_string(result.model.version),
        parameters=[*parameters, f"numeric precision {codes.printable(result.precision)}"],
        family=coded(report_code("algorithm_family_ai")),
    )


def _finding_group(score: Score, result: StudyResult) -> list[ContentItem]:
    concept = codes.diagnosis(score.name)
    uid = derived_uid("tracking", result.study_instance_uid, result.model.device_uid, score.name)
    presence = report_code("present" if score.positive else "undetermined")
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=uid, identifier=concept.display),
        finding_type=coded(concept),
        algorithm_id=_algorithm(result, f"threshold {score.threshold:.6g} on the logit"),
        measurements=[_measurement(score)],
        qualitative_evaluations=[QualitativeEvaluation(coded(report_code("presence")), coded(presence))],
    )
    group[0].ContinuityOfContent = "SEPARATE"  # continuous text drops the names: a bare number says nothing
    if not concept.exact:
        group[0].ContentSequence.append(_text("exact_wording", concept.display))
    if not score.positive:
        group[0].ContentSequence.append(_text("comment", BELOW_THRESHOLD))
    return [*group]


def _basic(score: Score) -> Iterable[ContentItem]:
    """The finding's code, then its exact wording, its number and its threshold in one line of text.

    Below the threshold there is only the line: nothing here could stand beside the code and say that it is not found.
    """
    concept = codes.diagnosis(score.name)
    if score.positive:
        yield CodeContentItem(coded(report_code("finding")), coded(concept), CONTAINS)
    words = f"{concept.display}: {score_in_words(score)}, threshold {score.threshold:.6g} on the logit."
    yield _text("finding", words if score.positive else f"{words} {BELOW_THRESHOLD}")


def _measurement(score: Score) -> Measurement:
    """The number, readable in Numeric Value and exact in Floating Point Value (PS3.3 C.18.1)."""
    key, value = ("uncalibrated_score", score.logit)
    if score.probability is not None:
        key, value = ("probability", score.probability)
    measurement = Measurement(coded(report_code(key)), float(value), coded(report_code("unit_no_units")))
    measurement[0].MeasuredValueSequence[0].NumericValue = DS(f"{value:.4g}")
    return measurement


def _study_level(result: StudyResult, settings: ReportSection) -> Iterable[ContentItem]:
    """Reading priority, its rule and ACR category, and what was not found (TID 1500 rows 12 to 14)."""
    priority = result.priority
    items: list[ContentItem] = [*_algorithm(result)]
    items.append(
        CodeContentItem(coded(report_code("priority_concept")), coded(codes.priority(priority.level)), CONTAINS)
    )
    items.append(_text("priority_rule", f"{priority.level}: {codes.printable(priority.rule)}"))
    category = codes.actionable_category(priority.level)
    if category:
        name = coded(report_code("actionable_concept_name"))
        items.append(CodeContentItem(name, coded(category), CONTAINS))
    if not result.positive:
        items.append(_text("finding", NOTHING_FOUND))
    below = [codes.diagnosis(score.name).display for score in result.diagnoses if not score.positive]
    if below and settings.negatives == "summary":
        items.append(_text("below_threshold", "; ".join(below)))
    return items


def _recommendation(score: Score) -> Iterable[ContentItem]:
    concept = codes.referral(score.name)
    yield CodeContentItem(coded(report_code("recommendation")), coded(concept), CONTAINS)
    if not concept.exact:
        yield _text("exact_wording", concept.display)


def _container(key: str, items: Iterable[ContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(coded(report_code(key)), is_content_continuous=False, relationship_type=CONTAINS)
    container.ContentSequence = ContentSequence(list(items))
    return container


def _text(key: str, value: str, relationship: RelationshipTypeValues = CONTAINS) -> TextContentItem:
    return TextContentItem(coded(report_code(key)), value, relationship)
